"""The small interfaces between what we decide and what the platform does.

Each docstring is the contract, errors included; `tests/contract` runs one class of tests for each
port on every adapter. Every port may be used from several threads at once. Adapters turn their
driver's errors into `shared.errors`; an outage is a `StorageUnavailableError`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

from msgspec import Struct, field

from shared import tracing

if TYPE_CHECKING:
    from shared.dicom.outgoing import OutgoingInstance

Buffer = bytes | bytearray | memoryview


class StoredObject(Struct, frozen=True):
    """What an object store knows of one object. `crc32c` is the Castagnoli CRC of all its bytes."""

    name: str
    size: int
    crc32c: int


class ObjectWriter(Protocol):
    """An object in the making: invisible until `commit`. Used by one thread; a context manager
    that discards what was not committed.
    """

    size: int

    @property
    def crc32c(self) -> int:
        """Of all that was written so far."""

    def write(self, *buffers: Buffer) -> None:
        """Append the buffers in order; they may be reused once this returns."""

    def commit(self) -> StoredObject:
        """Make the object durable and visible under its name: it survives a power cut now.

        Raises: ObjectExistsError if the name is taken (the bytes are discarded);
        StorageUnavailableError, after which the object is not visible.
        """

    def discard(self) -> None:
        """Forget what was written; twice is once, after `commit` nothing."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...


class ObjectReader(Protocol):
    """An open object; its bytes stay readable until `close`, even if it is deleted meanwhile."""

    name: str
    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end."""

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from `offset` in pieces of at most 1 MiB."""

    def fileno(self) -> int | None:
        """A descriptor that sendfile(2) can read at absolute offsets; None if there is none."""

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...


class ObjectStore(Protocol):
    """Immutable objects by name. A name is `/`-separated parts of [A-Za-z0-9._-], none `.` or `..`.

    Raises ValueError for another name.
    """

    def create(self, name: str) -> ObjectWriter:
        """Start an object. Raises: StorageUnavailableError. (A taken name shows at `commit`.)"""

    def open(self, name: str) -> ObjectReader:
        """Raises: ObjectMissingError."""

    def stat(self, name: str) -> StoredObject:
        """Raises: ObjectMissingError."""

    def delete(self, name: str) -> None:
        """Delete; a missing object is no error."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Names that start with `prefix`, in ascending order."""

    def free_bytes(self) -> int | None:
        """Bytes that still fit; None where there is no limit."""


Operator = Literal["==", "in", "<", "<=", ">", ">="]


class Filter(Struct, frozen=True):
    """A claim about one top-level field of a document; an absent field matches nothing.

    `in` takes a list of up to 30 values.
    """

    field: str
    operator: Operator
    value: Any


class Document(Struct, frozen=True):
    """One document as it was read. `data` is JSON: str, int, float, bool, None, lists, dicts."""

    key: str
    data: Mapping[str, Any]
    version: str


class Put(Struct, frozen=True):
    """A document to create or overwrite, whatever is there."""

    collection: str
    key: str
    data: Mapping[str, Any]


class Page(Struct, frozen=True):
    """Some documents of a query; `cursor` continues after the last of them, None at the end."""

    documents: Sequence[Document]
    cursor: str | None


