"""Moves what a gateway on premises has received to the cloud, in the order in which it came.

First the file, under its own name and never over another, then the message, as a gateway in the
cloud publishes it; what was received is deleted here once both are confirmed there. Whoever dies in
between does it again: the same file is recognised, and the same message is delivered once.

Files go side by side and in any order; a message waits for those of its Study that came before it,
unless they cannot go for a reason of their own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Protocol, Self

from msgspec import Struct

from shared import crash_points
from shared.adapters.embedded.message_bus import Leased
from shared.edge.link import Link
from shared.edge.spool import DOCUMENT_KEPT, KeptDocument, Spool
from shared.errors import (
    AxiomError,
    DocumentExistsError,
    MalformedMessageError,
    ObjectMissingError,
    SpoolDamagedError,
    SpoolUnreadableError,
    StorageUnavailableError,
    TransientError,
)
from shared.messages import InstanceReceived, Receipt, Stage, Topic, decode, encode
from shared.pipeline.exceptions import exception_from
from shared.ports import Clock, DocumentStore, MessageBus, ObjectReader, Outgoing

log = logging.getLogger(__name__)

# Messages that are looked at together; each holds a header. Those that are stuck come on top.
_WINDOW = 64
_MOST_STUCK = 512
# How long one file waits, at the most, whose upload failed while others went.
_LONGEST_PAUSE_S = 30.0
# A file that cannot go for a reason of its own is tried so seldom: others are not kept from going.
_STUCK_FOR_S = 300.0
_LOOK_EVERY_S = 0.5


class Uploads(Protocol):
    """Takes files into the cloud's store. Thread-safe."""

    def send(self, reader: ObjectReader, crc32c: int) -> None:
        """Store the file under its name; equal bytes that are there already are success.

        What an earlier call, of another process too, had sent of a large file need not go again.
        Raises: StorageUnavailableError; ObjectExistsError; SpoolDamagedError if the bytes are not
        those of `crc32c`.
        """


class _Item(Struct):
    """One message on its way."""

    message: Leased
    outgoing: Outgoing | None  # None for a document
    receipt: Receipt | None = None  # of an Instance
    upload: Future[None] | None = None
    is_uploaded: bool = False
    is_damaged: bool = False
    is_stuck: bool = False
    attempts: int = 0
    try_at_s: float = float("-inf")

    @property
    def order(self) -> str:
        """Messages that have this in common go in their order."""
        return self.receipt.study_instance_uid if self.receipt else ""


class Counts(Struct):
    """What was moved since the start, and what cannot be."""

    instances: int = 0
    bytes: int = 0
    stuck: int = 0
    stuck_why: str = ""


