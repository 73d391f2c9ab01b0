"""Runs the stages' entry points on the bus's messages, as Pub/Sub's push does in the cloud."""

from __future__ import annotations

import logging
import os
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import Condition, Event, Lock, Thread

from msgspec import Struct

from shared.adapters.embedded.dead_letters import dead_letter
from shared.adapters.embedded.lanes import Lane, LaneState, RetryPolicy
from shared.adapters.embedded.message_bus import Leased, SqliteMessageBus
from shared.errors import AxiomError
from shared.pipeline.push import ATTEMPT_HEADER, MESSAGE_ID_HEADER, PushRequest, PushResponse
from shared.pipeline.times import timestamp
from shared.ports import Clock, Outgoing

log = logging.getLogger(__name__)

Handler = Callable[[PushRequest], PushResponse]

_LEASE_LIMIT = 64
# A wake-up that was lost costs this much.
_LONGEST_WAIT_S = 0.5
_WORKER_IDLE_S = 10.0
_BUS_DOWN_WAIT_S = 1.0
# In a burst messages come one by one: those of so long are leased, and settled, together.
_GATHER_S = 0.02
# How soon a process takes over what another leased and died over.
_RECLAIM_EVERY_S = 2.0
# Answers that tell of the far end, not of the message: others would be answered the same.
_UNAVAILABLE = frozenset({408, 429, 502, 503, 504})


