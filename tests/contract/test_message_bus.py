"""What every MessageBus promises."""

from __future__ import annotations

import base64
import json
import random
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import grpc
import pytest
from google.api_core.exceptions import DeadlineExceeded
from google.pubsub_v1.services.publisher import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from shared.adapters.cloud.message_bus import PubSubMessageBus
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.errors import StorageUnavailableError
from shared.pipeline.envelope import (
    ENCODING,
    LANE,
    PRIORITY,
    TOPIC,
    PushedMessage,
    open_envelope,
)
from shared.pipeline.push import PushRequest
from shared.ports import MessageBus, Outgoing

# Takes all messages of a topic off the bus: their bytes and attributes.
Receive = Callable[[str], list[tuple[bytes, dict[str, str]]]]


TOPICS = ("instance-received", "one", "two", "three", "work", "work.apart")


class Bus(NamedTuple):
    """A MessageBus, and the subscriber's side, which is no part of the port."""

    bus: MessageBus
    receive: Receive


@pytest.fixture
def sqlite(sqlite_bus: SqliteMessageBus) -> Bus:
    """Messages in SQLite."""

    def receive_all(topic: str) -> list[tuple[bytes, dict[str, str]]]:
        leased = sqlite_bus.lease([topic], limit=10_000, lease_s=60)
        sqlite_bus.settle([message.message_id for message in leased])
        return [(message.data, dict(message.attributes)) for message in leased]

    return Bus(sqlite_bus, receive_all)


@pytest.fixture
def pubsub(pubsub_emulator: str) -> Iterator[Bus]:
    """Messages in Pub/Sub, in a project of their own."""
    project = f"demo-{uuid.uuid4().hex[:12]}"
    unlimited = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(pubsub_emulator, unlimited) as channel:
        publisher = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        for topic in TOPICS:
            path = publisher.topic_path(project, f"axiom-{topic}")
            publisher.create_topic(name=path)
            subscriber.create_subscription(
                name=subscriber.subscription_path(project, topic), topic=path
            )

        def receive_all(topic: str) -> list[tuple[bytes, dict[str, str]]]:
            path = subscriber.subscription_path(project, topic)
            received: list[tuple[bytes, dict[str, str]]] = []
            while True:
                try:
                    answer = subscriber.pull(subscription=path, max_messages=1000, timeout=2)
                except DeadlineExceeded:
                    return received
                if not answer.received_messages:
                    return received
                subscriber.acknowledge(
                    subscription=path, ack_ids=[m.ack_id for m in answer.received_messages]
                )
                for message in (found.message for found in answer.received_messages):
                    pushed = opened(message.data, dict(message.attributes))
                    attributes = {
                        name: value
                        for name, value in pushed.attributes.items()
                        if name not in (ENCODING, LANE, PRIORITY, TOPIC)
                    }
                    received.append((pushed.data, attributes))

        yield Bus(PubSubMessageBus(publisher, project, "axiom-"), receive_all)


def opened(data: bytes, attributes: dict[str, str]) -> PushedMessage:
    """As a function takes it out of a push."""
    message = {"data": base64.b64encode(data).decode(), "attributes": attributes}
    return open_envelope(PushRequest(json.dumps({"message": message}).encode(), {}))


@pytest.fixture(params=["sqlite", "pubsub"])
def adapter(request: pytest.FixtureRequest) -> Bus:
    """Each MessageBus in turn."""
    found: Bus = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def bus(adapter: Bus) -> MessageBus:
    """What publishes."""
    return adapter.bus


@pytest.fixture
def receive(adapter: Bus) -> Receive:
    """What receives."""
    return adapter.receive


class TestMessageBus:
    """A new adapter is one more param of the `adapter` fixture."""

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


def test_pub_sub_names_the_topic_that_is_missing(pubsub: Bus) -> None:
    """At three in the morning the name of what to create is what counts."""
    with pytest.raises(StorageUnavailableError, match="axiom-nowhere"):
        pubsub.bus.publish([Outgoing("nowhere", b"1")])


def test_pub_sub_takes_more_than_one_request_holds(pubsub: Bus) -> None:
    pubsub.bus.publish(Outgoing("work", b"%d" % n) for n in range(1500))
    pubsub.bus.publish(Outgoing("one", random.Random(n).randbytes(4_000_000)) for n in range(5))
    assert len({data for data, _ in pubsub.receive("work")}) == 1500
    assert len(pubsub.receive("one")) == 5


def test_a_lane_of_pub_sub_with_a_topic_of_its_own_is_apart_from_the_others(pubsub: Bus) -> None:
    """So that a dead destination's messages wait where no other's do."""
    pubsub.bus.publish(Outgoing("work", b"1", lane=lane) for lane in ("apart", "other"))
    pubsub.bus.publish([Outgoing("work", b"2", lane="apart"), Outgoing("work", b"3")])
    assert {data for data, _ in pubsub.receive("work.apart")} == {b"1", b"2"}
    assert {data for data, _ in pubsub.receive("work")} == {b"1", b"3"}
