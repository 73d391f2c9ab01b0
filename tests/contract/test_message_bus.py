"""What every MessageBus promises."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.ports import MessageBus, Outgoing

# Takes all messages of a topic off the bus: their bytes and attributes.
Receive = Callable[[str], list[tuple[bytes, dict[str, str]]]]


@pytest.fixture
def receive(sqlite_bus: SqliteMessageBus) -> Receive:
    """The subscriber's side, which is no part of the port."""

    def receive_all(topic: str) -> list[tuple[bytes, dict[str, str]]]:
        leased = sqlite_bus.lease([topic], limit=10_000, lease_s=60)
        sqlite_bus.settle([message.message_id for message in leased])
        return [(message.data, dict(message.attributes)) for message in leased]

    return receive_all


@pytest.fixture(params=["sqlite_bus"])
def bus(request: pytest.FixtureRequest) -> MessageBus:
    """Each MessageBus in turn."""
    adapter: MessageBus = request.getfixturevalue(request.param)
    return adapter


class TestMessageBus:
    """A new adapter is one more param of the `bus` fixture, and of `receive`."""

    def test_what_was_published_is_received_unchanged(
        self, bus: MessageBus, receive: Receive
    ) -> None:
        data = bytes(range(256)) * 1000
        bus.publish([Outgoing("instance-received", data, {"trace": "t", "ü": "ö"})])
        assert receive("instance-received") == [(data, {"trace": "t", "ü": "ö"})]

    def test_topics_are_apart(self, bus: MessageBus, receive: Receive) -> None:
        bus.publish([Outgoing("one", b"1"), Outgoing("two", b"2")])
        assert receive("one") == [(b"1", {})]
        assert receive("two") == [(b"2", {})]
        assert receive("three") == []

    def test_nothing_is_published_for_nothing(self, bus: MessageBus, receive: Receive) -> None:
        bus.publish([])
        assert receive("one") == []

    def test_lanes_and_priorities_lose_nothing(self, bus: MessageBus, receive: Receive) -> None:
        bus.publish(
            Outgoing("work", b"%d" % n, lane=f"lane {n % 3}", high_priority=n % 2 == 0)
            for n in range(50)
        )
        assert {data for data, _ in receive("work")} == {b"%d" % n for n in range(50)}

    def test_many_may_publish_at_once(self, bus: MessageBus, receive: Receive) -> None:
        def publish(number: int) -> None:
            bus.publish([Outgoing("work", b"%d/%d" % (number, n)) for n in range(5)])

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(publish, range(100)))
        expected = {b"%d/%d" % (number, n) for number in range(100) for n in range(5)}
        received = [data for data, _ in receive("work")]
        assert len(received) == 500
        assert set(received) == expected