class Runner:
    """Leases messages of the topics of `handlers`, calls these, and settles by their answers.

    2xx acknowledges. Everything else is tried again with exponential backoff, not before a
    `Retry-After`, until the policy's budget is spent: then one ExceptionRaised takes the message's
    place, in the same transaction. A handler that raises is a bug: answered 500, logged without the
    error's text, which may hold a patient's Values.

    Lanes take turns and each has its own threads, so a slow or dead destination costs the others
    nothing; a dead one gets a probe now and then. `max_concurrency` says how many messages of a
    lane may be worked on at once ("" is the lane of the stages' own topics) whenever some are
    leased. Leases are kept up while a handler runs, however long. Messages may be delivered twice
    and in any order.

    What a handler publishes to one of `at_once` is handled next by the same thread, and meets the
    queue only if that fails: the message that it came of is not acknowledged before.
    """

    def __init__(
        self,
        bus: SqliteMessageBus,
        handlers: Mapping[str, Handler],
        clock: Clock,
        *,
        max_concurrency: Callable[[str], int] = lambda lane: 4,
        at_once: Collection[str] = (),
        policy: RetryPolicy | None = None,
        lease_s: float = 60.0,
        grace_s: float = 5.0,
        jitter: Callable[[], float] = random.random,
        budget_s: Callable[[], float] | None = None,
        tell: Callable[[LaneState], None] | None = None,
    ) -> None:
        """`budget_s` says how long a message is tried, in place of the policy. `tell` is told
        between two looks at the queue how a lane is that fails, or is well again.
        """
        self._bus, self._handlers, self._clock = bus, handlers, clock
        self._max_concurrency, self._at_once = max_concurrency, frozenset(at_once)
        self._policy = policy or RetryPolicy()
        self._lease_s, self._grace_s, self._jitter = lease_s, grace_s, jitter
        self._budget_s, self._tell = budget_s, tell
        self._lock = Lock()
        self._has_settlements = Condition(self._lock)
        self._is_idle = Condition(self._lock)
        self._lanes: dict[tuple[str, str], Lane] = {}
        # What this runner answers for: leased and not settled yet.
        self._held: dict[int, Leased] = {}
        self._running: dict[tuple[int, int], Leased] = {}
        self._settlements: list[_Settlement] = []
        self._is_stopping = False
        self._stops = Event()
        self._looks = _Looks(handlers)
        self._fault: Exception | None = None
        self._wake = -1

    def run(self, until: Event) -> None:
        """Work until the event is set; then begin nothing more, hand back what was not begun, give
        what runs `grace_s` seconds to end and hand back the rest. Call it once.

        Raises: whatever goes wrong in its own threads. The process is to end then: another one
        takes over what it has leased.
        """
        wake_read, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        settler = self._thread(self._settle_all)
        settler.start()
        stopper = Thread(target=self._wake_when, args=(until,), name="stopper", daemon=True)
        stopper.start()
        extend_at_s = reclaim_at_s = 0.0
        try:
            while not until.is_set():
                if self._fault is not None:
                    raise self._fault
                now_s = self._clock.monotonic_s()
                try:
                    if now_s >= extend_at_s:
                        self._keep_leases()
                        extend_at_s = now_s + self._lease_s / 3
                    if now_s >= reclaim_at_s:
                        self._bus.reclaim()
                        reclaim_at_s = now_s + _RECLAIM_EVERY_S
                    self._tell_news()
                    if not self._lease():
                        self._await_work(wake_read)
                except AxiomError as error:
                    log.error("the queue cannot be used now", extra={"reason": str(error)})
                    until.wait(_BUS_DOWN_WAIT_S)
        finally:
            until.set()
            self._stop()
            settler.join()
            stopper.join()
            with self._lock:
                os.close(self._wake)
                os.close(wake_read)
                self._wake = -1

    def _thread(self, work: Callable[[], None]) -> Thread:
        def run() -> None:
            try:
                work()
            except Exception as error:
                with self._lock:
                    self._fault = error
                    self._wake_up()

        return Thread(target=run, daemon=True)

    # ---- leasing -----------------------------------------------------------------------------

    def _await_work(self, wake: int) -> None:
        """Return when there may be something to lease, and then not too soon after the last."""
        rang = self._bus.wait(self._open_topics(), self._wait_s(), also=[wake])
        is_woken = _drain(wake)
        left_s = self._looks.gathers_for_s()
        if rang and not is_woken and left_s > 0:
            self._bus.wait([], left_s, also=[wake])
            is_woken = _drain(wake)
            rang |= self._bus.wait(self._open_topics(), 0)
        self._looks.look_at(rang if rang and not is_woken else self._handlers)

    def _lease(self) -> bool:
        """Fill the lanes that have room; True if more is sure to be due."""
        topics = [topic for topic in self._open_topics() if topic in self._looks.topics]
        if not topics:
            return False
        now_s = self._clock.monotonic_s()
        offered: dict[tuple[str, str], int] = {}

        def room(topic: str, lane: str) -> int:
            offered[topic, lane] = self._room(topic, lane, now_s)
            return offered[topic, lane]

        leased = self._bus.lease(topics, limit=_LEASE_LIMIT, lease_s=self._lease_s, lane_room=room)
        self._looks.looked()
        taken = Counter((message.topic, message.lane) for message in leased)
        with self._lock:
            for key, most in offered.items():
                self._lanes[key].may_have_more = taken[key] >= most
            for message in leased:
                self._held[message.message_id] = message
                lane = self._lanes[message.topic, message.lane]
                if lane.is_probing and not lane.room(now_s):
                    # It began to fail while these were leased.
                    self._settle_soon([_Settlement(message, was_begun=False)])
                    continue
                lane.add(message)
                lane.has_work.notify()
                if lane.workers < min(lane.concurrency, lane.running + lane.waiting):
                    lane.workers += 1
                    self._thread(partial(self._work, lane)).start()
        # What is published from now on rings; all else that was due is leased.
        return len(leased) == _LEASE_LIMIT

    def _open_topics(self) -> list[str]:
        """The topics to lease from: not those whose one lane is full."""
        now_s = self._clock.monotonic_s()
        topics = []
        with self._lock:
            for topic in self._handlers:
                lane = self._lanes.get((topic, ""))
                if lane is None or lane.room(now_s):
                    topics.append(topic)
                else:
                    lane.may_have_more = True
        return topics

    def _room(self, topic: str, lane: str, now_s: float) -> int:
        max_concurrency = self._max_concurrency(lane)  # may read the configuration: no lock
        with self._lock:
            if (topic, lane) not in self._lanes:
                self._lanes[topic, lane] = Lane(self._policy, self._lock)
            self._lanes[topic, lane].max_concurrency = max_concurrency
            return self._lanes[topic, lane].room(now_s)

    def _wait_s(self) -> float:
        now_s = self._clock.monotonic_s()
        with self._lock:
            probes = [lane.probe_in_s(now_s) for lane in self._lanes.values()]
        return min([_LONGEST_WAIT_S, *probes])

    def _tell_news(self) -> None:
        if self._tell is None:
            return
        now_s = self._clock.monotonic_s()
        with self._lock:
            news = []
            for (topic, name), lane in self._lanes.items():
                if lane.has_news:
                    lane.has_news = False
                    news.append(lane.state(topic, name, now_s))
        for state in news:
            self._tell(state)

    def _keep_leases(self) -> None:
        with self._lock:
            held = list(self._held)
        self._bus.extend(held, self._lease_s)

    # ---- working -----------------------------------------------------------------------------

    def _work(self, lane: Lane) -> None:
        """A worker's life: one message after the other, until there has been none for a while."""
        while True:
            with self._lock:
                leased = self._next(lane)
                if leased is None:
                    lane.workers -= 1
                    return
                self._running[leased.message_id, leased.attempt] = leased
            answer = self._call(leased)
            budget_s = self._current_budget_s(answer)
            with self._lock:
                lane.running -= 1
                # Not if it was handed back because it took too long to stop.
                if self._running.pop((leased.message_id, leased.attempt), None):
                    self._judge(lane, leased, answer, budget_s)
                if not self._running:
                    self._is_idle.notify()
                may_lease = lane.may_have_more and lane.room(self._clock.monotonic_s())
                if may_lease or lane.has_news:
                    self._wake_up()

    def _next(self, lane: Lane) -> Leased | None:
        while not self._is_stopping and lane.workers <= lane.concurrency:
            leased = lane.take()
            if leased is not None:
                return leased
            if not lane.has_work.wait(_WORKER_IDLE_S) and not lane.waiting:
                return None
        return None

    def _call(self, leased: Leased) -> _Answer:
        headers = {name.lower(): value for name, value in leased.attributes.items()}
        headers["x-goog-pubsub-subscription-name"] = leased.topic
        headers["x-goog-pubsub-publish-time"] = timestamp(leased.published_at)
        headers[MESSAGE_ID_HEADER] = str(leased.message_id)
        headers[ATTEMPT_HEADER] = str(leased.attempt)
        with self._bus.keeping(self._at_once) as kept:
            answer = self._answer(leased.topic, PushRequest(leased.data, headers))
        try:
            for message in kept:
                if not (answer.is_done and self._handle(message, headers).is_done):
                    self._bus.publish([message])
        except AxiomError as error:
            return _Answer(503, str(error), 0.0)
        return answer

    def _handle(self, message: Outgoing, origin: Mapping[str, str]) -> _Answer:
        """The first attempt at a message that did not pass through the queue."""
        headers = {name.lower(): value for name, value in message.attributes.items()}
        headers["x-goog-pubsub-subscription-name"] = message.topic
        headers["x-goog-pubsub-publish-time"] = origin["x-goog-pubsub-publish-time"]
        headers[MESSAGE_ID_HEADER] = f"{origin[MESSAGE_ID_HEADER]}-{message.topic}"
        headers[ATTEMPT_HEADER] = "1"
        return self._answer(message.topic, PushRequest(message.data, headers))

    def _answer(self, topic: str, request: PushRequest) -> _Answer:
        try:
            body, status, fields = self._handlers[topic](request)
        except Exception as error:
            log.error(
                "an entry point raised",
                extra={
                    "topic": topic,
                    "message_id": request.headers[MESSAGE_ID_HEADER],
                    "error": type(error).__name__,
                    # The code's lines alone: the text of the error may hold Values.
                    "frames": "".join(traceback.format_tb(error.__traceback__)),
                },
            )
            return _Answer(500, f"internal error: {type(error).__name__}", 0.0)
        return _Answer(status, body, _retry_after_s(fields))

    def _current_budget_s(self, answer: _Answer) -> float | None:
        if self._budget_s is None or answer.is_done:
            return None
        try:
            return self._budget_s()
        except AxiomError:
            return None

    def _judge(self, lane: Lane, leased: Leased, answer: _Answer, budget_s: float | None) -> None:
        if answer.is_done:
            lane.succeeded()
            self._settle_soon([_Settlement(leased)])
            return
        if answer.status in _UNAVAILABLE or lane.is_probing:
            lane.failed(
                self._clock.monotonic_s(),
                self._jitter(),
                answer.retry_after_s,
                at=self._clock.now(),
                words=answer.words,
            )
            if lane.is_probing:
                self._hand_back(lane)
        self._settle_soon([self._try_again(leased, answer, budget_s)])

    def _try_again(self, leased: Leased, answer: _Answer, budget_s: float | None) -> _Settlement:
        tried_for_s = (self._bus.now() - leased.first_attempt_at).total_seconds()
        if self._policy.is_spent(leased.attempt, tried_for_s, budget_s):
            letter = dead_letter(leased, answer.status, answer.words, self._clock.now())
            if letter is not None:
                return _Settlement(leased, publish=letter)
        delay_s = self._policy.delay_s(leased.attempt, self._jitter(), answer.retry_after_s)
        return _Settlement(leased, later_s=delay_s)

    def _hand_back(self, lane: Lane) -> None:
        """Let go of what nobody works on."""
        self._settle_soon([_Settlement(held, was_begun=False) for held in lane.empty()])

    # ---- settling ----------------------------------------------------------------------------

    def _settle_soon(self, settlements: Sequence[_Settlement]) -> None:
        self._settlements += settlements
        self._has_settlements.notify()

    def _settle_all(self) -> None:
        """The settler's life: all that came while the last transaction ran is the next one."""
        while True:
            with self._lock:
                while not self._settlements:
                    if self._is_stopping and not self._running:
                        return
                    self._has_settlements.wait()
            self._stops.wait(_GATHER_S)
            with self._lock:
                settlements, self._settlements = self._settlements, []
            try:
                self._settle(settlements)
            except AxiomError as error:
                log.error("messages cannot be settled now", extra={"reason": str(error)})
                with self._lock:
                    if self._is_stopping:  # their leases end, and they are delivered again
                        return
                    self._settlements[:0] = settlements
                    self._has_settlements.wait(_BUS_DOWN_WAIT_S)
                continue
            with self._lock:
                for one in settlements:
                    # What is due again may have been leased again already.
                    if self._held.get(one.leased.message_id) is one.leased:
                        del self._held[one.leased.message_id]

    def _settle(self, settlements: Sequence[_Settlement]) -> None:
        acknowledged, handed_back, later = [], [], []
        for one in settlements:
            if not one.was_begun:
                handed_back.append(one.leased.message_id)
            elif one.later_s is not None:
                later.append((one.leased.message_id, one.later_s))
            else:
                acknowledged.append(one.leased.message_id)
        self._bus.settle(
            acknowledged=acknowledged,
            later=later,
            publish=[one.publish for one in settlements if one.publish is not None],
            handed_back=handed_back,
        )

    # ---- stopping ----------------------------------------------------------------------------

    def _stop(self) -> None:
        with self._lock:
            self._is_stopping = True
            self._stops.set()
            for lane in self._lanes.values():
                self._hand_back(lane)
                lane.has_work.notify_all()
            # Real seconds: how long a person waits for the process to end.
            self._is_idle.wait_for(lambda: not self._running, self._grace_s)
            self._settle_soon([_Settlement(one, later_s=0.0) for one in self._running.values()])
            self._running.clear()

    def _wake_when(self, until: Event) -> None:
        until.wait()
        with self._lock:
            self._wake_up()

    def _wake_up(self) -> None:
        if self._wake >= 0:
            with suppress(BlockingIOError):  # full: it wakes already
                os.write(self._wake, b"\0")


