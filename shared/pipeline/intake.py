"""What a source gives goes in here, as what a modality sends does: checked, durable, published.

One thread reads what comes; others make it durable meanwhile, so that a source is not kept waiting
for the disk, and publish it together. When too much waits for the rules, reading waits too, and
with it the source.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from shared.errors import (
    OverloadedError,
    PermanentError,
    RateLimitedError,
    SourceMisconfiguredError,
    SourceRefusedError,
    StorageUnavailableError,
)
from shared.messages import Receipt, Source, Topic
from shared.pipeline.ports import Ports
from shared.pipeline.receive import Staging
from shared.ports import Retrieved

# Threads that bring files to the disk, as many as it takes; each file waiting for one is open.
_KEEPERS = 8
_WAITING_FOR_ONE = 2
# What was made durable within so long is published together.
_GATHER_S = 0.02
_PUBLISHED_AT_ONCE = 32
# How full the queue is, is looked at so often, and this many times while it fills.
_LOOK_EVERY_S = 0.5
_LOOKS = 20
# A source that is kept waiting for so long may have hung up; it is asked anew later.
_LONGEST_WAIT_S = 120.0
_TOPICS = (Topic.INSTANCE_RECEIVED, Topic.INSTANCE_ACCEPTED)


class PollStoppedError(Exception):
    """Whoever polls is to end."""


class Outcome(Protocol):
    """Who is told what became of each Instance, from any thread."""

    def received(self, uid: str, sop_instance_uid: str) -> None:
        """It is durable and published."""

    def refused(self, uid: str, sop_instance_uid: str, error: PermanentError) -> None:
        """It is not what is taken here; the exception log says why."""


class Intake:
    """Takes Instances of one source in; used by several threads. A context manager."""

    def __init__(
        self, ports: Ports, source: Source, max_waiting: int, stopped: threading.Event
    ) -> None:
        self._ports, self._source = ports, source
        self._max_waiting, self._stopped = max_waiting, stopped
        self._lock = threading.Lock()
        self._looked_at_s = float("-inf")
        self._taken = 0  # since then
        self._is_full = False
        self._keeping = _Keeping(ports)

    @property
    def is_waiting(self) -> bool:
        """True while nothing is taken in, because too much waits for the rules."""
        return self._is_full

    def take(self, retrieved: Retrieved, outcome: Outcome) -> Future[None] | None:
        """Take one in; what is returned raises the error, if any, that keeps it from being durable.

        Raises: PollStoppedError; TransientError, also what reading `retrieved` raises. A file that
        is no Instance is refused, recorded and no error.
        """
        self.wait_for_room()
        staging = self._begin()
        try:
            for chunk in retrieved.chunks:
                staging.write(chunk)
            return self._keeping.keep(staging, retrieved.uid, outcome)
        except (SourceRefusedError, SourceMisconfiguredError):
            staging.discard()
            raise
        except PermanentError as error:
            staging.refuse(error)
            outcome.refused(retrieved.uid, _uid(staging), error)
            return None
        except BaseException:
            staging.discard()
            raise

    def wait_for_room(self) -> None:
        """Return once the queue has room. Raises: PollStoppedError; OverloadedError in the end."""
        began_s = time.monotonic()
        while self._looks_full():
            if time.monotonic() - began_s > _LONGEST_WAIT_S:
                raise OverloadedError("too many Instances wait for validation or rules")
            if self._stopped.wait(_LOOK_EVERY_S):
                break
        if self._stopped.is_set():
            raise PollStoppedError

    def close(self) -> None:
        """Wait for what is on its way to the disk."""
        self._keeping.close()

    def _begin(self) -> Staging:
        began_s = time.monotonic()
        while True:
            try:
                return self._ports.receiver.begin(self._source, waits=True)
            except (OverloadedError, RateLimitedError) as error:
                if time.monotonic() - began_s > _LONGEST_WAIT_S:
                    raise
                pause_s = min(error.retry_after_s or 1.0, 1.0)
            if self._stopped.wait(pause_s):
                raise PollStoppedError

    def _looks_full(self) -> bool:
        queue = self._ports.queue
        if queue is None:
            return False
        with self._lock:
            now_s = time.monotonic()
            self._taken += 1
            is_fresh = now_s - self._looked_at_s < _LOOK_EVERY_S
            if is_fresh and (self._is_full or self._taken < self._max_waiting // _LOOKS):
                return self._is_full
            self._looked_at_s, self._taken = now_s, 0
        waiting = queue.backlog(_TOPICS, at_most=self._max_waiting).messages
        # Opens again well below, so that it does not open and close by turns.
        limit = 0.8 * self._max_waiting if self._is_full else self._max_waiting
        self._is_full = waiting >= limit
        return self._is_full

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Item:
    """One Instance on its way to the disk; `done` once it is published."""

    staging: Staging
    uid: str
    outcome: Outcome
    done: Future[None] = field(default_factory=Future)

    def tell(self, outcome: Callable[[], None]) -> None:
        """Say what became of it; it is done then."""
        try:
            outcome()
        except BaseException as error:
            self.done.set_exception(error)
        else:
            self.done.set_result(None)


class _Keeping:
    """Makes Instances durable in threads of its own, as many as the disk calls for."""

    def __init__(self, ports: Ports) -> None:
        self._receiver = ports.receiver
        self._threads = ThreadPoolExecutor(_KEEPERS, thread_name_prefix="intake")
        self._places = threading.Semaphore(_KEEPERS * _WAITING_FOR_ONE)
        self._comes = threading.Condition()
        self._waiting: deque[_Item] = deque()
        self._working = 0

    def keep(self, staging: Staging, uid: str, outcome: Outcome) -> Future[None]:
        """Done once it is durable and published; waits while too many are on their way."""
        self._places.acquire()
        item = _Item(staging, uid, outcome)
        with self._comes:
            self._waiting.append(item)
            self._comes.notify()
            if self._working < min(_KEEPERS, 1 + len(self._waiting) // (_WAITING_FOR_ONE + 1)):
                self._threads.submit(self._work)
                self._working += 1
        return item.done

    def close(self) -> None:
        """Wait for what is on its way."""
        self._threads.shutdown()

    def _work(self) -> None:
        kept: list[tuple[_Item, Receipt]] = []
        publish_at_s = 0.0
        while True:
            item = self._next(publish_at_s if kept else None)
            if item is not None:
                receipt = self._kept(item)
                if receipt is not None:
                    publish_at_s = publish_at_s if kept else time.monotonic() + _GATHER_S
                    kept.append((item, receipt))
                if len(kept) < _PUBLISHED_AT_ONCE and time.monotonic() < publish_at_s:
                    continue
            self._publish(kept)
            kept = []
            with self._comes:
                if item is None and not self._waiting:
                    self._working -= 1
                    return

    def _next(self, until_s: float | None) -> _Item | None:
        """The next one; None if there is none by then, or now."""
        with self._comes:
            while not self._waiting:
                left_s = 0.0 if until_s is None else until_s - time.monotonic()
                if left_s <= 0 or not self._comes.wait(left_s):
                    break
            return self._waiting.popleft() if self._waiting else None

    def _kept(self, item: _Item) -> Receipt | None:
        """Its receipt; None if it is done already, or was refused."""
        try:
            return item.staging.keep()
        except PermanentError as error:
            # Who keeps it has recorded that.
            item.tell(partial(item.outcome.refused, item.uid, _uid(item.staging), error))
        except BaseException as error:
            item.done.set_exception(error)
        finally:
            self._places.release()
        return None

    def _publish(self, kept: Sequence[tuple[_Item, Receipt]]) -> None:
        if not kept:
            return
        try:
            self._receiver.publish([receipt for _, receipt in kept])
        except BaseException as error:
            if len(kept) > 1 and isinstance(error, StorageUnavailableError):
                for one in kept:
                    self._publish([one])
                return
            for item, _ in kept:
                item.done.set_exception(error)
            return
        for item, receipt in kept:
            item.tell(partial(item.outcome.received, item.uid, receipt.sop_instance_uid))


def _uid(staging: Staging) -> str:
    """The SOP Instance UID, if the header could be read."""
    try:
        found = staging.header.text("SOPInstanceUID") if staging.header else None
    except PermanentError:
        return ""
    return found or ""
