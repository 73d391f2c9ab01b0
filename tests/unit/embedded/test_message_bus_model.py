"""The bus against a model of it, through any sequence of what can happen."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from shared.adapters.embedded.message_bus import Leased, SqliteMessageBus
from shared.ports import Outgoing
from tests.fakes import FakeClock

LANES = ("", "a", "b")
LEASE_S = 60


@dataclass
class Expected:
    """What the model knows of a message that is not acknowledged."""

    lane: str
    due_s: float
    attempt: int = 0
    lessee: int | None = None  # which process has leased it


class BusMachine(RuleBasedStateMachine):
    """Times are whole seconds, so that the model and the bus agree on what is due."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FakeClock()
        self.bus = self.opened()
        self.model: dict[bytes, Expected] = {}
        self.leased: list[Leased] = []
        self.number = 0
        self.process = 0

    def opened(self) -> SqliteMessageBus:
        return SqliteMessageBus(self.folder / "queue.db", self.folder / "run", self.clock)

    def now_s(self) -> float:
        return self.clock.monotonic_s()

    def teardown(self) -> None:
        """Whatever happened, all that was not acknowledged is still there, and nothing else."""
        self.clock.advance(10_000)
        left = {message.data for message in self.bus.lease(["t"], limit=10_000, lease_s=1)}
        assert left == self.model.keys()
        self.bus.close()
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        assert self.bus.depth() == {}

    @rule(lane=st.sampled_from(LANES), urgent=st.booleans(), count=st.integers(1, 4))
    def publish(self, lane: str, urgent: bool, count: int) -> None:
        names = [b"%d" % (self.number + n) for n in range(count)]
        self.number += count
        self.bus.publish([Outgoing("t", name, {}, lane, urgent) for name in names])
        self.model.update({name: Expected(lane, self.now_s()) for name in names})

    @rule(limit=st.integers(1, 5), busy=st.sets(st.sampled_from(LANES)))
    def lease(self, limit: int, busy: set[str]) -> None:
        due = {
            name
            for name, expected in self.model.items()
            if expected.due_s <= self.now_s() and expected.lane not in busy
        }
        leased = self.bus.lease(["t"], limit=limit, lease_s=LEASE_S, lanes_busy=busy)
        names = {message.data for message in leased}
        assert len(names) == len(leased) == min(limit, len(due))
        assert names <= due
        for message in leased:
            expected = self.model[message.data]
            expected.due_s = self.now_s() + LEASE_S
            expected.attempt += 1
            expected.lessee = self.process
            assert (message.attempt, message.lane) == (expected.attempt, expected.lane)
        self.leased += leased

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), what=st.sampled_from(["done", "later", "extend"]))
    def settle(self, data: st.DataObject, what: str) -> None:
        """Late settlements too: the lease may have ended, the message may be leased again."""
        message = data.draw(st.sampled_from(self.leased))
        expected = self.model.get(message.data)
        if what == "done":
            self.bus.settle([message.message_id])
            self.model.pop(message.data, None)
        elif what == "later":
            self.bus.settle(later=[(message.message_id, 7)])
            if expected:
                expected.due_s = self.now_s() + 7
                expected.lessee = None
        else:
            self.bus.extend([message.message_id], 33)
            if expected:
                expected.due_s = self.now_s() + 33

    @precondition(lambda self: self.leased)
    @rule()
    def hand_back(self) -> None:
        message = self.leased.pop()
        self.bus.settle(handed_back=[message.message_id])
        if expected := self.model.get(message.data):
            expected.due_s = self.now_s()
            expected.attempt = max(0, expected.attempt - 1)
            expected.lessee = None

    @rule(seconds=st.integers(1, 100))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def process_starts_again(self) -> None:
        self.bus.close()
        self.bus = self.opened()
        self.process += 1

    @rule()
    def reclaim(self) -> None:
        for expected in self.model.values():
            if expected.lessee is not None and expected.lessee != self.process:
                expected.due_s = min(expected.due_s, self.now_s())
                expected.lessee = None
        self.bus.reclaim()

    @rule(seconds=st.integers(-10_000, 10_000))
    def wall_clock_is_set(self, seconds: int) -> None:
        self.clock.set_wall_clock(seconds)

    @rule()
    def count(self) -> None:
        depths = self.bus.depth()
        assert (depths["t"].messages if depths else 0) == len(self.model)


TestBusMachine = BusMachine.TestCase
TestBusMachine.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
