"""Everything a stage may use, in one value that `shared.bootstrap` builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.metrics import PROCESS, Snapshot
from shared.ports import (
    Clock,
    DocumentStore,
    MessageBus,
    ObjectStore,
    QueueGauge,
    SecretStore,
    SourceReader,
)

if TYPE_CHECKING:
    from shared.config.service import ConfigurationService
    from shared.config.sources import AnySource
    from shared.pipeline.browsing import Searched, SearchedEntity
    from shared.pipeline.commitment import Commitments, Due
    from shared.pipeline.crosswalks import Crosswalks
    from shared.pipeline.destinations import DestinationPool
    from shared.pipeline.envelope import HeaderFields
    from shared.pipeline.exceptions import ExceptionLog
    from shared.pipeline.receive import Receiver
    from shared.pipeline.reconcile import Inventory
    from shared.pipeline.rulebook import RuleBook
    from shared.pipeline.shadow import ShadowLog
    from shared.pipeline.standardizers import Standardizers
    from shared.pipeline.uploads import BeginSession

# Says None when the part works, or in a few words what is wrong with it.
HealthCheck = Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports, and the parts of the pipeline that are built over them once for each process."""

    objects: ObjectStore
    documents: DocumentStore
    bus: MessageBus
    secrets: SecretStore
    clock: Clock
    configuration: ConfigurationService
    receiver: Receiver
    rules: RuleBook
    destinations: DestinationPool
    crosswalks: Crosswalks
    exceptions: ExceptionLog
    commitments: Commitments
    # Tells an AE what became of its request. Raises: DestinationUnavailableError and its kin.
    report_commitment: Callable[[Due], None]
    # Looks at what the destination of that name holds. Raises, also within its block:
    # DestinationUnavailableError and its kin.
    inventory: Callable[[str], AbstractContextManager[Inventory]]
    shadows: ShadowLog
    standardizers: Standardizers
    # How many messages wait for a destination; None on a platform whose queue cannot tell.
    waiting: Callable[[str], int] | None = None
    # The bus where it can tell what waits in it; None on a platform whose bus cannot.
    queue: QueueGauge | None = None
    # Says who may call a function. Raises: CallerRefusedError; None where nobody can but ourselves.
    check_caller: Callable[[HeaderFields], None] | None = None
    # Asks a source. Raises: SourceMisconfiguredError; None where nobody polls.
    open_source: Callable[[AnySource], SourceReader] | None = None
    # Searches a store for a person. Raises: SourceMisconfiguredError and its kin.
    open_search: Callable[[SearchedEntity], Searched] | None = None
    # Begins an upload into a landing bucket; None where there is none.
    begin_upload: BeginSession | None = None
    # What all processes of this machine counted.
    metrics: Callable[[], Snapshot] = PROCESS.snapshot
    health_checks: Mapping[str, HealthCheck] = field(default_factory=dict)
