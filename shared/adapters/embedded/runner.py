"""Runs the stages' entry points on the bus's messages, as Pub/Sub's push does in the cloud."""

from __future__ import annotations

import logging
import os
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from threading import Condition, Event, Lock, Thread

from msgspec import Struct

from shared.adapters.embedded.dead_letters import dead_letter
from shared.adapters.embedded.deferral import Deferral, OvertakenError
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.lanes import Lane, LaneState, Work
from shared.adapters.embedded.message_bus import Leased, SqliteMessageBus
from shared.adapters.embedded.settling import Settlement, Settler
from shared.errors import AxiomError
from shared.pipeline.push import (
    ATTEMPT_HEADER,
    MESSAGE_ID_HEADER,
    PushRequest,
    PushResponse,
    Steps,
)
from shared.ports import Clock, Outgoing
from shared.retrying import RetryPolicy
from shared.times import timestamp

log = logging.getLogger(__name__)

Handler = Callable[[PushRequest], PushResponse | Steps]

_LEASE_LIMIT = 64
# A wake-up that was lost costs this much.
_LONGEST_WAIT_S = 0.5
_WORKER_IDLE_S = 10.0
_BUS_DOWN_WAIT_S = 1.0
# In a burst messages come one by one: those of so long are leased together.
_GATHER_S = 0.01
# Another worker goes on with the next message when one has taken so long.
_HELP_AFTER_S = 0.01
# What is done waits no longer to be settled, though there is more to do; and no longer than twice
# that, though all workers are busy with one message.
_SETTLE_WITHIN_S = 0.02
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

    What handlers of the topics `deferred` write to `documents`, and publish, is kept back (see
    Deferral) and committed for many messages at once, as soon as nothing else is to be done: one
    thread of a lane works off what was leased together and commits it, and others join in when it
    takes long over a message. A handler may answer in Steps; between them others go on.
    """

    def __init__(
        self,
        bus: SqliteMessageBus,
        handlers: Mapping[str, Handler],
        clock: Clock,
        *,
        max_concurrency: Callable[[str], int] = lambda lane: 4,
        at_once: Collection[str] = (),
        documents: SqliteDocumentStore | None = None,
        deferred: Collection[str] = (),
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
        self._documents, self._deferred = documents, frozenset(deferred)
        self._settler = Settler(
            bus, documents, go_on=self._go_on, failed=self._fail, settled=self._forget
        )
        self._lock = Lock()
        self._is_overdue = Condition(self._lock)
        self._is_idle = Condition(self._lock)
        self._lanes: dict[tuple[str, str], Lane] = {}
        # What this runner answers for: leased and not settled yet.
        self._held: dict[int, Leased] = {}
        self._running: dict[tuple[int, int], Work] = {}
        self._is_stopping = False
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
        settler = self._thread(self._settle_overdue)
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
                    self._look_after_work()
                    if not self._lease():
                        self._await_work(wake_read)
                except AxiomError as error:
                    log.error("the queue cannot be used now", extra={"reason": str(error)})
                    until.wait(_BUS_DOWN_WAIT_S)
        finally:
            until.set()
            try:
                self._stop()
            finally:
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
        self._looks.look_at(self._handlers if is_woken or self._is_probe_due() else rang)

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
                lane.held += 1
                if lane.is_probing and not lane.room(now_s):
                    # It began to fail while these were leased.
                    self._settler.add([Settlement(Work(message), was_begun=False)])
                    continue
                lane.add(Work(message))
            for lane in {self._lanes[message.topic, message.lane] for message in leased}:
                if lane.wants_worker and not lane.running:
                    self._staff(lane)
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
            longest_s = _HELP_AFTER_S if self._held else _LONGEST_WAIT_S
            return min([longest_s, *(lane.probe_in_s(now_s) for lane in self._lanes.values())])

    def _is_probe_due(self) -> bool:
        now_s = self._clock.monotonic_s()
        with self._lock:
            return any(lane.is_probing and lane.room(now_s) for lane in self._lanes.values())

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

    def _staff(self, lane: Lane) -> None:
        """Have one more worker look after the lane."""
        if lane.idle_workers:
            lane.has_work.notify()
        elif lane.workers < lane.concurrency:
            lane.workers += 1
            self._thread(partial(self._work, lane)).start()

    def _look_after_work(self) -> None:
        """Where a worker takes long over a message, have another one go on with the next; and have
        settled what waits for too long.
        """
        now_s = time.monotonic()
        with self._lock:
            for lane in self._lanes.values():
                if lane.wants_worker and now_s - lane.taken_s >= _HELP_AFTER_S:
                    self._staff(lane)
            if self._settler.waits_for_s() >= 2 * _SETTLE_WITHIN_S:
                self._is_overdue.notify()

    def _work(self, lane: Lane) -> None:
        """A worker's life: one message after the other, until there has been none for a while."""
        while True:
            with self._lock:
                work = self._next(lane)
                if work is None:
                    lane.workers -= 1
                    return
                key = work.leased.message_id, work.leased.attempt
                self._running[key] = work
                is_to_be_given_up = work.steps is not None and (
                    work.time_broken != lane.times_broken
                )
            if is_to_be_given_up:
                self._close(work)
                answer: _Answer | None = None
            else:
                answer = self._advance(work)
            budget_s = self._current_budget_s(answer)
            with self._lock:
                lane.running -= 1
                # Not if it was handed back because it took too long to stop.
                if self._running.pop(key, None):
                    if is_to_be_given_up:
                        self._settler.add([Settlement(work, was_begun=False)])
                    elif answer is None:
                        lane.begun += 1
                        self._settler.add([Settlement(work, goes_on=True)])
                    else:
                        self._judge(lane, work, answer, budget_s)
                if not self._running:
                    self._is_idle.notify()
                may_lease = lane.may_have_more and lane.room(self._clock.monotonic_s())
                if may_lease or lane.has_news:
                    self._wake_up()
                settles = self._settles_now(lane)
            if settles:
                self._settler.settle()

    def _settles_now(self, lane: Lane) -> bool:
        """Whether a worker is to settle before it looks for more to do: if it would find nothing
        before, or what was done first has waited long enough.
        """
        waits_for_s = self._settler.waits_for_s()
        if waits_for_s < 0 or self._is_stopping:
            return False
        if waits_for_s >= _SETTLE_WITHIN_S or self._settler.is_full:
            return True
        return not lane.has_takeable and (lane.begun > 0 or not self._running)

    def _next(self, lane: Lane) -> Work | None:
        while not self._is_stopping and lane.workers <= lane.concurrency:
            work = lane.take()
            if work is not None:
                return work
            lane.idle_workers += 1
            was_notified = lane.has_work.wait(_WORKER_IDLE_S)
            lane.idle_workers -= 1
            if not was_notified and not lane.has_takeable:
                return None
        return None

    def _advance(self, work: Work) -> _Answer | None:
        """Work on the message up to its end, or to where what it has written has to be durable:
        then None.
        """
        if work.leased.topic not in self._deferred or self._documents is None or work.is_alone:
            return self._call_alone(work)
        if work.deferral is None:
            work.deferral = Deferral(self._documents, self._bus)
        answer: _Answer | None = None
        with work.deferral.active():
            if work.steps is None:
                begun = work.context.run(self._call, work.leased)
                if isinstance(begun, _Answer):
                    answer = begun
                else:
                    work.steps = begun
            while answer is None and work.steps is not None and not work.deferral.is_broken:
                answer = self._step(work, work.steps)
                if answer is None and (work.deferral.changes or work.lets_others):
                    return None
        if work.deferral.is_broken:
            self._discard(work, OvertakenError())
            return self._call_alone(work)
        work.steps = None
        return answer

    def _call_alone(self, work: Work) -> _Answer:
        """Have the handler begin anew, and keep nothing back."""
        work.deferral = work.steps = None
        answer: _Answer | Steps | None = work.context.run(self._call, work.leased)
        if isinstance(answer, _Answer):
            return answer
        assert answer is not None
        steps, answer = answer, None
        while answer is None:
            answer = self._step(work, steps)
        return answer

    def _close(self, work: Work) -> None:
        """Have work that was begun give up what it holds; what that writes is kept back."""
        steps, work.steps = work.steps, None
        if steps is not None and work.deferral is not None:
            with work.deferral.active(), suppress(AxiomError):
                work.context.run(steps.close)

    def _discard(self, work: Work, error: AxiomError) -> None:
        """End work whose last step could not be made durable, with all that it writes then."""
        steps, work.steps, work.deferral = work.steps, None, None
        if steps is not None and self._documents is not None:
            with (
                Deferral(self._documents, self._bus).active(),
                suppress(AxiomError, StopIteration),
            ):
                work.context.run(steps.throw, error)

    def _call(self, leased: Leased) -> _Answer | Steps:
        headers = {name.lower(): value for name, value in leased.attributes.items()}
        headers["x-goog-pubsub-subscription-name"] = leased.topic
        headers["x-goog-pubsub-publish-time"] = timestamp(leased.published_at)
        headers[MESSAGE_ID_HEADER] = str(leased.message_id)
        headers[ATTEMPT_HEADER] = str(leased.attempt)
        with self._bus.keeping(self._at_once) as kept:
            answer = self._ask(leased.topic, PushRequest(leased.data, headers))
        try:
            for message in kept:
                is_done = isinstance(answer, _Answer) and answer.is_done
                if not (is_done and self._handle(message, headers)):
                    self._bus.publish([message])
        except AxiomError as error:
            return _Answer(503, str(error), 0.0)
        return answer

    def _handle(self, message: Outgoing, origin: Mapping[str, str]) -> bool:
        """Make the first attempt at a message that did not pass through the queue; True if done."""
        headers = {name.lower(): value for name, value in message.attributes.items()}
        headers["x-goog-pubsub-subscription-name"] = message.topic
        headers["x-goog-pubsub-publish-time"] = origin["x-goog-pubsub-publish-time"]
        headers[MESSAGE_ID_HEADER] = f"{origin[MESSAGE_ID_HEADER]}-{message.topic}"
        headers[ATTEMPT_HEADER] = "1"
        answer = self._ask(message.topic, PushRequest(message.data, headers))
        return isinstance(answer, _Answer) and answer.is_done

    def _ask(self, topic: str, request: PushRequest) -> _Answer | Steps:
        try:
            response = self._handlers[topic](request)
        except Exception as error:
            return _fault(topic, request.headers[MESSAGE_ID_HEADER], error)
        return _answer_of(response) if isinstance(response, tuple) else response

    def _step(self, work: Work, steps: Steps) -> _Answer | None:
        """Take one step: the answer, if it was the last."""
        try:
            work.lets_others = work.context.run(next, steps)
        except StopIteration as ended:
            return _answer_of(ended.value)
        except Exception as error:
            return _fault(work.leased.topic, str(work.leased.message_id), error)
        return None

    def _current_budget_s(self, answer: _Answer | None) -> float | None:
        if self._budget_s is None or answer is None or answer.is_done:
            return None
        try:
            return self._budget_s()
        except AxiomError:
            return None

    def _judge(self, lane: Lane, work: Work, answer: _Answer, budget_s: float | None) -> None:
        if answer.is_done and not answer.words:
            lane.succeeded()
        elif answer.is_done or answer.status in _UNAVAILABLE or lane.is_probing:
            lane.failed(
                self._clock.monotonic_s(),
                self._jitter(),
                answer.retry_after_s,
                at=self._clock.now(),
                words=answer.words,
            )
            if lane.is_probing:
                self._hand_back(lane)
        is_done = answer.is_done
        settlement = Settlement(work) if is_done else self._try_again(work, answer, budget_s)
        self._settler.add([settlement])

    def _try_again(self, work: Work, answer: _Answer, budget_s: float | None) -> Settlement:
        leased = work.leased
        tried_for_s = (self._bus.now() - leased.first_attempt_at).total_seconds()
        if self._policy.is_spent(leased.attempt, tried_for_s, budget_s):
            letter = dead_letter(leased, answer.status, answer.words, self._clock.now())
            if letter is not None:
                return Settlement(work, publish=letter)
        delay_s = self._policy.delay_s(leased.attempt, self._jitter(), answer.retry_after_s)
        return Settlement(work, later_s=delay_s)

    def _hand_back(self, lane: Lane) -> None:
        """Let go of what nobody has begun."""
        self._settler.add([Settlement(work, was_begun=False) for work in lane.empty()])

    # ---- settling ----------------------------------------------------------------------------

    def _go_on(self, works: Collection[Work]) -> None:
        """As the settler says: what they have written is durable."""
        with self._lock:
            lanes = [self._lane_of(work) for work in works]
            for lane, work in zip(lanes, works, strict=True):
                lane.add_going_on(work)
            for lane in set(lanes):
                if lane.wants_worker and not lane.running:
                    self._staff(lane)

    def _fail(self, work: Work, error: Exception) -> None:
        """As the settler says: what it has written cannot be written."""
        was_begun = work.steps is not None
        self._discard(work, error if isinstance(error, AxiomError) else OvertakenError())
        if isinstance(error, OvertakenError):
            with self._lock:
                # At its end or not, it begins anew.
                self._lane_of(work).begun += not was_begun
            work.is_alone = True
            self._go_on([work])
            return
        if isinstance(error, AxiomError):
            answer = _Answer(503, str(error), 0.0)
        else:
            answer = _fault(work.leased.topic, str(work.leased.message_id), error)
        budget_s = self._current_budget_s(answer)
        with self._lock:
            lane = self._lane_of(work)
            lane.begun -= was_begun
            self._judge(lane, work, answer, budget_s)

    def _forget(self, works: Collection[Work]) -> None:
        """As the settler says: their messages are settled."""
        with self._lock:
            for work in works:
                # What is due again may have been leased again already.
                if self._held.get(work.leased.message_id) is work.leased:
                    del self._held[work.leased.message_id]
                self._lane_of(work).held -= 1
            now_s = self._clock.monotonic_s()
            if any(
                lane.may_have_more and lane.room(now_s) for lane in set(map(self._lane_of, works))
            ):
                self._wake_up()

    def _lane_of(self, work: Work) -> Lane:
        return self._lanes[work.leased.topic, work.leased.lane]

    def _settle_overdue(self) -> None:
        """The settler's life: to do what workers do, when all are busy with something else."""
        while True:
            with self._lock:
                if self._is_stopping:
                    return
                self._is_overdue.wait()
            if self._settler.waits_for_s() >= 0:
                self._settler.settle()

    # ---- stopping ----------------------------------------------------------------------------

    def _stop(self) -> None:
        with self._lock:
            self._is_stopping = True
            self._is_overdue.notify()
            for lane in self._lanes.values():
                self._hand_back(lane)
                lane.has_work.notify_all()
            # Real seconds: how long a person waits for the process to end.
            self._is_idle.wait_for(lambda: not self._running, self._grace_s)
            self._settler.add(
                [Settlement(Work(one.leased), later_s=0.0) for one in self._running.values()]
            )
            self._running.clear()
        if self._fault is not None:
            return  # what is leased is then as a dead one's
        # Once for what is at its end, and once for what could go on then.
        self._settler.settle()
        with self._lock:
            begun = [work for lane in self._lanes.values() for work in lane.take_begun()]
        for work in begun:
            self._close(work)
        self._settler.add([Settlement(work, was_begun=False) for work in begun])
        self._settler.settle()

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


def _answer_of(response: PushResponse) -> _Answer:
    words, status, fields = response
    return _Answer(status, words, _retry_after_s(fields))


def _fault(topic: str, message_id: str, error: Exception) -> _Answer:
    log.error(
        "an entry point raised",
        extra={
            "topic": topic,
            "message_id": message_id,
            "error": type(error).__name__,
            # The code's lines alone: the text of the error may hold Values.
            "frames": "".join(traceback.format_tb(error.__traceback__)),
        },
    )
    return _Answer(500, f"internal error: {type(error).__name__}", 0.0)


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
