"""The one place that wires adapters to ports, as the environment says."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from shared import exporting
from shared.config.service import COLLECTION as CONFIGURATION
from shared.config.service import HEAD, ConfigurationService
from shared.edge.environment import EdgeEnvironment
from shared.environment import Environment, Platform
from shared.errors import AxiomError, DestinationMisconfiguredError, SecretMissingError
from shared.messages import Topic
from shared.pipeline.admission import Admission
from shared.pipeline.commitment import Commitments, Due, Elsewhere
from shared.pipeline.destinations import DestinationPool
from shared.pipeline.exceptions import ExceptionLog
from shared.pipeline.ingest import COLLECTION as INGESTED
from shared.pipeline.ingest import Places
from shared.pipeline.ports import HealthCheck, Ports
from shared.pipeline.receive import Receiver
from shared.pipeline.reconcile import Inventory
from shared.pipeline.rulebook import RuleBook
from shared.pipeline.shadow import ShadowLog
from shared.pipeline.standardizers import ProviderFactory, Standardizers
from shared.pipeline.turns import Turns
from shared.ports import (
    Clock,
    DocumentStore,
    MessageBus,
    ObjectStore,
    QueueGauge,
    SecretStore,
)

if TYPE_CHECKING:
    from shared.adapters.embedded.message_bus import SqliteMessageBus
    from shared.adapters.standardizers import Providers
    from shared.config.sources import AnySource
    from shared.edge.edge import Edge
    from shared.identity.callers import Callers
    from shared.identity.identity import Identity
    from shared.pipeline.browsing import Searched, SearchedEntity
    from shared.pipeline.presence import Presence
    from shared.ports import SourceReader

# A link that says nothing for so long is down.
_LINK_ANSWERS_WITHIN_S = 20.0
# Within what a push is waited for, and others are worked on meanwhile.
_LONGEST_TURN_S = 20.0
# Of a transcoded or deflated Instance, where temporary files are memory.
_MOST_TEMPORARY_BYTES = 32 << 20

# Fields that queries ask for, by collection.
INDICES = {
    "exceptions": (
        "last_at",
        "status",
        "category",
        "stage",
        "destination",
        "study_instance_uid",
        "sop_instance_uid",
        "receipt_id",
    ),
    "instances": (
        "received_at",
        "state",
        "study_instance_uid",
        "series_instance_uid",
        "sop_instance_uid",
    ),
    "deliveries": ("updated_at", "state", "destination", "receipt_id", "study_instance_uid"),
    "audit": ("when",),
    "jobs": ("created_at",),
    "studies": ("due_at", "opened_at", "state", "study_instance_uid"),
    "collected": ("study", "receipt_id", "is_waiting_late"),
    "commitments": ("requested_at", "finished_at"),
    "commitment-reports": ("finished_at",),
    "reconciliations": ("began_at", "finished_at"),
    "clean-ups": ("ended_at",),
    "source-ledger": ("checked_at",),
    "pull-rows": ("job", "created_at"),
    "shadow-reports": ("edition", "until"),
    "ingested": ("at",),
    "standardization-decisions": ("at",),
    "standardization-series": ("updated_at", "state", "series_instance_uid"),
    "standardization-synonyms": ("at",),
    "standardization-hits": ("decision", "at"),
    "standardization-counts": ("at",),
    "api_keys": ("user", "created_at"),
    "users": ("email", "name"),
    "roles": ("name",),
    "session_secrets": ("period",),
}


@cache
def from_environment() -> Ports:
    """The ports of this process, wired on first use; what it does is exported from then on."""
    environment = Environment.read()
    exporting.begin()
    if environment.platform is Platform.EMBEDDED:
        return embedded(environment)
    on_premises = EdgeEnvironment.read()
    return cloud(environment) if on_premises is None else edge(environment, on_premises)


def storage_root() -> Path | None:
    """Where the folders of destinations begin; None where none would last."""
    environment = Environment.read()
    if environment.platform is Platform.EMBEDDED:
        return _storage_of(environment.home)
    from shared.adapters.cloud.environment import CloudEnvironment

    return CloudEnvironment.read().storage_root


@cache
def places() -> Places:
    """Where the cloud platform fetches Instances that others have put there.

    Raises: ValueError naming the setting that is wrong or missing.
    """
    from shared.adapters.cloud import platform
    from shared.adapters.cloud.environment import CloudEnvironment

    return platform.places(CloudEnvironment.read())


def callers(ports: Ports) -> Callers:
    """Who may call listeners that ask. Raises (when a user of ours calls): ValueError naming the
    setting that is wrong.
    """
    from shared.identity.callers import Callers

    @cache
    def identity() -> Identity:
        from shared.identity.identity import Identity
        from shared.identity.settings import IdentitySettings

        return Identity(ports.documents, ports.secrets, ports.clock, IdentitySettings.read())

    return Callers(identity, ports.documents, ports.secrets, ports.clock)


def presence(ports: Ports) -> Presence | None:
    """What keeps the name that the gateways share; None where they have a fixed address.

    Raises: ValueError naming the setting that is missing; StorageUnavailableError if nobody says
    which address we have.
    """
    from shared.pipeline.presence import Presence

    zone, name = os.environ.get("AXIOM_DNS_ZONE"), os.environ.get("AXIOM_DNS_NAME")
    if not zone or not name:
        return None
    from shared.adapters.cloud.clients import authorized_session
    from shared.adapters.cloud.environment import CloudEnvironment
    from shared.adapters.cloud.name_record import CloudDnsRecord, own_address

    settings = CloudEnvironment.read()
    record = CloudDnsRecord(authorized_session(settings), settings.project, zone, name)
    return Presence(own_address(), ports.documents, record, ports.clock)


def faults(topics: Iterable[str]) -> list[str]:
    """What the cloud platform needs and Terraform has not applied, a line each; empty elsewhere.
    `topics` are those that the process publishes to.
    """
    if Environment.read().platform is not Platform.CLOUD:
        return []
    from shared.adapters.cloud.environment import CloudEnvironment
    from shared.adapters.cloud.preflight import faults

    return faults(CloudEnvironment.read(), from_environment().documents, topics)


def embedded(environment: Environment, clock: Clock | None = None) -> Ports:
    """The whole system below one folder; `clock` is the machine's unless a test brings another."""
    # Adapters are imported where they are chosen: a process pays only for its own platform.
    from shared.adapters.embedded.clock import system_clock
    from shared.adapters.embedded.document_store import SqliteDocumentStore
    from shared.adapters.embedded.message_bus import SqliteMessageBus
    from shared.adapters.embedded.object_store import FolderObjectStore
    from shared.adapters.embedded.secret_store import FileSecretStore
    from shared.metrics_folder import MetricsFolder

    home = environment.home
    home.mkdir(parents=True, exist_ok=True)
    clock = clock or system_clock(os.environ)
    bus = SqliteMessageBus(home / "queue.db", home / "run", clock)
    secret_store = FileSecretStore(home / "secrets")
    ports = _wired(
        objects=FolderObjectStore(home / "objects"),
        documents=SqliteDocumentStore(home / "documents.db", indices=INDICES),
        bus=bus,
        secret_store=secret_store,
        clock=clock,
        queue=bus,
        home=home,
        storage_root=_storage_of(home),
        first=first_configuration(),
    )
    ports.configuration.current()  # makes the first one, before anybody looks into the home
    return replace(
        ports, waiting=_waiting_in(bus), metrics=MetricsFolder(home / "run" / "metrics").total
    )


