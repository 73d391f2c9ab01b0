"""Topics and subscriptions in Google's emulator of Pub/Sub, as they are planned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from google.api_core import exceptions as google_errors
from google.pubsub_v1.services.publisher import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from infra.local.rehearse.pushes import Message, QueueEndedError
from infra.local.rehearse.shape import Shape, Subscription

# How long the emulator gives a message to nobody else: the longest there is. How long a push may
# take is ours to see to.
_LEASE_S = 600
_PULLED_AT_ONCE = 64
_PULL_TIMEOUT_S = 60.0


class EmulatedPubSub:
    """The emulator, asked by the real clients."""

    def __init__(self, channel: Any, project: str) -> None:
        self._project = project
        self.publisher = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        self.subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))

    def create(self, shape: Shape) -> None:
        """All topics and subscriptions."""
        for topic in shape.topics:
            self.publisher.create_topic(name=self.topic_path(topic))
        for one in shape.subscriptions:
            self.subscriber.create_subscription(
                request={
                    "name": self.subscription_path(one),
                    "topic": self.topic_path(one.topic),
                    "ack_deadline_seconds": _LEASE_S,
                }
            )

    def topic_path(self, topic: str) -> str:
        """Its resource name."""
        return f"projects/{self._project}/topics/{topic}"

    def subscription_path(self, one: Subscription) -> str:
        """Its resource name."""
        return f"projects/{self._project}/subscriptions/{one.name}"

    def publish(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> None:
        """Past our own code."""
        message = {"data": data, "attributes": dict(attributes)}
        self.publisher.publish(request={"topic": self.topic_path(topic), "messages": [message]})


class SubscriptionQueue:
    """Queue of one subscription."""

    def __init__(self, pubsub: EmulatedPubSub, one: Subscription) -> None:
        self._pubsub, self._path = pubsub, pubsub.subscription_path(one)

    def pull(self) -> list[Message]:
        """As Queue."""
        request = {"subscription": self._path, "max_messages": _PULLED_AT_ONCE}
        try:
            answer = self._pubsub.subscriber.pull(
                request=request, retry=None, timeout=_PULL_TIMEOUT_S
            )
        except google_errors.DeadlineExceeded:
            return []
        except (google_errors.GoogleAPICallError, ValueError):
            raise QueueEndedError from None
        return [
            Message(
                one.message.message_id,
                one.message.data,
                dict(one.message.attributes),
                one.message.publish_time,
                one.message.ordering_key,
                one.ack_id,
            )
            for one in answer.received_messages
        ]

    def keep(self, message: Message) -> None:
        """As Queue."""
        request = {
            "subscription": self._path,
            "ack_ids": [message.ack_id],
            "ack_deadline_seconds": _LEASE_S,
        }
        self._pubsub.subscriber.modify_ack_deadline(request=request)

    def acknowledge(self, message: Message) -> None:
        """As Queue."""
        request = {"subscription": self._path, "ack_ids": [message.ack_id]}
        self._pubsub.subscriber.acknowledge(request=request)

    def publish(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> None:
        """As Queue."""
        self._pubsub.publish(topic, data, attributes)


@contextmanager
def emulated_pubsub(address: str, project: str) -> Iterator[EmulatedPubSub]:
    """Clients of the emulator that listens there; what waits in a pull is called off at the end."""
    channel = grpc.insecure_channel(address)
    try:
        yield EmulatedPubSub(channel, project)
    finally:
        channel.close()
