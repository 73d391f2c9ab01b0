"""The associations with one peer: reused, never more than the peer takes, released when idle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from shared.adapters.destinations.association import Association, AssociationRejectedError
from shared.adapters.destinations.outcomes import Outcome, association_rejection
from shared.adapters.destinations.upper_layer import Context

# Opens an association as the AE of this title, which proposes these contexts, accepted within these
# seconds (None: the peer's own time-out).
Open = Callable[[str, Sequence[Context], float | None], Association]

# How many of the contexts that were wanted before are proposed again. A peer that gets Instances of
# many kinds then soon has them all on one association.
_MOST_CONTEXTS = 64


class ContextRefusedError(Exception):
    """The peer accepted the association but not this Presentation Context."""


class PoolClosedError(Exception):
    """The pool was closed: its destination is configured anew."""


class NoAssociationError(Exception):
    """All associations that the peer takes were busy for too long."""


class AssociationPool:
    """Hands each caller an association of its own, and takes it back for the next.

    There are never more associations than callers at once: one that does not have the wanted
    context, or is of another AE, is released before another is opened. Where a peer serves only so
    many (a storescp as it is shipped serves one), the second proves slow or is rejected, and for a
    while callers wait for the ones there are.
    """

    def __init__(
        self,
        open_association: Open,
        *,
        idle_s: float = 20.0,
        wait_s: float = 60.0,
        another_within_s: float = 2.0,
        limit_holds_s: float = 300.0,
    ) -> None:
        """`idle_s`: released after being idle so long, or up to twice as long. `wait_s`: the
        longest that `borrow` waits for a busy one. `another_within_s`: how long a peer that already
        serves us may take to accept one more. `limit_holds_s`: when to try one more again.
        """
        self._open = open_association
        self._idle_s, self._wait_s = idle_s, wait_s
        self._another_within_s, self._limit_holds_s = another_within_s, limit_holds_s
        self._changed = threading.Condition()
        self._idle: list[tuple[Association, float]] = []  # and since when; used last comes last
        self._count = 0  # associations open or being opened, borrowed ones included
        self._is_opening = False
        self._limit: int | None = None
        self._limit_until_s = 0.0
        self._wanted: dict[Context, None] = {}  # wanted last comes last
        self._closed = threading.Event()
        self._reaper: threading.Thread | None = None

    @contextmanager
    def borrow(
        self, context: Context, calling_ae_title: str, *, fresh: bool = False
    ) -> Iterator[Association]:
        """An association of the AE of that title that accepts `context`; aborted if the block
        raises.

        `fresh` asks for a new one, when one from the pool proved to be dead.

        Raises: ContextRefusedError, NoAssociationError, PoolClosedError; what opening one raises.
        """
        association = self._take(context, calling_ae_title, fresh)
        try:
            yield association
        except BaseException:
            self._forget()
            association.abort()
            raise
        self._give_back(association)

    def close(self) -> None:
        """Release the idle associations; those in use are released when they are given back."""
        with self._changed:
            self._closed.set()
            idle, self._idle = self._idle, []
            self._count -= len(idle)
            self._changed.notify_all()
        for association, _ in idle:
            association.release()

    def _take(self, context: Context, calling: str, fresh: bool) -> Association:
        deadline_s = time.monotonic() + self._wait_s
        while True:
            unsuited: Association | None = None
            with self._changed:
                association = self._wait_for_idle(context, calling, fresh, deadline_s)
                if association is None:
                    # One more is opened: in place of an idle one, if there is any.
                    self._is_opening = True
                    if self._idle:
                        unsuited, _ = self._idle.pop(0)
                    else:
                        self._count += 1
            if association is not None:
                if association.is_quiet:
                    return association
                self._forget()
                association.release()
                continue
            if unsuited is not None:
                unsuited.release()
            association = self._open_another(context, calling)
            if association is not None:
                return association

    def _wait_for_idle(
        self, context: Context, calling: str, fresh: bool, deadline_s: float
    ) -> Association | None:
        """An idle association of that AE with `context`; None if it is the caller's turn to open
        one.

        Called with the lock held.
        """
        while True:
            if self._closed.is_set():
                raise PoolClosedError
            # The one used last is the least likely to have been ended by the peer.
            for index in reversed(range(0 if fresh else len(self._idle))):
                idle = self._idle[index][0]
                if idle.calling_ae_title == calling and idle.accepts(context):
                    return self._idle.pop(index)[0]
            if not self._is_opening and (self._idle or self._may_grow()):
                return None
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not self._changed.wait(left_s):
                raise NoAssociationError

    def _may_grow(self) -> bool:
        if self._limit is not None and time.monotonic() > self._limit_until_s:
            self._limit = None
        return self._limit is None or self._count < self._limit

    def _open_another(self, context: Context, calling: str) -> Association | None:
        """A new association of that AE with `context`; None if the peer takes no more beside those
        it has.
        """
        with self._changed:
            others = self._count - 1
            self._wanted.pop(context, None)
            recent = list(reversed(self._wanted))[: _MOST_CONTEXTS - 1]
        try:
            association = self._open(
                calling, [context, *recent], self._another_within_s if others else None
            )
        except BaseException as error:
            is_full = others > 0 and _says_too_many(error)
            with self._changed:
                self._is_opening = False
                self._count -= 1
                if is_full:
                    self._limit = others
                    self._limit_until_s = time.monotonic() + self._limit_holds_s
                self._changed.notify_all()
            if is_full:
                return None
            raise
        with self._changed:
            self._is_opening = False
            self._start_reaper()
            if association.accepts(context):
                self._wanted[context] = None
            if len(self._wanted) > _MOST_CONTEXTS:
                del self._wanted[next(iter(self._wanted))]
            self._changed.notify_all()
        if association.accepts(context):
            return association
        if association.has_contexts:
            self._give_back(association)
        else:
            self._forget()
            association.release()
        raise ContextRefusedError

    def _give_back(self, association: Association) -> None:
        with self._changed:
            if not self._closed.is_set():
                self._idle.append((association, time.monotonic()))
                self._changed.notify()
                return
        self._forget()
        association.release()

    def _forget(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify()

    def _start_reaper(self) -> None:
        # Called with the lock held. It ends when no association is left.
        if self._reaper is None:
            self._reaper = threading.Thread(
                target=self._release_idle, name="associations", daemon=True
            )
            self._reaper.start()

    def _release_idle(self) -> None:
        while not self._closed.wait(self._idle_s):
            with self._changed:
                before_s = time.monotonic() - self._idle_s
                tired = [a for a, since_s in self._idle if since_s <= before_s or not a.is_quiet]
                self._idle = [entry for entry in self._idle if entry[0] not in tired]
                self._count -= len(tired)
                is_done = self._count == 0
                if is_done:
                    self._reaper = None
                self._changed.notify_all()
            for association in tired:
                association.release()
            if is_done:
                return


def _says_too_many(error: BaseException) -> bool:
    """True if the peer may just serve others of ours: it does not answer, or says "later"."""
    if isinstance(error, AssociationRejectedError):
        rejected = error.rejected
        verdict = association_rejection(rejected.result, rejected.source, rejected.reason)
        return verdict.outcome is Outcome.TRANSIENT
    return isinstance(error, TimeoutError | BlockingIOError)
