"""What rules mark high overtakes routine work, and routine work never starves."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.adapters.embedded.runner import Runner
from shared.messages import Topic
from shared.pipeline.push import PushRequest, PushResponse
from shared.ports import Outgoing
from tests.fakes import FakeClock

TOPIC = Topic.DELIVERY_REQUESTED
LANE = "pacs"


def messages(name: str, count: int, *, high: bool) -> list[Outgoing]:
    return [
        Outgoing(TOPIC, f"{name}{i}".encode(), lane=LANE, high_priority=high) for i in range(count)
    ]


class Destination:
    """Takes one message after the other and keeps their order; `also` is called with each."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = FakeClock()
        self.bus = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", self.clock)
        self.order: list[str] = []
        self.arrivals: dict[int, list[Outgoing]] = {}
        self._wanted = 0
        self._done = Event()

    def take(self, request: PushRequest) -> PushResponse:
        self.order.append(request.data.decode())
        self.bus.publish(self.arrivals.get(len(self.order), []))
        if len(self.order) == self._wanted:
            self._done.set()
        return "", 204, {}

    def run(self, until_taken: int) -> list[str]:
        self._wanted = until_taken
        runner = Runner(self.bus, {TOPIC: self.take}, self.clock, max_concurrency=lambda _: 1)
        thread = Thread(target=runner.run, args=(self._done,))
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
        return self.order


def test_an_urgent_instance_overtakes_a_routine_backlog(tmp_path: Path) -> None:
    destination = Destination(tmp_path)
    destination.bus.publish(messages("routine", 300, high=False))
    destination.arrivals[20] = messages("urgent", 1, high=True)
    order = destination.run(until_taken=120)
    # Behind what a worker holds already, which is a few messages, and no more.
    assert 20 <= order.index("urgent0") <= 20 + 16


def test_routine_instances_go_on_while_urgent_ones_never_end(tmp_path: Path) -> None:
    """By every stretch of the order that is long enough, a fifth is routine."""
    destination = Destination(tmp_path)
    destination.bus.publish(messages("routine", 60, high=False))
    destination.bus.publish(messages("urgent", 40, high=True))
    for taken in range(1, 200):
        destination.arrivals[taken] = messages(f"urgent-{taken}-", 1, high=True)
    order = destination.run(until_taken=200)
    for start in range(0, 160, 40):
        routine = [one for one in order[start : start + 40] if one.startswith("routine")]
        assert len(routine) >= 4, (start, order)
    assert sum(one.startswith("urgent") for one in order[:40]) >= 20
