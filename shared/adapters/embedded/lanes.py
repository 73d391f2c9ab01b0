"""How hard one lane is worked: how much it holds, when it rests, when it is tried again."""

from __future__ import annotations

import time
from collections import deque
from contextvars import copy_context
from datetime import datetime
from threading import Condition, Lock

from msgspec import Struct

from shared.adapters.embedded.deferral import Deferral
from shared.adapters.embedded.message_bus import Leased
from shared.pipeline.push import Steps
from shared.retrying import Circuit, RetryPolicy

# How many messages of a lane may be begun and wait for what they wrote to be durable, or to go on.
_BEGUN_AHEAD = 16


class LaneState(Struct, frozen=True):
    """How a lane is, for those who look from outside. `circuit` is "closed" while all is well, and
    "open" while one message at a time, a probe, is sent until one goes through.
    """

    topic: str
    lane: str
    circuit: str
    failures: int  # in a row
    failing_since: datetime | None
    last_error: str
    next_try_in_s: float


class Work:
    """A leased message, and how far the work on it is."""

    __slots__ = (
        "context", "deferral", "is_alone", "leased", "lets_others", "steps", "time_broken"
    )  # fmt: skip

    def __init__(self, leased: Leased) -> None:
        self.leased = leased
        # What is at hand to it (a trace, say) is not to those that are worked on between its steps.
        self.context = copy_context()
        # What it has written that is not committed; None if nothing is kept back.
        self.deferral: Deferral | None = None
        # Where it goes on, once that is durable; None before it is begun.
        self.steps: Steps | None = None
        # The others that were begun are to come as far first.
        self.lets_others = False
        # Its documents had changed before they were committed: nothing is kept back any more.
        self.is_alone = False
        # How often its lane had broken down when it was begun.
        self.time_broken = 0


class Lane:
    """One lane of a topic: the messages it holds, and whether it is well.

    Its runner's lock guards it, and is the lock of `has_work`.
    """

    def __init__(self, policy: RetryPolicy, lock: Lock) -> None:
        self.has_work = Condition(lock)
        self.workers = 0
        self.idle_workers = 0  # of these, those that wait for work
        self.running = 0
        self.held = 0  # leased and not settled yet
        self.begun = 0  # begun, not running and not at their end
        self.times_broken = 0
        self.taken_s = 0.0  # when the last message was, in real time
        self.max_concurrency = 1
        # More may be due than there was room for.
        self.may_have_more = True
        self._urgent: deque[Work] = deque()
        self._routine: deque[Work] = deque()
        self._going_on: deque[Work] = deque()
        self._circuit = Circuit(policy)
        self._failing_since: datetime | None = None
        self._last_error = ""
        # Others have not been told yet how it is.
        self.has_news = False

    @property
    def waiting(self) -> int:
        """How many messages are held that nobody works on."""
        return len(self._urgent) + len(self._routine)

    @property
    def is_probing(self) -> bool:
        """True if the lane is to be tried with one message at a time."""
        return self._circuit.is_open

    @property
    def concurrency(self) -> int:
        """How many messages may be worked on at once."""
        return 1 if self.is_probing else max(1, self.max_concurrency)

    @property
    def has_takeable(self) -> bool:
        """True if `take` gives something."""
        if self.running >= self.concurrency:
            return False
        return bool(self._going_on) or (self.waiting > 0 and self.begun < _BEGUN_AHEAD)

    @property
    def wants_worker(self) -> bool:
        """True if something is to be done and no worker is about to do it."""
        return self.has_takeable and self.workers - self.idle_workers <= self.running

    def room(self, now_s: float) -> int:
        """How many more messages to lease now: enough for every worker to find its next one, and
        none until half of that is used up, so that they come in batches. What is not settled yet
        counts once it is as much again.
        """
        if self.is_probing:
            return 1 if self._is_idle and now_s >= self._circuit.probe_at_s else 0
        wanted = 8 * self.concurrency
        if self.waiting > wanted // 2:
            return 0
        return max(0, min(wanted - self.waiting, 2 * wanted - self.held))

    def add(self, work: Work) -> None:
        """Hold one more message."""
        (self._urgent if work.leased.high_priority else self._routine).append(work)

    def add_going_on(self, work: Work) -> None:
        """Have the work on a message that was begun go on, before others are begun."""
        self._going_on.append(work)

    def take(self) -> Work | None:
        """The next message to work on, None if there is none or enough are worked on."""
        if not self.has_takeable:
            return None
        self.running += 1
        self.taken_s = time.monotonic()
        if self._going_on:
            self.begun -= 1
            return self._going_on.popleft()
        work = (self._urgent or self._routine).popleft()
        work.time_broken = self.times_broken
        return work

    def empty(self) -> list[Work]:
        """Give up all messages that nobody has begun."""
        held = [*self._urgent, *self._routine]
        self._urgent.clear()
        self._routine.clear()
        return held

    def take_begun(self) -> list[Work]:
        """Give up those that were begun and could go on."""
        begun = list(self._going_on)
        self._going_on.clear()
        self.begun -= len(begun)
        return begun

    def succeeded(self) -> None:
        """A message went through: the lane is well."""
        if self._circuit.failures:
            self._circuit.succeeded()
            self._failing_since, self._last_error = None, ""
            self.has_news = True

    def failed(
        self, now_s: float, jitter: float, retry_after_s: float, *, at: datetime, words: str
    ) -> None:
        """The lane's far end could not take a message; it may take any other as little."""
        self.times_broken += self._circuit.failed(now_s, jitter, retry_after_s)
        self._failing_since = self._failing_since or at
        self._last_error = words
        self.has_news = True

    def state(self, topic: str, lane: str, now_s: float) -> LaneState:
        """How it is now."""
        return LaneState(
            topic,
            lane,
            "open" if self.is_probing else "closed",
            self._circuit.failures,
            self._failing_since,
            self._last_error,
            max(0.0, self._circuit.probe_at_s - now_s) if self.is_probing else 0.0,
        )

    def probe_in_s(self, now_s: float) -> float:
        """Seconds until the next probe may go; infinity if it may already, or none is to come."""
        probe_at_s = self._circuit.probe_at_s
        is_to_come = self.is_probing and self._is_idle and probe_at_s > now_s
        return probe_at_s - now_s if is_to_come else float("inf")

    @property
    def _is_idle(self) -> bool:
        return not (self.running or self.waiting or self.begun)
