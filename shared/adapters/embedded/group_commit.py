"""One costly step for all who ask for it at the same time: a transaction, a directory's fsync."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Generic, TypeVar

Job = TypeVar("Job")


class GroupCommit(Generic[Job]):
    """Runs `step` on batches of jobs, never two batches at once.

    A caller that finds nothing running runs its own job at once and in its own thread: a thread of
    its own would cost two switches for each job. Those who come meanwhile wait and are the next
    batch, which the first of them runs. A job is in a batch only if it was submitted before that
    batch began, so a step that covers all that came before it (fsync) covers every job of it.
    """

    def __init__(self, step: Callable[[Sequence[Job]], None], *, max_jobs: int = 256) -> None:
        self._step, self._max_jobs = step, max_jobs
        self._lock = Lock()
        self._running = False
        self._waiting: deque[_Ticket[Job]] = deque()

    def submit(self, job: Job) -> None:
        """Return once a batch with this job has run. Raises what `step` raised for that batch."""
        ticket: _Ticket[Job] | None = None
        with self._lock:
            if self._running:
                ticket = _Ticket(job)
                self._waiting.append(ticket)
            self._running = True
        if ticket is None:
            try:
                self._step([job])
            finally:
                self._hand_over()
            return
        try:
            ticket.turn.acquire()
        except BaseException:  # a signal handler raised: nobody may wait for this thread
            self._leave(ticket)
            raise
        if not ticket.is_done:
            self._lead(ticket)
        if ticket.error is not None:
            raise ticket.error

    def _lead(self, own: _Ticket[Job]) -> None:
        batch = [own]
        with self._lock:
            while self._waiting and len(batch) < self._max_jobs:
                batch.append(self._waiting.popleft())
        error: Exception | None = InterruptedError("the thread that ran the batch was interrupted")
        try:
            self._step([ticket.job for ticket in batch])
            error = None
        except Exception as raised:
            error = raised
        finally:
            self._hand_over()
            for ticket in batch:
                ticket.error, ticket.is_done = error, True
                ticket.turn.release()

    def _hand_over(self) -> None:
        with self._lock:
            successor = self._waiting.popleft() if self._waiting else None
            self._running = successor is not None
        if successor is not None:
            successor.turn.release()

    def _leave(self, ticket: _Ticket[Job]) -> None:
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                return
        # It is in a batch that runs, or it was just called to lead the next one.
        ticket.turn.acquire()
        if not ticket.is_done:
            self._hand_over()


class _Ticket(Generic[Job]):
    """A job in the queue; `turn` opens when it is done, or when its thread is to lead."""

    __slots__ = ("error", "is_done", "job", "turn")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.turn = Lock()
        self.turn.acquire()
        self.is_done = False
        self.error: Exception | None = None
