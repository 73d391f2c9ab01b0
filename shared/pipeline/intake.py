"""What a source gives goes in here, as what a modality sends does: checked, durable, published.

One thread reads what comes; others make it durable meanwhile, so that a source is not kept waiting
for the disk. When too much waits for the rules, reading waits too, and with it the source.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

from shared.errors import (
    OverloadedError,
    PermanentError,
    RateLimitedError,
    SourceMisconfiguredError,
    SourceRefusedError,
)
from shared.messages import Source, Topic
from shared.pipeline.ports import Ports
from shared.pipeline.receive import Staging
from shared.ports import Retrieved

# At once on their way to the disk; each holds an open file.
_COMMITS = 8
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
        self._commits = ThreadPoolExecutor(_COMMITS, thread_name_prefix="intake")
        self._places = threading.Semaphore(2 * _COMMITS)

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
            self._places.acquire()
            try:
                return self._commits.submit(self._commit, staging, retrieved.uid, outcome)
            except BaseException:
                self._places.release()
                raise
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
        self._commits.shutdown()

    def _commit(self, staging: Staging, uid: str, outcome: Outcome) -> None:
        try:
            receipt = staging.commit()
        except PermanentError as error:
            # Who commits has recorded it.
            outcome.refused(uid, _uid(staging), error)
        else:
            outcome.received(uid, receipt.sop_instance_uid)
        finally:
            self._places.release()

    def _begin(self) -> Staging:
        began_s = time.monotonic()
        while True:
            try:
                return self._ports.receiver.begin(self._source)
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


def _uid(staging: Staging) -> str:
    """The SOP Instance UID, if the header could be read."""
    try:
        found = staging.header.text("SOPInstanceUID") if staging.header else None
    except PermanentError:
        return ""
    return found or ""
