"""A destination that is down, where the queue pushes whatever it has: as in the cloud."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shared.dicom.outgoing import OutgoingInstance
from shared.errors import (
    AxiomError,
    CopyInFlightError,
    DestinationBusyError,
    DestinationMisconfiguredError,
    DestinationRefusedError,
    DestinationUnavailableError,
)
from shared.pipeline.turns import Turns
from shared.retrying import RetryPolicy
from tests.data import build
from tests.fakes import FakeClock
from tests.unit.operating import System, running_system

POLICY = RetryPolicy(failures_until_probing=3, first_delay_s=10.0, longest_probe_delay_s=40.0)
_WITHIN_S = 60.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def turns(clock: FakeClock) -> Turns:
    return Turns(clock, longest_wait_s=0.0, policy=POLICY, jitter=lambda: 1.0)


def fail(turns: Turns, error: AxiomError | None = None, *, times: int = 1) -> None:
    for _ in range(times):
        with suppress(AxiomError), turns.turn("pacs", at_once=4):
            raise error or DestinationUnavailableError("pacs", "connection refused")


def deliver(turns: Turns, destination: str = "pacs") -> None:
    with turns.turn(destination, at_once=4):
        pass


class TestADestinationThatIsDown:
    def test_gets_a_probe_now_and_then_and_no_storm(self, turns: Turns, clock: FakeClock) -> None:
        fail(turns, times=3)
        asked = 0
        for _ in range(100):
            clock.advance(1)
            with suppress(DestinationUnavailableError), turns.turn("pacs", at_once=4):
                asked += 1
                raise DestinationUnavailableError("pacs", "connection refused")
        assert asked == 3  # after 10 seconds, 20 more and 40 more

    def test_is_probed_by_one_at_a_time(self, turns: Turns, clock: FakeClock) -> None:
        fail(turns, times=3)
        clock.advance(10)
        with turns.turn("pacs", at_once=4), pytest.raises(DestinationBusyError):
            deliver(turns)

    def test_has_all_its_turns_once_a_probe_went_through(
        self, turns: Turns, clock: FakeClock
    ) -> None:
        fail(turns, times=3)
        with pytest.raises(DestinationBusyError) as busy:
            deliver(turns)
        assert busy.value.retry_after_s == 10.0
        assert not busy.value.may_be_stored
        clock.advance(10)
        deliver(turns)
        with turns.turn("pacs", at_once=4), turns.turn("pacs", at_once=4):
            deliver(turns)

    def test_changes_nothing_for_others(self, turns: Turns) -> None:
        fail(turns, times=3)
        deliver(turns, "archive")

    def test_is_not_asked_before_it_wants_to_be(self, turns: Turns, clock: FakeClock) -> None:
        error = DestinationUnavailableError("pacs", "503")
        error.retry_after_s = 100.0
        fail(turns, error, times=3)
        clock.advance(99)
        with pytest.raises(DestinationBusyError):
            deliver(turns)
        clock.advance(1)
        deliver(turns)

    @pytest.mark.parametrize(
        ("error", "is_down"),
        [
            (DestinationRefusedError("pacs", "A900H"), False),
            (CopyInFlightError("pacs", "1.2"), False),
            (DestinationBusyError("pacs", "more than its rate limit is wanted"), False),
            (DestinationUnavailableError("pacs", "connection refused"), True),
        ],
    )
    def test_is_told_apart_from_one_that_answers(
        self, turns: Turns, error: AxiomError, is_down: bool
    ) -> None:
        fail(turns, error, times=10)
        if not is_down:
            deliver(turns)
        else:
            with pytest.raises(DestinationBusyError):
                deliver(turns)

    def test_is_one_that_refuses_everybody_too(self, turns: Turns) -> None:
        error = DestinationMisconfiguredError("pacs", "401")
        error.refuses_all = True
        fail(turns, error, times=3)
        with pytest.raises(DestinationBusyError):
            deliver(turns)


class TestADestinationThatIsWell:
    def test_gets_as_many_at_once_as_it_wants(self, turns: Turns) -> None:
        with turns.turn("pacs", at_once=2), turns.turn("pacs", at_once=2):
            with pytest.raises(DestinationBusyError), turns.turn("pacs", at_once=2):
                pass
            deliver(turns, "archive")
        deliver(turns)

    def test_has_others_wait_for_their_turn(self, clock: FakeClock) -> None:
        turns = Turns(clock, longest_wait_s=_WITHIN_S, policy=POLICY)
        done: list[int] = []
        most, running = 0, 0
        lock = threading.Lock()

        def take() -> None:
            nonlocal most, running
            with turns.turn("pacs", at_once=2):
                with lock:
                    running += 1
                    most = max(most, running)
                with lock:
                    running -= 1
                    done.append(1)

        threads = [threading.Thread(target=take) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(done), running) == (16, 0)
        assert most <= 2


class TestADelivery:
    @pytest.fixture
    def system(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
        yield from running_system(tmp_path, monkeypatch.setenv)

    def test_that_is_not_its_turn_writes_nothing_and_comes_again(
        self, system: System, turns: Turns, clock: FakeClock
    ) -> None:
        system.ports.destinations._turns = turns
        peer = system.peers["pacs"]

        def be_down(_: OutgoingInstance) -> None:
            raise DestinationUnavailableError("pacs", "connection refused")

        peer.before = be_down
        first = system.receive(build.ct(instance="one"))
        system.pump(12)
        assert len(peer.sent) == 3
        second = system.receive(build.ct(instance="two"))
        system.pump(12)
        assert len(peer.sent) == 3
        known = system.ports.documents.query("deliveries").documents
        assert [one.data["receipt_id"] for one in known] == [first.receipt_id]
        peer.before = lambda instance: None
        clock.advance(60)
        system.pump()
        assert system.delivery(first)["state"] == system.delivery(second)["state"] == "delivered"