def cloud(environment: Environment, clock: Clock | None = None) -> Ports:
    """The system over Google's services; nothing connects, and no client is imported, before it is
    used.

    Raises: ValueError naming the setting that is wrong or missing.
    """
    from shared.adapters.cloud import platform
    from shared.adapters.cloud.environment import CloudEnvironment
    from shared.adapters.embedded.clock import SystemClock

    settings = CloudEnvironment.read()
    clock = clock or SystemClock()
    environment.home.mkdir(parents=True, exist_ok=True)
    stores = platform.stores(settings)
    from shared.dicom.spooling import keep_elsewhere

    # There the folder of temporary files is a function's own memory.
    keep_elsewhere(stores.objects, _MOST_TEMPORARY_BYTES)
    ports = _wired(
        objects=stores.objects,
        documents=stores.documents,
        bus=stores.bus,
        secret_store=stores.secrets,
        clock=clock,
        queue=None,
        home=environment.home,
        storage_root=settings.storage_root,
        first=platform.first_configuration(settings),
    )
    return replace(
        ports,
        check_caller=platform.caller_check(settings, clock),
        begin_upload=platform.begin_upload(settings),
    )


def edge(environment: Environment, settings: EdgeEnvironment, clock: Clock | None = None) -> Ports:
    """Reception of a gateway on premises: all that it asks is on its own disk."""
    from shared.adapters.cloud import platform
    from shared.adapters.cloud.environment import CloudEnvironment
    from shared.adapters.embedded.clock import SystemClock
    from shared.adapters.embedded.message_bus import SqliteMessageBus
    from shared.adapters.embedded.object_store import FolderObjectStore
    from shared.adapters.embedded.secret_store import FileSecretStore
    from shared.edge.documents import SpooledDocuments
    from shared.edge.spool import Spool

    root = settings.spool
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    environment.home.mkdir(parents=True, exist_ok=True)
    clock = clock or SystemClock()
    bus = SqliteMessageBus(root / "queue.db", root / "run", clock)
    objects = FolderObjectStore(root / "objects")
    spool = Spool(bus, objects, clock)
    far_documents = platform.stores(CloudEnvironment.read()).documents
    return _wired(
        objects=objects,
        documents=SpooledDocuments(root / "documents.db", INDICES, spool),
        bus=bus,
        secret_store=FileSecretStore(root / "secrets"),
        clock=clock,
        # However much waits for the link, it is taken while the disk has room.
        queue=None,
        home=environment.home,
        storage_root=None,
        first=None,
        elsewhere=Elsewhere(spool, far_documents),
    )


