"""Who is let in: watermarks that close and open by themselves, rates, and who goes first."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shared import metrics
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.config.entities import Settings
from shared.errors import OverloadedError, RateLimitedError
from shared.messages import DeliveryRequested, Source, Topic, decode
from shared.pipeline.admission import Admission, resident_bytes
from shared.ports import Backlog, ObjectStore, Outgoing
from shared.refusals import refusal_for
from tests.counting import counting
from tests.data import build
from tests.embedded_system import System
from tests.fakes import FakeClock
from tests.unit.web_fakes import (
    AUTHORIZED,
    STUDIES,
    FakeReception,
    client_over,
    fake_ports,
    part10,
    related,
)

CT1 = Source("dimse", "main", calling_ae_title="CT1", peer_address="10.0.0.1")
CT2 = Source("dimse", "main", calling_ae_title="CT2", peer_address="10.0.0.2")
OFF = {
    "min_free_bytes": 0,
    "max_queue_age_s": 0.0,
    "max_queue_messages": 0,
    "max_memory_bytes": 0,
}


@dataclass
class Machine:
    """A machine whose load is said, and the admission that watches it."""

    free_bytes: int | None = 1 << 40
    backlog: Backlog = field(default_factory=Backlog)
    memory_bytes: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        objects = cast(ObjectStore, SimpleNamespace(free_bytes=lambda: self.free_bytes))
        queue: Any = SimpleNamespace(backlog=self._backlog)
        self.admission = Admission(objects, queue, self.clock, lambda: self.memory_bytes)

    def _backlog(self, topics: Collection[str], *, at_most: int) -> Backlog:
        assert Topic.DELIVERY_REQUESTED not in topics
        self.asked += 1
        return self.backlog

    def lets_in(self, **settings: Any) -> bool:
        """A second later, whether CT1 gets in."""
        self.clock.advance(1)
        try:
            self.admission.check(CT1, Settings(**{**OFF, **settings}))
        except OverloadedError:
            return False
        return True


class TestAWatermark:
    @pytest.mark.parametrize(
        ("setting", "limit", "above", "a_bit_below", "well_below"),
        [
            ("min_free_bytes", 1000, {"free_bytes": 999}, {"free_bytes": 1050}, None),
            (
                "max_queue_age_s",
                100.0,
                {"backlog": Backlog(1, 101.0)},
                {"backlog": Backlog(1, 90.0)},
                {"backlog": Backlog(1, 79.0)},
            ),
            (
                "max_queue_messages",
                100,
                {"backlog": Backlog(101)},
                {"backlog": Backlog(90)},
                {"backlog": Backlog(79)},
            ),
            (
                "max_memory_bytes",
                1000,
                {"memory_bytes": 1001},
                {"memory_bytes": 900},
                {"memory_bytes": 700},
            ),
        ],
    )
    def test_closes_above_its_limit_and_opens_well_below(
        self,
        setting: str,
        limit: float,
        above: dict[str, Any],
        a_bit_below: dict[str, Any],
        well_below: dict[str, Any] | None,
    ) -> None:
        """Without the gap senders would be let in and turned away by turns."""
        machine = Machine()
        limits = {setting: limit}
        assert machine.lets_in(**limits)
        vars(machine).update(a_bit_below)
        assert machine.lets_in(**limits)
        vars(machine).update(above)
        assert not machine.lets_in(**limits)
        vars(machine).update(a_bit_below)
        assert not machine.lets_in(**limits)
        vars(machine).update(well_below or {"free_bytes": 1101})
        assert machine.lets_in(**limits)

    def test_of_zero_is_none(self) -> None:
        machine = Machine(free_bytes=0, backlog=Backlog(10**9, 1e9), memory_bytes=1 << 60)
        assert machine.lets_in()

    def test_says_all_that_is_wrong(self) -> None:
        machine = Machine(free_bytes=0, memory_bytes=2000)
        with pytest.raises(OverloadedError, match=r"are free.*memory"):
            machine.admission.check(CT1, Settings(max_memory_bytes=1000))

    def test_is_told_in_the_log_when_it_closes_and_when_it_opens(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        machine = Machine()
        for free_bytes in (2000, 999, 999, 2000, 2000):
            machine.free_bytes = free_bytes
            machine.lets_in(min_free_bytes=1000)
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            ("WARNING", "senders are turned away: 0 MiB are free, 0 MiB are required"),
            ("WARNING", "senders are let in again"),
        ]

    def test_is_counted_for_each_sender_that_it_turns_away(self, tmp_path: Path) -> None:
        """Not for a poll, which waits."""
        system = System(tmp_path / "home", min_free_bytes=1 << 60)
        with counting(metrics.REFUSED) as refused:
            for waits in (False, True, False):
                with pytest.raises(OverloadedError):
                    system.ports.receiver.begin(CT1, waits=waits)
            assert refused() == {("dimse", "main", "overloaded"): 2}

    def test_is_looked_at_once_a_second(self) -> None:
        """Every C-STORE passes here."""
        machine = Machine()
        for _ in range(1000):
            machine.admission.check(CT1, Settings())
        assert machine.asked == 1


class TestTheQueue:
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def bus(self, tmp_path: Path, clock: FakeClock) -> SqliteMessageBus:
        return SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", clock)

    STAGES = (Topic.INSTANCE_RECEIVED, Topic.INSTANCE_ACCEPTED)

    def test_is_as_far_behind_as_what_waits_longest(
        self, bus: SqliteMessageBus, clock: FakeClock
    ) -> None:
        assert bus.backlog(self.STAGES, at_most=10) == Backlog(0, 0.0)
        bus.publish([Outgoing(Topic.INSTANCE_RECEIVED, b"a")])
        clock.advance(30)
        bus.publish([Outgoing(Topic.INSTANCE_ACCEPTED, b"b", high_priority=True)])
        clock.advance(10)
        assert bus.backlog(self.STAGES, at_most=10) == Backlog(2, 40.0)

    def test_is_not_behind_for_a_message_that_is_tried_again_later(
        self, bus: SqliteMessageBus, clock: FakeClock
    ) -> None:
        """One that cannot be worked off for days must not stop reception."""
        bus.publish([Outgoing(Topic.INSTANCE_ACCEPTED, b"a")])
        (leased,) = bus.lease(self.STAGES, limit=1, lease_s=60)
        bus.settle(later=[(leased.message_id, 300)])
        clock.advance(299)
        assert bus.backlog(self.STAGES, at_most=10) == Backlog(1, 0.0)

    def test_leaves_out_what_waits_for_a_destination(
        self, bus: SqliteMessageBus, clock: FakeClock
    ) -> None:
        bus.publish([Outgoing(Topic.DELIVERY_REQUESTED, b"a", lane="dead")] * 50)
        clock.advance(1e6)
        assert bus.backlog(self.STAGES, at_most=10) == Backlog()

    def test_is_counted_no_further_than_needed(self, bus: SqliteMessageBus) -> None:
        bus.publish([Outgoing(Topic.INSTANCE_RECEIVED, b"a")] * 50)
        assert bus.backlog(self.STAGES, at_most=10).messages == 10


class TestARateLimit:
    LIMITED = Settings(**{**OFF, "rate_limit_per_s": 2.0, "rate_limit_burst": 5})  # type: ignore[arg-type]

    def test_lets_a_burst_in_and_then_the_rate(self) -> None:
        machine = Machine()
        for _ in range(5):
            machine.admission.check(CT1, self.LIMITED)
        with pytest.raises(RateLimitedError) as refused:
            machine.admission.check(CT1, self.LIMITED)
        assert refused.value.retry_after_s == pytest.approx(0.5)
        machine.clock.advance(0.5)
        machine.admission.check(CT1, self.LIMITED)
        with pytest.raises(RateLimitedError):
            machine.admission.check(CT1, self.LIMITED)

    def test_is_each_caller_s_own(self) -> None:
        machine = Machine()
        key = Source("stow", "dicomweb", peer_address="10.0.0.1", principal="viewer")
        for source in (CT1, CT2, key):
            for _ in range(5):
                machine.admission.check(source, self.LIMITED)
            with pytest.raises(RateLimitedError):
                machine.admission.check(source, self.LIMITED)

    def test_does_not_break_off_a_request_that_was_let_in(self) -> None:
        """It would be sent again from its start, and never get to its end; the next one waits."""
        machine = Machine()
        machine.admission.check(CT1, self.LIMITED)
        for _ in range(100):
            machine.admission.check(CT1, self.LIMITED, goes_on=True)
        machine.clock.advance(40)
        with pytest.raises(RateLimitedError):
            machine.admission.check(CT1, self.LIMITED)
        machine.clock.advance(10)
        machine.admission.check(CT1, self.LIMITED)

    def test_is_off_unless_set(self) -> None:
        machine = Machine()
        for _ in range(1000):
            machine.admission.check(CT1, Settings(**OFF))  # type: ignore[arg-type]


class TestSenders:
    """What is said to those who are not let in."""

    def test_over_stow_rs_learn_when_to_come_back(self, tmp_path: Path) -> None:
        for error, status, after in (
            (RateLimitedError(2.0, retry_after_s=3.4), 429, "3"),
            (OverloadedError("the disk is full"), 503, "30"),
        ):
            reception = FakeReception(begin_error=error)
            client = client_over(fake_ports(tmp_path, reception))
            answer = client.post(
                STUDIES,
                data=part10(),
                headers={**AUTHORIZED, "Content-Type": "application/dicom"},
            )
            assert (answer.status_code, answer.headers["Retry-After"]) == (status, after)

    def test_over_c_store_get_out_of_resources(self) -> None:
        for error in (RateLimitedError(2.0), OverloadedError("the disk is full")):
            assert refusal_for(error) == 0xA700

    def test_one_request_may_bring_more_than_its_rate(self, tmp_path: Path) -> None:
        system = System(tmp_path / "home", rate_limit_per_s=0.001, rate_limit_burst=1)
        client = client_over(system.ports)
        body = related(*(build.ct(instance=name) for name in ("one", "two", "three")))
        headers = {
            **AUTHORIZED,
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=B',
        }
        assert client.post(STUDIES, data=body, headers=headers).status_code == 200
        assert client.post(STUDIES, data=body, headers=headers).status_code == 429


def test_what_a_rule_marks_high_is_delivered_before_what_waited_longer(tmp_path: Path) -> None:
    system = System(tmp_path / "home")
    rule = {
        "name": "stat",
        "conditions": [{"type": "tag_equals", "tag": "PatientID", "value": "STAT"}],
        "actions": [{"type": "set_priority", "priority": "high"}],
        "destinations": ["primary-storage"],
    }
    system.ports.configuration.create("rulesets", {"name": "r", "rules": [rule]}, by="test")
    system.clock.advance(1)
    for number in range(20):
        system.receive(f"routine-{number}")
        system.clock.advance(1)
    urgent = system.receive("urgent", patient_id="STAT")
    system.work(Topic.INSTANCE_RECEIVED)
    system.work(Topic.INSTANCE_ACCEPTED)
    bus = system.ports.bus
    assert isinstance(bus, SqliteMessageBus)
    (first,) = bus.lease([Topic.DELIVERY_REQUESTED], limit=1, lease_s=60)
    assert decode(first.data, DeliveryRequested).receipt.receipt_id == urgent.receipt_id


def test_this_process_has_memory() -> None:
    assert 1 << 20 < resident_bytes() < 1 << 40
