"""A destination that is down for hours: bounded memory, a probe now and then, and nobody's help."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread

import pytest

from shared.adapters.embedded import runner as runner_module
from shared.adapters.embedded.lanes import LaneState
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.adapters.embedded.runner import Runner
from shared.messages import Topic
from shared.pipeline.push import PushRequest, PushResponse
from shared.ports import Outgoing
from tests.fakes import FakeClock
from tests.running import wait_until
from tests.unit.embedded.test_runner import delivery

WAITING = 3_000
HOUR_S = 3600


class Destination:
    """Down until it is up; counts what it is asked and what it took."""

    def __init__(self) -> None:
        self.is_up = False
        self.asked = 0
        self.taken: set[bytes] = set()
        self._lock = Lock()

    def was_asked(self, times: int) -> bool:
        return self.asked >= times

    def __call__(self, request: PushRequest) -> PushResponse:
        with self._lock:
            self.asked += 1
            if not self.is_up:
                return "pacs: connection refused", 503, {}
            self.taken.add(request.get_data())
            return "", 204, {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The runner looks often, as a fake clock wakes nobody."""
    monkeypatch.setattr(runner_module, "_LONGEST_WAIT_S", 0.002)
    return FakeClock()


@pytest.fixture
def bus(tmp_path: Path, clock: FakeClock) -> Iterator[SqliteMessageBus]:
    bus = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", clock)
    yield bus
    bus.close()


class Running:
    """A runner in the background, whose clock a test moves."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._until = Event()
        self._thread = Thread(target=runner.run, args=(self._until,), daemon=True)

    def __enter__(self) -> Runner:
        self._thread.start()
        return self.runner

    def __exit__(self, *_: object) -> None:
        self._until.set()
        self._thread.join(120)


def left(bus: SqliteMessageBus) -> int:
    depth = bus.depth(Topic.DELIVERY_REQUESTED).get(Topic.DELIVERY_REQUESTED)
    return depth.messages if depth else 0


@pytest.mark.timeout(600)
def test_thousands_of_deliveries_wait_for_hours_and_all_arrive(
    bus: SqliteMessageBus, clock: FakeClock
) -> None:
    bus.publish(
        Outgoing(Topic.DELIVERY_REQUESTED, b"%d" % number, lane="pacs") for number in range(WAITING)
    )
    destination, most_held = Destination(), 0
    runner = Runner(bus, {Topic.DELIVERY_REQUESTED: destination}, clock, jitter=lambda: 1.0)

    def asked_by_now(target: int) -> bool:
        # The wait for the next probe may have begun after the minute had passed.
        clock.advance(1)
        return destination.was_asked(target)

    with Running(runner):
        for _ in range(4 * 60):
            target = destination.asked + 1
            clock.advance(60)
            wait_until(partial(asked_by_now, target), 30.0, "a probe", 0.002)
            most_held = max(most_held, len(runner._held))
        wait_until(lambda: not runner._held, 20.0, "all settled", 0.001)
        # A storm would have been at least one for each.
        assert destination.asked < WAITING / 3
        # What one lane holds; the rest is on disk.
        assert most_held <= 64
        assert left(bus) == WAITING
        destination.is_up = True

        def has_arrived() -> bool:
            clock.advance(60)
            return left(bus) == 0

        wait_until(has_arrived, 300.0, "all to arrive", 0.02)
    assert len(destination.taken) == WAITING


def test_how_a_lane_is_is_told_when_it_changes(bus: SqliteMessageBus, clock: FakeClock) -> None:
    destination = Destination()
    told: list[LaneState] = []
    runner = Runner(
        bus,
        {Topic.DELIVERY_REQUESTED: destination},
        clock,
        jitter=lambda: 1.0,
        tell=told.append,
    )
    bus.publish(Outgoing(Topic.DELIVERY_REQUESTED, b"%d" % n, lane="pacs") for n in range(6))
    with Running(runner):

        def is_open() -> bool:
            clock.advance(1)
            return bool(told) and told[-1].circuit == "open"

        wait_until(is_open, 20.0, "the circuit to open", 0.005)
        assert told[-1].lane == "pacs"
        assert told[-1].last_error == "pacs: connection refused"
        assert told[-1].failing_since is not None
        assert told[-1].failing_since >= datetime(2026, 11, 21, 10, tzinfo=UTC)
        assert told[-1].next_try_in_s > 0
        destination.is_up = True

        def is_closed() -> bool:
            clock.advance(10)
            return told[-1].circuit == "closed" and told[-1].failures == 0

        wait_until(is_closed, 20.0, "the circuit to close", 0.005)
        last = told[-1]
        assert not last.failing_since
        assert not last.last_error


def test_one_that_refuses_all_for_good_is_asked_for_one_at_a_time(
    bus: SqliteMessageBus, clock: FakeClock
) -> None:
    """Each of these is in the exception log; the rest waits until somebody has mended it."""
    told: list[LaneState] = []
    is_mended = Event()

    def refuse(_: PushRequest) -> PushResponse:
        return ("" if is_mended.is_set() else "pacs: Unauthorized: 401"), 204, {}

    runner = Runner(
        bus, {Topic.DELIVERY_REQUESTED: refuse}, clock, jitter=lambda: 1.0, tell=told.append
    )
    bus.publish(Outgoing(Topic.DELIVERY_REQUESTED, b"%d" % n, lane="pacs") for n in range(100))
    with Running(runner):
        wait_until(lambda: bool(told) and told[-1].circuit == "open", 20.0, "it to open", 0.005)
        assert told[-1].last_error == "pacs: Unauthorized: 401"
        assert told[-1].failures >= 5
        wait_until(lambda: not runner._held, 20.0, "all settled", 0.005)
        assert left(bus) > 80
        is_mended.set()

        def has_arrived() -> bool:
            clock.advance(10)
            return left(bus) == 0 and told[-1].circuit == "closed"

        wait_until(has_arrived, 60.0, "the others to arrive", 0.005)


def test_the_retry_budget_is_a_setting_that_may_change(
    bus: SqliteMessageBus, clock: FakeClock
) -> None:
    destination, budget_s = Destination(), [30 * 24 * HOUR_S * 1.0]
    runner = Runner(
        bus,
        {Topic.DELIVERY_REQUESTED: destination},
        clock,
        jitter=lambda: 1.0,
        budget_s=lambda: budget_s[0],
    )
    bus.publish([delivery()])
    with Running(runner):

        def was_asked(times: int) -> bool:
            clock.advance(HOUR_S)
            return destination.asked >= times

        wait_until(lambda: was_asked(8), 20.0, "attempts", 0.005)
        assert left(bus) == 1
        budget_s[0] = 3600.0

        def is_given_up() -> bool:
            clock.advance(HOUR_S)
            return left(bus) == 0

        wait_until(is_given_up, 20.0, "the end of the retries", 0.005)
    assert bus.depth(Topic.EXCEPTION_RAISED)[Topic.EXCEPTION_RAISED].messages == 1