def beside_reception(ports: Ports) -> Edge | None:
    """What moves the spool of a gateway on premises; None where there is none.

    Raises: ValueError naming the setting that is wrong or missing.
    """
    settings = EdgeEnvironment.read()
    if settings is None:
        return None
    from shared.adapters.cloud import platform
    from shared.adapters.cloud.environment import CloudEnvironment
    from shared.adapters.embedded.message_bus import SqliteMessageBus
    from shared.adapters.embedded.object_store import FolderObjectStore
    from shared.edge.edge import Edge, FarSide
    from shared.edge.pace import Pace
    from shared.edge.spool import Spool

    assert isinstance(ports.bus, SqliteMessageBus)
    assert isinstance(ports.objects, FolderObjectStore)
    cloud_environment = CloudEnvironment.read()
    stores = platform.stores(cloud_environment, publish_within_s=_LINK_ANSWERS_WITHIN_S)
    pace = Pace(settings.bytes_per_s, ports.clock)
    uploads = platform.uploads(cloud_environment, ports.documents, pace.take)
    far = FarSide(stores.objects, stores.documents, stores.bus, stores.secrets, uploads)
    return Edge(settings, ports, Spool(ports.bus, ports.objects, ports.clock), far)


def _wired(
    *,
    objects: ObjectStore,
    documents: DocumentStore,
    bus: MessageBus,
    secret_store: SecretStore,
    clock: Clock,
    queue: QueueGauge | None,
    home: Path,
    storage_root: Path | None,
    first: Mapping[str, object] | None,
    elsewhere: Elsewhere | None = None,
) -> Ports:
    """What every platform builds over its adapters."""
    from shared.adapters.crosswalk.maps import ConfiguredCrosswalks
    from shared.adapters.destinations import create

    configuration = ConfigurationService(objects, documents, secret_store, clock, first=first)
    exceptions = ExceptionLog(documents, bus, clock)
    commitments = Commitments(documents, bus, clock, configuration, elsewhere)
    crosswalks = ConfiguredCrosswalks(
        configuration, secret_store, objects, documents, clock, home / "crosswalks"
    )
    rules = RuleBook(configuration, cache(partial(_pseudonym_key, secret_store)), crosswalks)

    return Ports(
        objects=objects,
        documents=documents,
        bus=bus,
        secrets=secret_store,
        clock=clock,
        configuration=configuration,
        receiver=Receiver(
            objects, bus, clock, configuration, exceptions, rules, Admission(objects, queue, clock)
        ),
        rules=rules,
        destinations=DestinationPool(
            configuration,
            lambda entity: create(
                entity,
                secret_store,
                storage_root=storage_root,
                commitment_report=commitments.report_of,
            ),
            clock,
            # Who pushes waits for the answer; a queue of our own has a lane for each destination.
            longest_wait_s=_LONGEST_TURN_S if queue is None else math.inf,
            turns=Turns(clock, longest_wait_s=_LONGEST_TURN_S) if queue is None else None,
        ),
        crosswalks=crosswalks,
        exceptions=exceptions,
        commitments=commitments,
        report_commitment=partial(_report_commitment, secret_store),
        inventory=_inventory_of(configuration, secret_store, storage_root),
        queue=queue,
        shadows=ShadowLog(documents, clock),
        standardizers=Standardizers(
            configuration, documents, clock, _standardizer_factory(secret_store, clock)
        ),
        open_source=_source_of(secret_store, documents, clock, home / "incoming"),
        open_search=_search_of(secret_store, clock),
        health_checks={
            "documents": _documents_answer(documents),
            "objects": _objects_are_writable(objects),
        },
    )


