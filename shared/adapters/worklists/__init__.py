"""Where scheduled procedure steps are: folders, tables, other worklist SCPs (PS3.4 Annex K)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from shared.errors import SourceMisconfiguredError

if TYPE_CHECKING:
    from shared.config.entities import Configuration
    from shared.config.worklists import AnyWorklist
    from shared.dicom.query import Key, Match
    from shared.ports import Clock, SecretStore


class Worklist(Protocol):
    """Thread-safe."""

    def find(self, keys: Sequence[Key]) -> Iterator[Match | None]:
        """What fits all keys; None while there is more to be looked at.

        Raises, also while it is iterated over: SourceUnavailableError and its kin.
        """

    def close(self) -> None:
        """Release what is open, once nobody asks any more."""


def open_worklist(
    entity: AnyWorklist,
    configuration: Configuration,
    secrets: SecretStore,
    clock: Clock,
    home: Path,
) -> Worklist:
    """What `entity` configures; relative paths lie in folders of their own below `home`.

    Raises: SourceMisconfiguredError.
    """
    # Each adapter is imported when one is wanted.
    if entity.type == "folder":
        from shared.adapters.worklists.folder import FolderOfSteps

        return FolderOfSteps(entity.name, home / "worklists" / entity.path)
    if entity.type == "dimse":
        from shared.adapters.worklists.dimse import WorklistScp

        return WorklistScp(entity, secrets)
    from shared.adapters.worklists.table import TableOfSteps

    source = configuration.crosswalk_source(entity.source)
    if source is None or not source.enabled:
        raise SourceMisconfiguredError(entity.name, "its crosswalk source is not there")
    return TableOfSteps(entity, source, secrets, clock, home / "crosswalks")
