"""Leases: what the embedded bus promises to its runner."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from shared.adapters.embedded import queue_time
from shared.adapters.embedded.clock import SystemClock
from shared.adapters.embedded.message_bus import Leased, SqliteMessageBus
from shared.ports import Outgoing
from tests.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Time for leases and delays."""
    return FakeClock()


@pytest.fixture
def bus(tmp_path: Path, clock: FakeClock) -> Iterator[SqliteMessageBus]:
    """An empty bus."""
    bus = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", clock)
    yield bus
    bus.close()


def publish(bus: SqliteMessageBus, *data: bytes, lane: str = "", urgent: bool = False) -> None:
    bus.publish([Outgoing("work", one, {}, lane, urgent) for one in data])


def lease(bus: SqliteMessageBus, limit: int = 100, **options: object) -> list[Leased]:
    return bus.lease(["work"], limit=limit, **{"lease_s": 60.0, **options})  # type: ignore[arg-type]


def contents(leased: list[Leased]) -> list[bytes]:
    return [message.data for message in leased]


class TestLease:
    """A message is with one worker at a time, and never lost with one."""

    def test_nobody_else_gets_a_leased_message(self, bus: SqliteMessageBus) -> None:
        publish(bus, b"a", b"b")
        assert contents(lease(bus, 1)) == [b"a"]
        assert contents(lease(bus)) == [b"b"]
        assert lease(bus) == []

    def test_an_expired_lease_is_given_again_and_counted(
        self, bus: SqliteMessageBus, clock: FakeClock
    ) -> None:
        publish(bus, b"a")
        first_at = clock.now()
        for attempt in (1, 2, 3):
            (leased,) = lease(bus)
            assert leased.attempt == attempt
            assert leased.first_attempt_at == first_at
            clock.advance(59.9)
            assert lease(bus) == []
            clock.advance(0.2)

    def test_an_extended_lease_lasts(self, bus: SqliteMessageBus, clock: FakeClock) -> None:
        publish(bus, b"a")
        (leased,) = lease(bus)
        clock.advance(50)
        bus.extend([leased.message_id], 60)
        clock.advance(50)
        assert lease(bus) == []
        clock.advance(11)
        assert len(lease(bus)) == 1

    def test_what_another_settles_at_that_moment_is_not_given(
        self, bus: SqliteMessageBus, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its lease had just ended there, and its work was done after all."""
        publish(bus, b"done", b"left")
        (first,) = lease(bus, 1)
        clock.advance(61)
        write = bus._database.write

        def overtaken(*arguments: Any, **options: Any) -> Any:
            monkeypatch.undo()
            try:
                return write(*arguments, **options)
            finally:
                bus.settle(acknowledged=[first.message_id])

        monkeypatch.setattr(bus._database, "write", overtaken)
        assert contents(lease(bus)) == [b"left"]

    def test_twenty_that_lease_at_once_share_without_overlap(self, tmp_path: Path) -> None:
        """Each has its own connections, as processes have."""
        buses = [
            SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", FakeClock())
            for _ in range(20)
        ]
        publish(buses[0], *[b"%d" % n for n in range(200)])
        found: list[list[int]] = [[] for _ in buses]

        def drain(number: int) -> None:
            while leased := lease(buses[number], 3):
                found[number] += [message.message_id for message in leased]

        threads = [Thread(target=drain, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ids = sorted(message_id for part in found for message_id in part)
        assert len(ids) == 200
        assert len(set(ids)) == 200
        for one in buses:
            one.close()


class TestSettle:
    """One transaction for what became of several messages."""

    def test_acknowledged_messages_are_gone(self, bus: SqliteMessageBus, clock: FakeClock) -> None:
        publish(bus, b"a", b"b")
        first, _ = lease(bus)
        bus.settle(acknowledged=[first.message_id])
        bus.settle(acknowledged=[first.message_id])
        clock.advance(61)
        assert contents(lease(bus)) == [b"b"]

    def test_later_ones_wait(self, bus: SqliteMessageBus, clock: FakeClock) -> None:
        publish(bus, b"a")
        (leased,) = lease(bus)
        bus.settle(later=[(leased.message_id, 300)])
        clock.advance(299)
        assert lease(bus) == []
        clock.advance(2)
        assert lease(bus)[0].attempt == 2

    def test_handed_back_ones_are_as_if_never_leased(
        self, bus: SqliteMessageBus, clock: FakeClock
    ) -> None:
        publish(bus, b"a")
        (leased,) = lease(bus)
        clock.advance(5)
        bus.settle(handed_back=[leased.message_id])
        (again,) = lease(bus)
        assert (again.attempt, again.first_attempt_at) == (1, clock.now())

    def test_an_id_never_comes_again(self, bus: SqliteMessageBus) -> None:
        """A late acknowledgement must not hit another message."""
        publish(bus, b"a")
        (first,) = lease(bus)
        bus.settle([first.message_id])
        publish(bus, b"b")
        (second,) = lease(bus)
        assert second.message_id != first.message_id

    def test_publishes_in_place_of_what_it_acknowledges(self, bus: SqliteMessageBus) -> None:
        publish(bus, b"a")
        (leased,) = lease(bus)
        bus.settle([leased.message_id], publish=[Outgoing("next", b"b")])
        assert contents(bus.lease(["work", "next"], limit=9, lease_s=1)) == [b"b"]


class TestTurns:
    """Who is first when many wait."""

    def test_the_longest_due_comes_first(self, bus: SqliteMessageBus, clock: FakeClock) -> None:
        for name in (b"a", b"b", b"c"):
            publish(bus, name)
            clock.advance(1)
        assert contents(lease(bus)) == [b"a", b"b", b"c"]

    def test_lanes_take_turns(self, bus: SqliteMessageBus) -> None:
        publish(bus, *[b"full"] * 50, lane="full")
        publish(bus, b"b", lane="b")
        publish(bus, b"c", lane="c")
        assert sorted(contents(lease(bus, 6))) == [b"b", b"c", b"full", b"full", b"full", b"full"]

    def test_single_leases_take_turns_between_lanes_too(self, bus: SqliteMessageBus) -> None:
        for lane in "abc":
            publish(bus, *[lane.encode()] * 10, lane=lane)
        taken = [lease(bus, 1)[0].data for _ in range(6)]
        assert sorted(taken) == [b"a", b"a", b"b", b"b", b"c", b"c"]

    def test_busy_lanes_are_left_alone(self, bus: SqliteMessageBus) -> None:
        publish(bus, b"a", lane="dead")
        publish(bus, b"b", lane="alive")
        assert contents(lease(bus, lanes_busy=["dead"])) == [b"b"]
        assert contents(lease(bus)) == [b"a"]

    def test_a_lane_gets_no_more_than_its_room(self, bus: SqliteMessageBus) -> None:
        publish(bus, *[b"a"] * 9, lane="a")
        publish(bus, *[b"b"] * 9, lane="b")
        leased = lease(bus, lane_room=lambda topic, lane: {"a": 2, "b": 0}[lane])
        assert contents(leased) == [b"a", b"a"]

    @pytest.mark.parametrize("limit", [1, 3, 8])
    def test_urgent_messages_overtake_but_every_fourth_is_routine(
        self, bus: SqliteMessageBus, limit: int
    ) -> None:
        """An emergency room's Instances go first; the archive's backlog still moves."""
        publish(bus, *[b"routine"] * 40)
        publish(bus, *[b"urgent"] * 40, urgent=True)
        taken: list[bytes] = []
        while len(taken) < 24:
            taken += contents(lease(bus, limit))
        assert taken[:24].count(b"urgent") == 18

    def test_urgent_messages_leave_no_turn_unused(self, bus: SqliteMessageBus) -> None:
        publish(bus, *[b"urgent"] * 10, urgent=True)
        assert len(lease(bus, 10)) == 10


class TestDepth:
    """What health and watermarks go by."""

    def test_counts_by_topic_and_lane(self, bus: SqliteMessageBus, clock: FakeClock) -> None:
        assert bus.depth() == {}
        publish(bus, b"a", b"b", lane="x")
        clock.advance(90)
        publish(bus, b"c", lane="y")
        bus.publish([Outgoing("other", b"d")])
        lease(bus, 1)
        depths = bus.depth()
        assert (depths["work"].messages, depths["work"].oldest_age_s) == (3, 90.0)
        assert depths["work"].lanes == {"x": 2, "y": 1}
        assert bus.depth("other").keys() == {"other"}


class TestReclaim:
    """The death of a process does not have its messages wait for the end of their leases."""

    def test_what_a_dead_process_leased_is_due_at_once(
        self, bus: SqliteMessageBus, tmp_path: Path, clock: FakeClock
    ) -> None:
        publish(bus, b"a", b"b", b"c")
        other = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", clock)
        leased = lease(other, 2)
        other.settle([leased[0].message_id])
        other.close()
        assert bus.reclaim() == 1
        again = lease(bus)
        assert contents(again) == [b"b", b"c"]
        assert [message.attempt for message in again] == [2, 1]
        assert bus.reclaim() == 0
        assert len(list((tmp_path / "run").glob("*.lessee"))) == 1

    def test_what_a_killed_process_leased_is_due_at_once(self, tmp_path: Path) -> None:
        bus = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", SystemClock())
        publish(bus, b"a")
        child = os.fork()
        if child == 0:
            SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", SystemClock()).lease(
                ["work"], limit=1, lease_s=600
            )
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        assert lease(bus) == []
        assert bus.reclaim() == 1
        assert contents(lease(bus)) == [b"a"]
        bus.close()

    def test_the_dead_leave_no_files(self, tmp_path: Path, clock: FakeClock) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "0123456789abcdef.lessee").touch()
        bus = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", clock)
        lease(bus)
        assert len(list((tmp_path / "run").glob("*.lessee"))) == 1
        bus.close()
        assert list((tmp_path / "run").glob("*.lessee")) == []

    def test_the_living_keep_what_they_leased(
        self, bus: SqliteMessageBus, tmp_path: Path, clock: FakeClock
    ) -> None:
        publish(bus, b"a", b"b")
        other = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", clock)
        lease(other, 1)
        lease(bus, 1)
        assert bus.reclaim() == 0
        assert lease(bus) == []
        other.close()

    def test_a_delay_outlives_the_process_that_asked_for_it(
        self, bus: SqliteMessageBus, tmp_path: Path, clock: FakeClock
    ) -> None:
        """A peer that asked for time is not to be stormed at each restart."""
        publish(bus, b"a")
        other = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", clock)
        other.settle(later=[(lease(other)[0].message_id, 30.0)])
        other.close()
        assert bus.reclaim() == 0
        assert lease(bus) == []


class TestQueueTime:
    """A correction of the wall clock moves nothing in the queue."""

    @pytest.mark.parametrize("seconds", [-3600, 3600, -10 * 365 * 86400, 10 * 365 * 86400])
    def test_what_waits_is_due_as_if_nothing_had_happened(
        self, bus: SqliteMessageBus, tmp_path: Path, clock: FakeClock, seconds: int
    ) -> None:
        publish(bus, b"now")
        publish(bus, b"later")
        bus.settle(later=[(lease(bus)[1].message_id, 30.0)])
        clock.set_wall_clock(seconds)
        other = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", clock)
        publish(other, b"new")
        assert contents(lease(bus)) == [b"new"]  # "now" is leased, "later" delayed
        clock.advance(31)
        assert contents(lease(other)) == [b"later"]
        assert other.depth()["work"].oldest_age_s == 31.0
        other.close()

    def test_a_boot_with_a_wrong_clock_has_nothing_wait(
        self, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A machine without a battery wakes up in the past until the network tells it the time."""
        boot = tmp_path / "boot_id"
        monkeypatch.setattr(queue_time, "_BOOT_ID", boot)
        for name, first in (("first", True), ("second", False)):
            boot.write_text(name)
            bus = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", clock)
            if first:
                publish(bus, b"a")
                clock.set_wall_clock(-20 * 365 * 86400)
            else:
                assert contents(lease(bus)) == [b"a"]
            bus.close()


class TestWait:
    """Publishers wake those who wait, from other processes too."""

    def test_a_publication_ends_the_wait(self, bus: SqliteMessageBus, tmp_path: Path) -> None:
        woken = Event()
        bus.wait(["work"], 0)  # opens the FIFO

        def wait() -> None:
            bus.wait(["work", "other"], 30)
            woken.set()

        Thread(target=wait, daemon=True).start()
        other = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", FakeClock())
        publish(other, b"a")
        assert woken.wait(120)
        other.close()

    def test_a_publication_just_before_the_wait_is_not_slept_through(
        self, bus: SqliteMessageBus
    ) -> None:
        bus.wait(["work"], 0)
        publish(bus, b"a")
        bus.wait(["work"], 3600)  # for longer than a test may take

    def test_nothing_ends_the_wait_but_time(self, bus: SqliteMessageBus) -> None:
        bus.publish([Outgoing("other", b"a")])
        began = time.monotonic()
        bus.wait(["work"], 0.05)
        assert time.monotonic() - began >= 0.04

    def test_nobody_has_to_wait_for_publishing_to_work(
        self, bus: SqliteMessageBus, tmp_path: Path
    ) -> None:
        """A FIFO that nobody reads, or that is full, must not block a publisher."""
        publish(bus, b"a")
        bus.wait(["work"], 0)
        for _ in range(3):
            bus._bells.ring(["work"] * 40_000)
        publish(bus, b"b")
        bus.close()
        publish(bus, b"c")
        assert len(lease(bus)) == 3


@pytest.mark.parametrize("topic", ["", "../work", "a/b", "A", "x" * 101, "work\n"])
def test_refuses_topics_that_could_lead_elsewhere(bus: SqliteMessageBus, topic: str) -> None:
    """A topic names a FIFO."""
    with pytest.raises(ValueError):
        bus.publish([Outgoing(topic, b"")])