def _waiting_in(bus: SqliteMessageBus) -> Callable[[str], int]:
    topic = Topic.DELIVERY_REQUESTED

    def waiting(destination: str) -> int:
        depths = bus.depth(topic)
        return depths[topic].lanes.get(destination, 0) if topic in depths else 0

    return waiting


def first_configuration() -> dict[str, object]:
    """What a new home starts with: everything that comes is kept in one folder."""
    return {
        "destinations": [
            {"name": "primary-storage", "type": "filesystem", "path": "primary-storage"}
        ],
        "settings": {"default_route": ["primary-storage"]},
    }


def _pseudonym_key(secret_store: SecretStore) -> bytes:
    """The key of keyed actions (hash, new UID, date shift): made once, the same in each process."""
    name = "pseudonym-key"
    try:
        return bytes.fromhex(secret_store.get(name))
    except SecretMissingError:
        secret_store.put(name, secrets.token_hex(32))
        return bytes.fromhex(secret_store.get(name))


def _report_commitment(secret_store: SecretStore, due: Due) -> None:
    from shared.adapters.destinations.commitment import report_commitment

    report_commitment(
        due.report,
        due.peer,
        secret_store,
        called_ae_title=due.ae_title,
        calling_ae_title=due.own_ae_title,
    )


def _standardizer_factory(secret_store: SecretStore, clock: Clock) -> ProviderFactory:
    @cache
    def providers() -> Providers:
        from shared.adapters.standardizers import Providers

        return Providers(secret_store, clock)

    return lambda entity, site: providers().create(entity, site)


def _inventory_of(
    configuration: ConfigurationService, secret_store: SecretStore, storage_root: Path | None
) -> Callable[[str], AbstractContextManager[Inventory]]:
    def inventory_of(name: str) -> AbstractContextManager[Inventory]:
        from shared.adapters.destinations.inventory import inventory, inventory_of_all
        from shared.config.entities import GroupDestination

        entity = configuration.get().destination(name)
        if entity is None:
            raise DestinationMisconfiguredError(name, "there is no destination of this name")
        if isinstance(entity, GroupDestination):
            return inventory_of_all([inventory_of(member) for member in entity.members])
        return inventory(entity, secret_store, storage_root=storage_root)

    return inventory_of


def _storage_of(home: Path) -> Path:
    return home / "storage"


def _source_of(
    secret_store: SecretStore, documents: DocumentStore, clock: Clock, root: Path
) -> Callable[[AnySource], SourceReader]:
    def is_taken(landed: str) -> bool:
        key = hashlib.sha256(landed.encode()).hexdigest()
        return documents.get(INGESTED, key) is not None

    def source_of(entity: AnySource) -> SourceReader:
        from shared.adapters.sources import open_source

        return open_source(entity, secret_store, clock, root=root, is_taken=is_taken)

    return source_of


def _search_of(secret_store: SecretStore, clock: Clock) -> Callable[[SearchedEntity], Searched]:
    def search_of(entity: SearchedEntity) -> Searched:
        from shared.adapters.sources import open_search

        return open_search(entity, secret_store, clock)

    return search_of


def _documents_answer(documents: DocumentStore) -> HealthCheck:
    def check() -> str | None:
        try:
            documents.get(CONFIGURATION, HEAD)
        except AxiomError as error:
            return str(error)
        return None

    return check


def _objects_are_writable(objects: ObjectStore) -> HealthCheck:
    def check() -> str | None:
        try:
            with objects.create("health/probe") as writer:
                writer.write(b"probe")
        except AxiomError as error:
            return str(error)
        return None

    return check