class Mover:
    """The one that moves a spool; `run` it once, in one process."""

    def __init__(
        self,
        spool: Spool,
        uploads: Uploads,
        bus: MessageBus,
        documents: DocumentStore,
        link: Link,
        clock: Clock,
        *,
        at_once: int = 4,
    ) -> None:
        """`uploads`, `bus` and `documents` are the cloud's."""
        self._spool, self._uploads, self._clock = spool, uploads, clock
        self._bus, self._documents, self._link = bus, documents, link
        self._at_once = at_once
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="upload")
        self._window: dict[int, _Item] = {}
        self._last = 0
        self.counts = Counts()

    def run(self, stopped: threading.Event) -> None:
        """Move until the event is set, then begin nothing more."""
        while not stopped.is_set():
            try:
                self.step(_LOOK_EVERY_S)
            except TransientError as error:
                self._link.failed(str(error))
                log.warning("nothing can be moved now", extra={"reason": str(error)})
                stopped.wait(max(_LOOK_EVERY_S, self._link.wait_s()))
            except Exception:
                # Of no single file: whatever it is, what was received stays here and is tried.
                log.exception("moving failed on a fault of ours")
                self._link.failed("a fault of the gateway's own")
                stopped.wait(max(_LOOK_EVERY_S, self._link.wait_s()))
        self._pool.shutdown(wait=False, cancel_futures=True)

    def step(self, wait_s: float) -> None:
        """Look once at what there is, move what can be, and wait `wait_s` if that is nothing.

        Raises: TransientError.
        """
        self._fill()
        self._begin_uploads()
        running = [item.upload for item in self._window.values() if item.upload is not None]
        if running:
            wait(running, wait_s, FIRST_COMPLETED)
        self._end_uploads()
        ready = list(self._ready())
        if ready and (not self._link.is_down or not self._link.wait_s()):
            self._hand_over(ready)
        elif not running:
            self._spool.wait(wait_s)
        self.counts.stuck = sum(item.is_stuck for item in self._window.values())

    def _fill(self) -> None:
        stuck = sum(item.is_stuck for item in self._window.values())
        room = _WINDOW + min(stuck, _MOST_STUCK) - len(self._window)
        for message in self._spool.waiting(limit=room, after=self._last) if room else ():
            item = _Item(message, _outgoing(message))
            if message.topic == Topic.INSTANCE_RECEIVED:
                item.receipt = _receipt_of(message)
            item.is_uploaded = item.receipt is None
            self._window[message.message_id] = item
            self._last = message.message_id

    def _begin_uploads(self) -> None:
        if self._link.wait_s():
            return
        now_s = self._clock.monotonic_s()
        running = sum(item.upload is not None for item in self._window.values())
        # While the link is down one at a time finds out whether it is up, and not always the same.
        room = (1 if self._link.is_down else self._at_once) - running
        due = [
            item
            for item in self._window.values()
            if not item.is_uploaded and item.upload is None and item.try_at_s <= now_s
        ]
        if self._link.is_down:
            due.sort(key=lambda item: item.attempts)
        for item in due[: max(room, 0)]:
            assert item.receipt is not None
            item.attempts += 1
            item.upload = self._pool.submit(self._send, item.receipt)

    def _send(self, receipt: Receipt) -> None:
        name = receipt.file.object_name
        try:
            with _of_our_disk(name):
                reader = _Kept(self._spool.objects.open(name))
        except ObjectMissingError:
            # Whoever went before us published the message, deleted the file, and died.
            return
        with reader:
            if reader.size != receipt.file.size:
                raise SpoolDamagedError(receipt.receipt_id)
            self._uploads.send(reader, receipt.file.crc32c)
        crash_points.reached(crash_points.AFTER_UPLOAD)

    def _end_uploads(self) -> None:
        for item in self._window.values():
            if item.upload is None or not item.upload.done():
                continue
            error = item.upload.exception()
            item.upload = None
            if error is None:
                item.is_uploaded, item.is_stuck = True, False
                self._link.worked()
            elif isinstance(error, TransientError):
                self._link.failed(str(error))
                pause_s = min(_LONGEST_PAUSE_S, 2.0 ** min(item.attempts - 1, 16))
                item.try_at_s = self._clock.monotonic_s() + pause_s
            elif isinstance(error, SpoolDamagedError) and item.receipt is not None:
                self._report_damage(item, item.receipt, error)
            else:
                self._set_aside(item, error)

    def _set_aside(self, item: _Item, error: BaseException) -> None:
        item.is_stuck = True
        item.try_at_s = self._clock.monotonic_s() + _STUCK_FOR_S
        code = error.code if isinstance(error, AxiomError) else type(error).__name__
        self.counts.stuck_why = code
        log.error(
            "what was received cannot be moved",
            exc_info=error,
            extra={
                "code": code,
                "receipt_id": item.receipt.receipt_id if item.receipt else "",
            },
        )

    def _report_damage(self, item: _Item, receipt: Receipt, error: SpoolDamagedError) -> None:
        """A person has to know; the file stays for a day, as what nobody tells of does."""
        log.error("a received file is damaged", extra={"receipt_id": receipt.receipt_id})
        raised = exception_from(
            error, stage=Stage.RECEIVE, at=self._clock.now(), receipt=receipt, key=error.code
        )
        item.outgoing = Outgoing(Topic.EXCEPTION_RAISED, encode(raised))
        item.is_uploaded = item.is_damaged = True

    def _ready(self) -> Iterator[_Item]:
        """What may be published now, oldest first."""
        now_s = self._clock.monotonic_s()
        held_up = set()
        for item in self._window.values():
            if item.is_stuck:
                if item.is_uploaded and item.try_at_s <= now_s:
                    yield item
            elif not item.is_uploaded:
                held_up.add(item.order)
            elif not item.order or item.order not in held_up:
                yield item

    def _hand_over(self, items: list[_Item]) -> None:
        """Have the cloud go on with these, and then forget them here. One that it does not take for
        a reason of its own is set aside. Raises: TransientError.
        """
        try:
            self._tell(items)
        except TransientError:
            raise
        except Exception as error:
            if len(items) == 1:
                self._set_aside(items[0], error)
                return
            for item in items:
                self._hand_over([item])
            return
        self._link.worked()
        crash_points.reached(crash_points.AFTER_HANDOVER)
        for item in items:
            if item.receipt is not None and not item.is_damaged:
                self._spool.forget_file(item.receipt.file.object_name)
        crash_points.reached(crash_points.AFTER_FORGOTTEN)
        self._spool.moved([item.message.message_id for item in items])
        for item in items:
            del self._window[item.message.message_id]
            if item.receipt is not None and not item.is_damaged:
                self.counts.instances += 1
                self.counts.bytes += item.receipt.file.size

    def _tell(self, items: list[_Item]) -> None:
        for item in items:
            if item.outgoing is None:
                self._keep_document(item.message)
        self._bus.publish(item.outgoing for item in items if item.outgoing is not None)

    def _keep_document(self, message: Leased) -> None:
        try:
            kept = KeptDocument.decode(message.data)
            self._documents.create(kept.collection, kept.key, kept.data)
        except DocumentExistsError:
            return
        except MalformedMessageError:
            log.exception("a document cannot be kept")


class _Kept:
    """An ObjectReader whose failures are told apart from those of the link."""

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self.name, self.size = reader.name, reader.size
        self.fileno, self.close = reader.fileno, reader.close

    def read_at(self, offset: int, length: int) -> bytes:
        """Raises: SpoolUnreadableError."""
        with _of_our_disk(self.name):
            return self._reader.read_at(offset, length)

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Raises: SpoolUnreadableError."""
        with _of_our_disk(self.name):
            yield from self._reader.stream(offset, length)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _of_our_disk(name: str) -> Iterator[None]:
    try:
        yield
    except StorageUnavailableError as error:
        raise SpoolUnreadableError(name) from error


def _outgoing(message: Leased) -> Outgoing | None:
    """What the cloud is told, as a gateway there tells it."""
    if message.topic == DOCUMENT_KEPT:
        return None
    return Outgoing(
        message.topic, message.data, message.attributes, message.lane, message.high_priority
    )


def _receipt_of(message: Leased) -> Receipt | None:
    """None for what is no message of ours, which the cloud puts into its exception log."""
    try:
        return decode(message.data, InstanceReceived).receipt
    except MalformedMessageError:
        return None