class _Looks:
    """Which topics to lease from next. Leasing costs more than most messages do: only those are
    looked at to which something was published, and all of them now and then, for what is due again.

    Real seconds: it is about what this machine has to do.
    """

    def __init__(self, topics: Collection[str]) -> None:
        self._all = frozenset(topics)
        self.topics = self._all
        self._looked_s = self._looked_at_all_s = 0.0

    def look_at(self, topics: Collection[str]) -> None:
        """Next, look at these, or at all of them if that is due."""
        is_due = time.monotonic() - self._looked_at_all_s >= _LONGEST_WAIT_S
        self.topics = self._all if is_due else frozenset(topics)

    def looked(self) -> None:
        """It was looked at them."""
        self._looked_s = time.monotonic()
        if self.topics == self._all:
            self._looked_at_all_s = self._looked_s

    def gathers_for_s(self) -> float:
        """How long to let messages gather before the next look."""
        return self._looked_s + _GATHER_S - time.monotonic()


class _Answer(Struct, frozen=True):
    status: int
    words: str
    retry_after_s: float

    @property
    def is_done(self) -> bool:
        return 200 <= self.status < 300


class _Settlement(Struct, frozen=True):
    """What is to become of a message: gone, or due again in `later_s` seconds, or at once as if it
    had not been leased if nobody began it.
    """

    leased: Leased
    later_s: float | None = None
    publish: Outgoing | None = None
    was_begun: bool = True


def _retry_after_s(fields: Mapping[str, str]) -> float:
    """Seconds that the answer asks to wait; 0.0 if it does not say so in digits."""
    for name, value in fields.items():
        if name.lower() == "retry-after" and value.isascii() and value.isdigit():
            return float(value)
    return 0.0


def _drain(fd: int) -> bool:
    """Empty a pipe; True if there was anything in it."""
    with suppress(BlockingIOError):
        return bool(os.read(fd, 65536))
    return False
