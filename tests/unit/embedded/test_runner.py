"""The runner: what it makes of an entry point's answers, and how lanes stay out of others' way.

The clock is a fake, so that delays pass at once; waits are on events, with a limit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Semaphore, Thread, get_ident
from typing import Any

import pytest

from shared.adapters.embedded import runner as runner_module
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.adapters.embedded.runner import Handler, Runner
from shared.errors import Category, StorageUnavailableError
from shared.messages import (
    DeliveryRequested,
    ExceptionRaised,
    Receipt,
    ReceivedFile,
    Source,
    Stage,
    Topic,
    decode,
    encode,
)
from shared.pipeline.push import PushRequest, PushResponse, Steps
from shared.ports import Outgoing
from shared.retrying import RetryPolicy
from tests.fakes import FakeClock

SOON_S = 120.0  # a limit for what happens at once, on a machine that is busy
ACCEPTED: PushResponse = ("", 204, {})


def unavailable(words: str = "PACS: no answer", retry_after: str | None = None) -> PushResponse:
    return words, 503, {} if retry_after is None else {"Retry-After": retry_after}


class Bench:
    """A bus, a clock, and a runner that works in the background while `running`."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.bus = SqliteMessageBus(folder / "queue.db", folder / "run", self.clock)

    @contextmanager
    def running(self, handlers: Mapping[str, Handler], **options: Any) -> Iterator[Event]:
        until = Event()
        self.runner = runner = Runner(
            self.bus, handlers, self.clock, **{"jitter": lambda: 1.0, **options}
        )
        thread = Thread(target=runner.run, args=(until,), daemon=True)
        thread.start()
        try:
            yield until
        finally:
            until.set()
            thread.join(SOON_S)
            assert not thread.is_alive()

    def publish(self, *data: bytes, topic: str = "work", lane: str = "") -> None:
        self.bus.publish([Outgoing(topic, one, {"kind": "test"}, lane) for one in data])

    def settle(self) -> None:
        """Wait until the runner has told the bus what became of all that it leased."""
        eventually(lambda: not self.runner._held)

    def left(self, topic: str = "work") -> int:
        depths = self.bus.depth(topic)
        return depths[topic].messages if topic in depths else 0


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """The runner looks often, as a fake clock wakes nobody."""
    monkeypatch.setattr(runner_module, "_LONGEST_WAIT_S", 0.005)
    monkeypatch.setattr(runner_module, "_BUS_DOWN_WAIT_S", 0.005)
    bench = Bench(tmp_path)
    yield bench
    bench.bus.close()


class Answers:
    """A handler that takes its answers from the test and tells what it was asked."""

    def __init__(self, *answers: PushResponse | Exception) -> None:
        self.asked: Queue[PushRequest] = Queue()
        self._answers = list(answers)

    def __call__(self, request: PushRequest) -> PushResponse:
        self.asked.put(request)
        answer = self._answers.pop(0) if self._answers else ACCEPTED
        if isinstance(answer, Exception):
            raise answer
        return answer

    def next(self) -> PushRequest:
        return self.asked.get(timeout=SOON_S)

    def nothing_for(self, seconds: float) -> bool:
        try:
            self.asked.get(timeout=seconds)
        except Empty:
            return True
        return False


def eventually(claim: Callable[[], bool]) -> None:
    """Wait until it is true, looking often."""
    pause = Event()
    for _ in range(int(SOON_S / 0.005)):
        if claim():
            return
        pause.wait(0.005)
    pytest.fail("it did not come true")


def delivery(lane: str = "pacs") -> Outgoing:
    receipt = Receipt(
        receipt_id="20261121T100000-0001",
        trace_id="trace",
        received_at=datetime(2026, 11, 21, 10, tzinfo=UTC),
        source=Source("dimse", "main", calling_ae_title="CT1"),
        file=ReceivedFile("received/x.dcm", 10, 1, 5),
        sop_class_uid="1.2",
        sop_instance_uid="1.2.3",
        study_instance_uid="1.2.4",
        series_instance_uid="1.2.5",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        header=b"header",
    )
    return Outgoing(Topic.DELIVERY_REQUESTED, encode(DeliveryRequested(receipt, lane)), {}, lane)


