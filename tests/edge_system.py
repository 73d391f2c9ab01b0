"""A gateway on premises without its threads, and a cloud made of embedded stores behind a link."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.adapters.embedded.object_store import FolderObjectStore
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.bootstrap import INDICES
from shared.config.service import ConfigurationService
from shared.edge.documents import SpooledDocuments
from shared.edge.link import Link
from shared.edge.mirror import Mirror
from shared.edge.mover import Mover
from shared.edge.spool import Spool
from shared.errors import ObjectExistsError, StorageUnavailableError
from shared.messages import InstanceReceived, Receipt, Source, Topic, decode
from shared.pipeline.admission import Admission
from shared.pipeline.commitment import Commitments, Elsewhere
from shared.pipeline.exceptions import ExceptionLog
from shared.pipeline.receive import Receiver
from shared.pipeline.rulebook import RuleBook
from shared.ports import ObjectReader, Outgoing
from tests.data import build
from tests.fakes import FakeClock

SOURCE = Source("dimse", "main", calling_ae_title="CT1", peer_address="10.1.2.3")


class CutLinkError(StorageUnavailableError):
    """The link is down."""


class FarCloud:
    """What the cloud keeps; while `is_cut` nobody reaches it."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.objects = FolderObjectStore(folder / "objects")
        self._documents = SqliteDocumentStore(folder / "documents.db", indices=INDICES)
        self.secrets = FileSecretStore(folder / "secrets")
        self.bus = SqliteMessageBus(folder / "queue.db", folder / "run", clock)
        self.configuration = ConfigurationService(
            self.objects, self._documents, self.secrets, clock
        )
        self.is_cut = False
        self.sent: list[str] = []

    def __getattr__(self, name: str) -> Any:
        """Documents, as long as the link holds."""
        self._pass()
        return getattr(self._documents, name)

    def publish(self, messages: Iterable[Outgoing]) -> None:
        self._pass()
        self.bus.publish(messages)

    def send(self, reader: ObjectReader, crc32c: int) -> None:
        self._pass()
        self.sent.append(reader.name)
        with self.objects.create(reader.name) as writer, suppress(ObjectExistsError):
            for piece in reader.stream():
                writer.write(piece)
            assert writer.crc32c == crc32c
            writer.commit()

    def received(self) -> list[Receipt]:
        """The Instances that the cloud was told of, in the order in which it was."""
        found = self.bus.in_order([Topic.INSTANCE_RECEIVED], limit=1000)
        return [decode(message.data, InstanceReceived).receipt for message in found]

    def _pass(self) -> None:
        if self.is_cut:
            raise CutLinkError("the link is cut")


class EdgeSystem:
    """Reception onto a spool, and a mover that is asked to step."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.clock = FakeClock()
        self.folder = folder
        self.cloud = FarCloud(folder / "cloud", self.clock)
        self.cloud.configuration.apply({"settings": {"min_free_bytes": 0, **settings}}, by="test")
        self.start()

    def start(self) -> None:
        """Begin anew with what is on the disk, as after a crash."""
        root, clock = self.folder / "spool", self.clock
        self.bus = SqliteMessageBus(root / "queue.db", root / "run", clock)
        self.objects = FolderObjectStore(root / "objects")
        self.secrets = FileSecretStore(root / "secrets")
        self.spool = Spool(self.bus, self.objects, clock)
        self.documents = SpooledDocuments(root / "documents.db", INDICES, self.spool)
        self.link = Link(clock, jitter=lambda: 1.0)
        cloud: Any = self.cloud
        self.mirror = Mirror(
            cloud.objects,
            cloud,
            cloud.secrets,
            here_objects=self.objects,
            here_documents=self.documents,
            here_secrets=self.secrets,
            clock=clock,
        )
        with suppress(CutLinkError):
            self.mirror.look()
        self.mover = Mover(self.spool, cloud, cloud, cloud, self.link, clock, at_once=2)
        self.configuration = ConfigurationService(self.objects, self.documents, self.secrets, clock)
        self.commitments = Commitments(
            self.documents, self.bus, clock, self.configuration, Elsewhere(self.spool, cloud)
        )
        rules = RuleBook(self.configuration, lambda: b"", cloud)
        self.receiver = Receiver(
            self.objects,
            self.bus,
            clock,
            self.configuration,
            ExceptionLog(self.documents, self.bus, clock),
            rules,
            Admission(self.objects, None, clock),
        )

    def receive(self, name: str = "one", **attributes: Any) -> Receipt:
        with self.receiver.begin(SOURCE) as staging:
            staging.write(build.ct(instance=name, **attributes))
            return staging.commit()

    def move(self) -> None:
        """Step until nothing is left that could go now."""
        for _ in range(1000):
            try:
                self.mover.step(0.01)
            except StorageUnavailableError as error:
                self.link.failed(str(error))
            if not self.spool.depth().messages or self.link.wait_s():
                return
        raise AssertionError("it does not end")

    def move_for(self, steps: int) -> None:
        """Some steps, whatever comes of them."""
        for _ in range(steps):
            with suppress(StorageUnavailableError):
                self.mover.step(0.01)
