"""The whole embedded system in one process, with destinations that do as a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, cast

from functions.apply_rules.main import apply_rules
from functions.deliver_instance.main import deliver_instance
from functions.record_exception.main import record_exception
from functions.run_job.main import run_job
from functions.standardize_attributes.main import standardize_attributes
from functions.validate_instance.main import validate_instance
from shared import bootstrap
from shared.adapters.embedded.message_bus import Leased, SqliteMessageBus
from shared.dicom.outgoing import OutgoingInstance, chunks
from shared.messages import Receipt, Source, Topic
from shared.pipeline.ports import Ports
from shared.pipeline.push import (
    ATTEMPT_HEADER,
    MESSAGE_ID_HEADER,
    PushRequest,
    PushResponse,
)

EntryPoint = Callable[[PushRequest], PushResponse]
ENTRY_POINTS: Mapping[str, EntryPoint] = {
    Topic.INSTANCE_RECEIVED: cast(EntryPoint, validate_instance),
    Topic.INSTANCE_ACCEPTED: cast(EntryPoint, apply_rules),
    Topic.STANDARDIZATION_REQUESTED: cast(EntryPoint, standardize_attributes),
    Topic.DELIVERY_REQUESTED: cast(EntryPoint, deliver_instance),
    Topic.EXCEPTION_RAISED: cast(EntryPoint, record_exception),
    Topic.JOB_REQUESTED: cast(EntryPoint, run_job),
}
SOURCE = Source("dimse", "main-listener", calling_ae_title="CT1", peer_address="10.1.2.3")


class Peer:
    """A destination: keeps the last bytes for each SOP Instance UID, and counts what came."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.sent: list[OutgoingInstance] = []
        # Called before storing, and after it; each may raise what a destination raises.
        self.before: Callable[[OutgoingInstance], None] = lambda instance: None
        self.after: Callable[[OutgoingInstance], None] = lambda instance: None
        self._lock = threading.Lock()

    def deliver(self, instance: OutgoingInstance) -> str:
        data = b"".join(chunks(instance.part10_parts()))
        with self._lock:
            self.sent.append(instance)
        self.before(instance)
        self.stored[instance.sop_instance_uid] = data
        self.after(instance)
        return "0000H"

    def check(self) -> str:
        return "0000H"

    def close(self) -> None:
        """Nothing is open."""


class System:
    """The ports, the peers by name, and the messages' way through the stages."""

    def __init__(self, ports: Ports, peers: Mapping[str, Peer]) -> None:
        self.ports, self.peers = ports, peers

    @property
    def bus(self) -> SqliteMessageBus:
        assert isinstance(self.ports.bus, SqliteMessageBus)
        return self.ports.bus

    def receive(self, part10: bytes) -> Receipt:
        with self.ports.receiver.begin(SOURCE) as staging:
            staging.write(part10)
            return staging.commit()

    def step(self, limit: int = 10, *, again: bool = False) -> list[int]:
        """Work on what is due once; what does not end with success comes again at once.

        `again` leaves what was done in the queue: it is delivered twice.
        """
        leased = self.bus.lease(list(ENTRY_POINTS), limit=limit, lease_s=60)
        statuses = []
        done, later = [], []
        for message in leased:
            _, status, _ = self.call(message)
            statuses.append(status)
            if status < 300 and not again:
                done.append(message.message_id)
            else:
                later.append((message.message_id, 0.0))
        self.bus.settle(acknowledged=done, later=later)
        return statuses

    def call(self, message: Leased) -> PushResponse:
        """Hand a message to its entry point."""
        headers = {
            MESSAGE_ID_HEADER: str(message.message_id),
            ATTEMPT_HEADER: str(message.attempt),
        }
        return ENTRY_POINTS[message.topic](PushRequest(message.data, headers))

    def pump(self, most: int = 200) -> None:
        """Step until the queue is empty, or `most` times."""
        for _ in range(most):
            if not self.step():
                return

    def configure(self, **settings: Any) -> None:
        """Destinations named as the peers; `settings` beside those that tests need."""
        self.ports.configuration.apply(
            {"settings": {"min_free_bytes": 0, "default_route": ["pacs"], **settings}}, by="test"
        )

    def on_conflict(self, policy: str, destination: str = "pacs") -> None:
        found = self.ports.configuration.read("destinations", destination)
        self.ports.configuration.replace(
            "destinations", destination, {**found, "on_conflict": policy}, by="test"
        )

    def instance(self, receipt: Receipt) -> Mapping[str, Any]:
        found = self.ports.documents.get("instances", receipt.receipt_id)
        assert found is not None
        return found.data

    def delivery(self, receipt: Receipt, destination: str = "pacs") -> Mapping[str, Any]:
        found = self.ports.documents.get("deliveries", f"{receipt.receipt_id}:{destination}")
        assert found is not None
        return found.data

    def entries(self, **where: str) -> list[Mapping[str, Any]]:
        return [one.data for one in self.ports.exceptions.list(where=where, limit=500).documents]

    def audit(self) -> list[Mapping[str, Any]]:
        """The whole audit log, oldest first."""
        page = self.ports.documents.query("audit", order_by="when", limit=500)
        return [one.data for one in page.documents]

    def done(self) -> list[Mapping[str, Any]]:
        """Of the audit log, all but the changes of the configuration that a test begins with."""
        return [step for step in self.audit() if not step["what"].startswith("configuration.")]


def running_system(
    home: Path, set_home: Callable[[str, str], None]
) -> Generator[System, None, None]:
    """A system whose destinations `pacs` and `spare` are Peers."""
    set_home("AXIOM_HOME", str(home))
    bootstrap.from_environment.cache_clear()
    ports = bootstrap.from_environment()
    peers = {"pacs": Peer(), "spare": Peer()}
    ports.destinations._create = lambda entity: peers[entity.name]
    destinations = [{"name": name, "type": "filesystem", "path": name} for name in peers]
    ports.configuration.apply({"destinations": destinations, "settings": {}}, by="test")
    system = System(ports, peers)
    system.configure()
    yield system
    ports.destinations.close()
    bootstrap.from_environment.cache_clear()