class TestRunner:
    """The embedded mode's push."""

    def test_calls_the_entry_point_as_an_unwrapped_push_would(self, bench: Bench) -> None:
        handler = Answers()
        with bench.running({"work": handler}):
            bench.bus.publish([Outgoing("work", b"\x00body", {"Trace": "t-1"})])
            request = handler.next()
            assert request.get_data() == b"\x00body"
            assert request.headers["trace"] == "t-1"
            assert request.headers["x-goog-pubsub-delivery-attempt"] == "1"
            assert int(request.headers["x-goog-pubsub-message-id"]) > 0
            assert request.headers["x-goog-pubsub-publish-time"] == "2026-11-21T10:00:00.000000Z"
            eventually(lambda: bench.left() == 0)

    @pytest.mark.parametrize("status", [200, 202, 204])
    def test_a_2xx_acknowledges(self, bench: Bench, status: int) -> None:
        handler = Answers(("", status, {}))
        with bench.running({"work": handler}):
            bench.publish(b"x")
            handler.next()
            eventually(lambda: bench.left() == 0)

    def test_works_off_many_from_several_topics(self, bench: Bench) -> None:
        one, two = Answers(), Answers()
        bench.publish(*[b"%d" % n for n in range(300)], topic="one")
        bench.publish(*[b"%d" % n for n in range(300)], topic="two")
        with bench.running({"one": one, "two": two}):
            eventually(lambda: bench.left("one") + bench.left("two") == 0)
        assert {request.data for request in one.asked.queue} == {b"%d" % n for n in range(300)}
        assert len(one.asked.queue) == len(two.asked.queue) == 300

    def test_a_failure_is_tried_again_after_a_growing_delay(self, bench: Bench) -> None:
        handler = Answers(unavailable(), unavailable(), unavailable())
        with bench.running({"work": handler}):
            bench.publish(b"x")
            for attempt, delay_s in ((1, 1), (2, 2), (3, 4)):
                request = handler.next()
                assert request.headers["x-goog-pubsub-delivery-attempt"] == str(attempt)
                bench.settle()
                bench.clock.advance(delay_s - 0.1)
                assert handler.nothing_for(0.05)
                bench.clock.advance(0.2)
            handler.next()
            eventually(lambda: bench.left() == 0)

    def test_a_retry_after_is_waited_for(self, bench: Bench) -> None:
        handler = Answers(unavailable(retry_after="120"))
        with bench.running({"work": handler}):
            bench.publish(b"x")
            handler.next()
            bench.settle()
            bench.clock.advance(119)
            assert handler.nothing_for(0.05)
            bench.clock.advance(2)
            handler.next()

    def test_a_raising_entry_point_is_logged_without_its_words_and_called_again(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The error's text may quote a patient's Values."""
        handler = Answers(ValueError("Doe^John"))
        with caplog.at_level(logging.DEBUG), bench.running({"work": handler}):
            bench.publish(b"Doe^John")
            handler.next()
            bench.settle()
            bench.clock.advance(2)
            handler.next()
            bench.settle()
        assert bench.left() == 0
        assert caplog.records[0].__dict__["error"] == "ValueError"
        assert all("Doe" not in str(vars(record)) for record in caplog.records)

    def test_spent_retries_become_one_exception_that_holds_the_message(self, bench: Bench) -> None:
        outgoing = delivery()
        handler = Answers(*[unavailable("pacs: A700H")] * 5)
        log = Answers()
        with bench.running(
            {Topic.DELIVERY_REQUESTED: handler}, policy=RetryPolicy(failures_until_probing=99)
        ):
            bench.bus.publish([outgoing])
            for _ in range(5):
                handler.next()
                bench.settle()
                bench.clock.advance(24 * 3600)
            eventually(lambda: bench.left(Topic.DELIVERY_REQUESTED) == 0)
        with bench.running({Topic.EXCEPTION_RAISED: log}):
            raised = decode(log.next().data, ExceptionRaised)
            assert log.nothing_for(0.05)
        assert (raised.code, raised.category) == ("retries-spent", Category.NETWORK)
        assert (raised.stage, raised.attempts) == (Stage.DELIVER, 5)
        assert (raised.destination, raised.sop_instance_uid) == ("pacs", "1.2.3")
        assert raised.peer_message == "pacs: A700H"
        assert (raised.retry_topic, raised.retry_message) == (outgoing.topic, outgoing.data)

    def test_a_message_is_not_given_up_because_the_machine_was_off(self, bench: Bench) -> None:
        """Days without an attempt are not days of trying."""
        handler = Answers(unavailable(), unavailable())
        with bench.running({Topic.DELIVERY_REQUESTED: handler}):
            bench.bus.publish([delivery()])
            handler.next()
            bench.settle()
            bench.clock.advance(30 * 24 * 3600)
            handler.next()
            bench.settle()
            bench.clock.advance(10)
            handler.next()

    def test_a_fault_of_the_runner_ends_it(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its process is started again then; a runner that lived on without its settler would keep
        its messages leased for ever.
        """

        def settle(**_: object) -> None:
            raise ZeroDivisionError

        bench.publish(b"x")
        monkeypatch.setattr(bench.bus, "settle", settle)
        runner = Runner(bench.bus, {"work": Answers()}, bench.clock)
        with pytest.raises(ZeroDivisionError):
            runner.run(Event())

    def test_a_message_is_not_given_up_because_the_wall_clock_was_set(self, bench: Bench) -> None:
        handler = Answers(*[unavailable()] * 5)
        with bench.running(
            {Topic.DELIVERY_REQUESTED: handler}, policy=RetryPolicy(failures_until_probing=99)
        ):
            bench.bus.publish([delivery()])
            for _ in range(6):
                handler.next()
                bench.settle()
                bench.clock.set_wall_clock(10 * 24 * 3600)
                bench.clock.advance(60)

    def test_an_entry_of_the_exception_log_is_tried_for_ever(self, bench: Bench) -> None:
        handler = Answers(*[unavailable()] * 8)
        with bench.running(
            {Topic.EXCEPTION_RAISED: handler}, policy=RetryPolicy(failures_until_probing=99)
        ):
            bench.publish(b"{}", topic=Topic.EXCEPTION_RAISED)
            for _ in range(9):
                handler.next()
                bench.settle()
                bench.clock.advance(24 * 3600)

    def test_a_slow_lane_holds_up_no_other(self, bench: Bench) -> None:
        release, done = Event(), Semaphore(0)

        def handler(request: PushRequest) -> PushResponse:
            if request.data == b"slow":
                release.wait(SOON_S)
            else:
                done.release()
            return ACCEPTED

        bench.publish(*[b"slow"] * 100, lane="slow")
        with bench.running({"work": handler}):
            bench.publish(*[b"quick"] * 20, lane="quick")
            for _ in range(20):
                assert done.acquire(timeout=SOON_S)
            release.set()
            eventually(lambda: bench.left() == 0)

    def test_at_most_so_many_at_once_in_a_lane(self, bench: Bench) -> None:
        begun, release = Semaphore(0), Semaphore(0)
        extra = Event()

        def handler(request: PushRequest) -> PushResponse:
            if begun._value >= 3:
                extra.set()
            begun.release()
            release.acquire(timeout=SOON_S)
            return ACCEPTED

        bench.publish(*[b"x"] * 20, lane="pacs")
        with bench.running({"work": handler}, max_concurrency=lambda lane: 3):
            eventually(lambda: begun._value == 3)
            assert not extra.wait(0.05)
            release.release(20)
            eventually(lambda: bench.left() == 0)

    def test_a_dead_lane_costs_one_probe_at_a_time_until_one_succeeds(self, bench: Bench) -> None:
        """Not a storm: 50 messages wait, and after five failures one of them asks now and then."""
        alive = Event()
        asked: Queue[bytes] = Queue()

        def handler(request: PushRequest) -> PushResponse:
            asked.put(request.data)
            return ACCEPTED if alive.is_set() else unavailable()

        bench.publish(*[b"%d" % n for n in range(50)], lane="dead")
        with bench.running({"work": handler}, max_concurrency=lambda lane: 1):
            for _ in range(5):
                asked.get(timeout=SOON_S)
            bench.settle()
            for delay_s in (1, 2, 4, 8, 15, 15):
                bench.clock.advance(delay_s - 0.1)
                with pytest.raises(Empty):
                    asked.get(timeout=0.05)
                bench.clock.advance(0.2)
                asked.get(timeout=SOON_S)
                bench.settle()
            alive.set()
            bench.clock.advance(300)
            eventually(lambda: bench.left() == 0)

    def test_a_dead_lane_whose_messages_all_wait_does_not_keep_the_runner_busy(
        self, bench: Bench
    ) -> None:
        """A probe could go, but no message is due."""
        handler = Answers(*[unavailable()] * 6)
        with bench.running({"work": handler}):
            bench.publish(b"x", lane="dead")
            for delay_s in (1, 2, 4, 8, 16):
                handler.next()
                bench.settle()
                bench.clock.advance(delay_s + 1)
            handler.next()
            bench.settle()
            bench.clock.advance(15)
            assert bench.runner._wait_s() == runner_module._LONGEST_WAIT_S

    def test_a_lane_that_the_configuration_cannot_tell_of_now_waits(self, bench: Bench) -> None:
        handler = Answers()
        asked = Queue[str]()

        def max_concurrency(lane: str) -> int:
            asked.put(lane)
            if asked.qsize() == 1:
                raise StorageUnavailableError("locked")
            return 1

        with bench.running({"work": handler}, max_concurrency=max_concurrency):
            bench.publish(b"x", lane="pacs")
            handler.next()

    def test_a_bug_does_not_close_its_lane(self, bench: Bench) -> None:
        """Ten messages that break the code say nothing of the destination."""
        handler = Answers(*[RuntimeError()] * 10)
        with bench.running({"work": handler}, max_concurrency=lambda lane: 1):
            bench.publish(*[b"bad"] * 10, lane="pacs")
            bench.publish(b"good", lane="pacs")
            assert [handler.next().data for _ in range(11)][-1] == b"good"

    def test_a_lease_lasts_as_long_as_its_handler(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A delivery of a gigabyte may take minutes; nobody else may get it meanwhile."""
        begun, release = Event(), Event()
        calls: Queue[bytes] = Queue()
        extend, extended = bench.bus.extend, Semaphore(0)

        def extend_and_tell(held: Any, lease_s: float) -> None:
            extend(held, lease_s)
            extended.release()

        def handler(request: PushRequest) -> PushResponse:
            calls.put(request.data)
            begun.set()
            release.wait(SOON_S)
            return ACCEPTED

        with bench.running({"work": handler}, lease_s=60.0):
            bench.publish(b"large")
            assert begun.wait(SOON_S)
            monkeypatch.setattr(bench.bus, "extend", extend_and_tell)
            for _ in range(10):
                bench.clock.advance(30)
                assert extended.acquire(timeout=SOON_S)
                assert bench.bus.lease(["work"], limit=1, lease_s=1) == []
            release.set()
            eventually(lambda: bench.left() == 0)
        assert calls.qsize() == 1

    def test_stopping_finishes_what_runs_and_hands_back_the_rest_at_once(
        self, bench: Bench
    ) -> None:
        begun, release = Event(), Event()

        def handler(request: PushRequest) -> PushResponse:
            begun.set()
            release.wait(SOON_S)
            return ACCEPTED

        bench.publish(*[b"x"] * 10)
        with bench.running({"work": handler}, max_concurrency=lambda lane: 1) as until:
            assert begun.wait(SOON_S)
            until.set()
            eventually(lambda: bench.runner._is_stopping)
            release.set()
        assert bench.left() == 9
        leased = bench.bus.lease(["work"], limit=100, lease_s=1)
        assert [message.attempt for message in leased] == [1] * 9

    def test_stopping_hands_back_what_takes_too_long(self, bench: Bench) -> None:
        begun, release = Event(), Event()

        def handler(request: PushRequest) -> PushResponse:
            begun.set()
            release.wait(SOON_S)
            return ACCEPTED

        bench.publish(b"x")
        with bench.running({"work": handler}, grace_s=0.05):
            assert begun.wait(SOON_S)
        (leased,) = bench.bus.lease(["work"], limit=1, lease_s=1)
        assert leased.attempt == 2
        release.set()


class TestAtOnce:
    """A message that the next stage takes in the same process need not pass through the queue."""

    def test_follows_in_the_same_thread_before_its_origin_is_acknowledged(
        self, bench: Bench
    ) -> None:
        seen: list[tuple[bytes, int]] = []
        done = Event()

        def first(request: PushRequest) -> PushResponse:
            bench.publish(b"next", topic="second")
            seen.append((request.data, get_ident()))
            return ACCEPTED

        def second(request: PushRequest) -> PushResponse:
            seen.append((request.data, get_ident()))
            assert (bench.left("first"), bench.left("second")) == (1, 0)
            done.set()
            return ACCEPTED

        bench.publish(b"one", topic="first")
        with bench.running({"first": first, "second": second}, at_once=["second"]):
            assert done.wait(SOON_S)
            eventually(lambda: not bench.left("first"))
        assert [data for data, _ in seen] == [b"one", b"next"]
        assert len({thread for _, thread in seen}) == 1

    @pytest.mark.parametrize("fault", ["answer", "exception"])
    def test_is_queued_for_another_attempt_if_it_fails_and_its_origin_is_done(
        self, bench: Bench, fault: str
    ) -> None:
        failed = Event()

        def first(request: PushRequest) -> PushResponse:
            bench.publish(b"next", topic="second")
            return ACCEPTED

        def second(request: PushRequest) -> PushResponse:
            if failed.is_set():
                return ACCEPTED
            failed.set()
            if fault == "exception":
                raise RuntimeError
            return unavailable()

        bench.publish(b"one", topic="first")
        with bench.running({"first": first, "second": second}, at_once=["second"]):
            assert failed.wait(SOON_S)
            eventually(lambda: not bench.left("first") and not bench.left("second"))

    def test_is_queued_if_what_published_it_fails_afterwards(self, bench: Bench) -> None:
        """It was published: what the handler said then does not take that back."""
        handled: Queue[bytes] = Queue()
        attempts = iter([unavailable(), ACCEPTED])

        def first(request: PushRequest) -> PushResponse:
            answer = next(attempts)
            if answer is not ACCEPTED:
                bench.publish(b"next", topic="second")
            return answer

        def second(request: PushRequest) -> PushResponse:
            handled.put(request.data)
            return ACCEPTED

        bench.publish(b"one", topic="first")
        with bench.running({"first": first, "second": second}, at_once=["second"]):
            assert handled.get(timeout=SOON_S) == b"next"


class Written:
    """A store of documents beside the bus, and how often it commits what was kept back."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.documents = SqliteDocumentStore(folder / "documents.db")
        self.commits: list[int] = []
        commit_each = self.documents.commit_each

        def counting(kept: Any) -> Any:
            errors = commit_each(kept)
            self.commits.append(len(kept))
            return errors

        self.documents.commit_each = counting  # type: ignore[method-assign]
        self.options: dict[str, Any] = {"documents": self.documents, "deferred": ["work"]}

    def names(self) -> set[str]:
        return {one.key for one in self.documents.query("things", limit=1000).documents}


@pytest.fixture
def written(bench: Bench, tmp_path: Path) -> Iterator[Written]:
    written = Written(bench, tmp_path)
    yield written
    written.documents.close()


class TestKeepingBack:
    """What is written for many messages is committed at once, and nobody is the worse for it."""

    def test_a_backlog_is_committed_in_a_few_transactions(
        self, bench: Bench, written: Written
    ) -> None:
        def handler(request: PushRequest) -> PushResponse:
            written.documents.create("things", request.data.decode(), {})
            bench.publish(request.data, topic="next")
            return ACCEPTED

        bench.publish(*[b"%d" % n for n in range(100)])
        with bench.running({"work": handler}, **written.options):
            eventually(lambda: bench.left() == 0)
        assert sum(written.commits) == 100
        assert len(written.commits) < 100
        assert bench.left("next") == 100
        assert len(written.names()) == 100

    def test_documents_are_there_before_what_is_published_after_them(
        self, bench: Bench, written: Written
    ) -> None:
        found: Queue[bool] = Queue()

        def first(request: PushRequest) -> PushResponse:
            written.documents.create("things", "k", {})
            bench.publish(b"k", topic="next")
            return ACCEPTED

        def second(request: PushRequest) -> PushResponse:
            found.put("k" in written.names())
            return ACCEPTED

        bench.publish(b"x")
        with bench.running({"work": first, "next": second}, **written.options):
            assert found.get(timeout=SOON_S)

    def test_what_cannot_be_written_hurts_no_other(self, bench: Bench, written: Written) -> None:
        asked: Queue[bytes] = Queue()

        def handler(request: PushRequest) -> PushResponse:
            asked.put(request.data)
            # SQLite takes no half of a surrogate pair.
            key = "\ud800" if request.data == b"bad" else request.data.decode()
            written.documents.put("things", key, {})
            return ACCEPTED

        bench.publish(*[b"%d" % n for n in range(10)], b"bad", *[b"%d" % n for n in range(10, 20)])
        with bench.running({"work": handler}, **written.options):
            eventually(lambda: bench.left() == 1)
            assert written.names() == {str(n) for n in range(20)}
            bench.settle()
            bench.clock.advance(2)
            eventually(lambda: list(asked.queue).count(b"bad") == 2)
        assert len(asked.queue) == 22

    def test_who_was_overtaken_begins_anew(
        self, bench: Bench, written: Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner_module, "_SETTLE_WITHIN_S", SOON_S)
        attempts: Queue[str] = Queue()

        def handler(request: PushRequest) -> PushResponse:
            known = written.documents.get("things", "k")
            attempts.put("new" if known is None else "known")
            if known is None:
                written.documents.create("things", "k", {})
            bench.publish(request.data, topic="next")
            return ACCEPTED

        # Both look before either has committed.
        bench.publish(b"one", b"two")
        with bench.running({"work": handler}, max_concurrency=lambda _: 1, **written.options):
            eventually(lambda: bench.left() == 0)
        assert list(attempts.queue) == ["new", "new", "known"]
        assert bench.left("next") == 2

    def test_who_does_not_hear_that_nothing_can_be_written_loses_nothing(
        self, bench: Bench, written: Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A handler may look something up that is no business of the message's, and then goes on
        (`shadow.observe`), though that look was to make durable what the message is about.
        """
        publish_now, faults = bench.bus.publish_now, [StorageUnavailableError("disk full")]

        def failing_once(outgoing: Sequence[Outgoing]) -> None:
            if faults:
                raise faults.pop()
            publish_now(outgoing)

        def handler(request: PushRequest) -> PushResponse:
            written.documents.put("things", "k", {})
            bench.publish(request.data, topic="next")
            with suppress(StorageUnavailableError):
                written.documents.get("things", "other")
            return ACCEPTED

        bench.publish(b"x")
        monkeypatch.setattr(bench.bus, "publish_now", failing_once)
        with bench.running({"work": handler}, **written.options):
            eventually(lambda: bench.left() == 0)
        assert not faults
        assert bench.left("next") == 1

    def test_what_is_done_does_not_wait_for_one_that_takes_long(
        self, bench: Bench, written: Written
    ) -> None:
        release = Event()

        def handler(request: PushRequest) -> PushResponse:
            if request.data == b"slow":
                release.wait(SOON_S)
            written.documents.create("things", request.data.decode(), {})
            return ACCEPTED

        bench.publish(b"1", b"2", b"slow", b"3")
        with bench.running({"work": handler}, **written.options):
            eventually(lambda: written.names() == {"1", "2", "3"} and bench.left() == 1)
            release.set()
            eventually(lambda: bench.left() == 0)

    def test_steps_go_on_once_what_they_wrote_is_there(
        self, bench: Bench, written: Written
    ) -> None:
        store = SqliteDocumentStore(written.documents._database._path)
        found: Queue[bool] = Queue()

        def handler(request: PushRequest) -> Steps:
            key = request.data.decode()
            written.documents.create("things", key, {})
            yield False
            found.put(store.get("things", key) is not None)
            written.documents.put("things", f"{key}-done", {})
            return ACCEPTED

        bench.publish(*[b"%d" % n for n in range(40)])
        with bench.running({"work": handler}, **written.options):
            eventually(lambda: bench.left() == 0)
        assert list(found.queue) == [True] * 40
        assert sum(written.commits) == 80
        assert len(written.commits) < 80
        store.close()

    def test_steps_let_others_come_as_far_before_they_go_on(
        self, bench: Bench, written: Written
    ) -> None:
        """So that one can do for all what each would do for itself."""
        came, went_on = Queue[bytes](), Queue[int]()

        def handler(request: PushRequest) -> Steps:
            written.documents.create("things", request.data.decode(), {})
            yield False
            came.put(request.data)
            yield True
            went_on.put(len(came.queue))
            return ACCEPTED

        bench.publish(*[b"%d" % n for n in range(8)])
        with bench.running({"work": handler}, max_concurrency=lambda _: 1, **written.options):
            eventually(lambda: bench.left() == 0)
        assert len(went_on.queue) == 8
        assert any(seen > number for number, seen in enumerate(went_on.queue, start=1))

    def test_steps_that_were_begun_are_given_up_when_their_lane_breaks_down(
        self, bench: Bench, written: Written, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A dead destination costs a probe, not a storm, and holds no claim."""
        monkeypatch.setattr(runner_module, "_SETTLE_WITHIN_S", SOON_S)
        tried: Queue[bytes] = Queue()
        closed: Queue[bytes] = Queue()

        def handler(request: PushRequest) -> Steps:
            written.documents.put("things", request.data.decode(), {})
            try:
                yield False
            except GeneratorExit:
                written.documents.delete("things", request.data.decode())
                closed.put(request.data)
                raise
            tried.put(request.data)
            return unavailable()

        bench.publish(*[b"%d" % n for n in range(16)], lane="dead")
        with bench.running({"work": handler}, max_concurrency=lambda _: 1, **written.options):
            eventually(lambda: len(tried.queue) == 5)
            bench.settle()
            assert closed.queue
            assert len(tried.queue) == 5
            assert written.names() == {data.decode() for data in tried.queue}
        assert bench.left() == 16

    def test_steps_whose_first_part_cannot_be_written_do_not_go_on(
        self, bench: Bench, written: Written
    ) -> None:
        went_on = Event()
        seen: Queue[type] = Queue()

        def handler(request: PushRequest) -> Steps:
            written.documents.put("things", "\ud800", {})
            try:
                yield False
            except BaseException as error:
                seen.put(type(error))
                raise
            went_on.set()
            return ACCEPTED

        bench.publish(b"x")
        with bench.running({"work": handler}, **written.options):
            seen.get(timeout=SOON_S)
            bench.settle()
        assert not went_on.is_set()
        assert bench.left() == 1

    def test_stopping_settles_what_is_done_and_hands_back_what_was_begun(
        self, bench: Bench, written: Written
    ) -> None:
        begun, release = Event(), Event()
        closed = Event()

        def handler(request: PushRequest) -> Steps:
            written.documents.put("things", request.data.decode(), {})
            if request.data == b"waits":
                begun.set()
                release.wait(SOON_S)
            try:
                yield False
            except GeneratorExit:
                closed.set()
                raise
            return ACCEPTED

        bench.publish(b"waits")
        with bench.running({"work": handler}, **written.options) as until:
            assert begun.wait(SOON_S)
            until.set()
            eventually(lambda: bench.runner._is_stopping)
            release.set()
        assert closed.is_set()
        (leased,) = bench.bus.lease(["work"], limit=1, lease_s=1)
        assert leased.attempt == 1