class DocumentStore(Protocol):
    """JSON documents in collections, each with a version that changes with every write.

    What `create` and `replace` get as `also` is written with the document, or neither is. Times are
    stored as UTC in ISO 8601 with microseconds and `Z`, so that they sort as text.
    """

    def get(self, collection: str, key: str) -> Document | None: ...

    def create(
        self, collection: str, key: str, data: Mapping[str, Any], *, also: Sequence[Put] = ()
    ) -> Document:
        """Raises: DocumentExistsError. Of several callers at once, exactly one wins."""

    def replace(
        self,
        collection: str,
        key: str,
        data: Mapping[str, Any],
        version: str,
        *,
        also: Sequence[Put] = (),
    ) -> Document:
        """Compare and set. Raises: DocumentChangedError (also when it was deleted)."""

    def put(self, collection: str, key: str, data: Mapping[str, Any]) -> Document:
        """Create or overwrite, whatever is there."""

    def delete(self, collection: str, key: str, version: str | None = None) -> None:
        """Delete; a missing document is no error unless `version` is given.

        Raises: DocumentChangedError if `version` is given and is not the stored one.
        """

    def query(
        self,
        collection: str,
        where: Sequence[Filter] = (),
        *,
        order_by: str | None = None,
        descending: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Documents that fit all of `where`, ordered by `order_by` then key (key alone if None).

        A document without the `order_by` field is left out. Raises ValueError for a foreign cursor.
        """

    def count(self, collection: str, where: Sequence[Filter] = ()) -> int: ...


class Outgoing(Struct, frozen=True):
    """One message to publish.

    `lane` keeps messages that may hold each other up apart (a destination's name); "" for none.
    `attributes` are few and short, and hold no patient's Values; they say from which span it comes.
    """

    topic: str
    data: bytes
    attributes: Mapping[str, str] = field(default_factory=tracing.published_here)
    lane: str = ""
    high_priority: bool = False


class MessageBus(Protocol):
    """At-least-once, unordered publication."""

    def publish(self, messages: Iterable[Outgoing]) -> None:
        """Returns once all of them are durable. Raises: StorageUnavailableError, after which some
        may be published: the receiver is idempotent.
        """


class Destination(Protocol):
    """Takes Instances; may be used from several threads at once."""

    def deliver(self, instance: OutgoingInstance) -> str:
        """Deliver and return the peer's answer in short: "0000H", "200", a path.

        Equal bytes a second time are success, wherever the peer lets us see that.

        Raises: DestinationUnavailableError, DestinationRefusedError,
        DestinationMisconfiguredError, InstanceConflictError; what reading the received file raises.
        """

    def check(self) -> str:
        """Ask the peer whether it is there; nothing stays stored there.

        Returns its answer in short. Raises as `deliver`.
        """

    def close(self) -> None:
        """Release connections that nobody uses; a delivery under way finishes first.

        Twice is once, and nothing is delivered after it.
        """


class PendingDelivery(Protocol):
    """An Instance that goes with others."""

    def answer(self) -> str:
        """As `Destination.deliver`; it is sent, with all others that are there by now, unless one
        of them was asked for its answer before.
        """

    def withdraw(self) -> bool:
        """It is not to be delivered any more; False if it may be stored already."""


@runtime_checkable
class BatchingDestination(Destination, Protocol):
    """A Destination that takes several Instances at once."""

    def begin(self, instance: OutgoingInstance) -> PendingDelivery:
        """Put an Instance with others that are on their way; it goes when its answer is asked for.

        Raises: as `deliver`.
        """


class Kept(Struct, frozen=True):
    """An Instance in a place of ours; `delete` twice is once."""

    sop_instance_uid: str
    delete: Callable[[], None]


class KeepingDestination(Destination, Protocol):
    """A Destination whose place is ours, so that we say how long it keeps what."""

    def taken_before(self, before: datetime) -> Iterator[Kept | None]:
        """What it took before that time, and None now and then while it looks. Nothing that others
        have put there is among it. Raises, as `delete` does: as `check`.
        """


class Backlog(Struct, frozen=True):
    """What waits in some topics: how many messages, and for how long one that could be worked on
    has waited for that at most.
    """

    messages: int = 0
    waiting_s: float = 0.0


class QueueGauge(Protocol):
    """A message bus that can tell what waits in it."""

    def backlog(self, topics: Collection[str], *, at_most: int) -> Backlog:
        """Cheap enough to ask every second; counts up to `at_most` in each topic, leased ones too.

        Raises: StorageUnavailableError.
        """

    def mentioned(self, words: Collection[str], topics: Collection[str]) -> set[str]:
        """Those of `words` that a message of the topics holds, leased ones too; reads them all.

        Raises: StorageUnavailableError.
        """


class DicomStore(Protocol):
    """A DICOMweb server, asked for what it holds. What is stored there a `Destination` brings.

    Every call raises StorageUnavailableError for an outage, with the server's own wish for how long
    to wait, and for what the server forbids.
    """

    def search(
        self, level: Literal["studies", "series", "instances"], /, **query: str | int
    ) -> Sequence[Mapping[str, Any]]:
        """Matches of QIDO-RS as DICOM JSON (PS3.18 F), one page as `limit` and `offset` say."""

    def retrieve(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
    ) -> AbstractContextManager[Iterator[bytes]]:
        """The Part 10 file as it is stored, in pieces, never transcoded.

        Raises: ObjectMissingError.
        """

    def delete(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
    ) -> None:
        """Delete one Instance; a missing one is no error."""


class FoundInstance(Struct, frozen=True):
    """One Instance that a source shows; of files, one file, whose name stands for a UID.

    `version` changes with what is under the UID; "" where the source does not tell.
    """

    uid: str
    series_instance_uid: str = ""
    sop_class_uid: str = ""
    version: str = ""


class FoundStudy(Struct, frozen=True):
    """A Study of which a source shows something; of files, some that are looked at together.

    `signature` changes with what the source shows of the Study; "" where that tells nothing.
    `series` narrows the Study down to these; `instances` are all that is meant, where the search
    has listed them already.
    """

    uid: str
    signature: str = ""
    series: tuple[str, ...] = ()
    instances: tuple[FoundInstance, ...] | None = None


class Retrieval(Struct, frozen=True):
    """What is asked for at once: `instances` of a Study.

    They are all that the source shows of `series_instance_uid`, or without one of the Study, if
    `is_whole`.
    """

    study_instance_uid: str
    instances: tuple[FoundInstance, ...]
    series_instance_uid: str = ""
    is_whole: bool = False


class Retrieved(Struct, frozen=True):
    """One Instance on its way: a Part 10 file, read once and before the next one is asked for.

    `uid` is that of the FoundInstance, "" where only the file tells. Reading raises what
    `SourceReader.retrieve` does, so whoever reaches the end has the whole file.
    """

    uid: str
    chunks: Iterator[Buffer]


class MoveProgress(Struct, frozen=True):
    """How far a source says that it is with sending (PS3.4 C.4.2.1.6)."""

    remaining: int
    completed: int
    failed: int


class SourceReader(Protocol):
    """Shows and gives Instances. May be used from several threads at once.

    Every method raises SourceUnavailableError, SourceRefusedError or SourceMisconfiguredError.
    """

    # True if Instances come to a listener of ours instead of from `retrieve`.
    moves: bool
    # How much is asked for at once.
    unit: Literal["study", "series"]

    def search(self, since: datetime | None) -> Iterator[FoundStudy]:
        """Studies that fit what is configured, and are of `since` or later, where dates tell."""

    def instances(self, study: FoundStudy) -> Iterable[FoundInstance]:
        """All that is meant of the Study."""

    def find(self, keys: Mapping[str, str]) -> Iterator[FoundStudy]:
        """Studies with these Values exactly: `StudyInstanceUID` or `AccessionNumber`."""

    def retrieve(self, wanted: Retrieval) -> Iterator[Retrieved]:
        """The Instances in any order; fewer if the source has lost some. Not where it `moves`."""

    def move(self, wanted: Retrieval) -> Generator[MoveProgress, None, None]:
        """Have the source send them, where it `moves`; ends when the source says that it is done.

        A generator that is closed asks the source to stop.
        """

    def done(self, study: FoundStudy, instances: Sequence[FoundInstance]) -> bool:
        """All these are received: delete them if that is configured. True if they are gone."""

    def check(self) -> str:
        """Ask the source whether it is there. Returns its answer in short."""

    def close(self) -> None:
        """Release connections; twice is once."""


class SecretStore(Protocol):
    """Secrets by name ([A-Za-z0-9_-]{1,255}); the newest version counts."""

    def get(self, name: str) -> str:
        """Raises: SecretMissingError."""

    def put(self, name: str, value: str) -> None:
        """Add a version. Raises: ValueError for an empty value."""

    def delete(self, name: str) -> None:
        """Delete all versions; a missing secret is no error."""


class Clock(Protocol):
    """Time, injected so that tests need not wait."""

    def now(self) -> datetime:
        """The wall clock, timezone-aware UTC."""

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary point that never run backwards."""
