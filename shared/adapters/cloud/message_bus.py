"""Messages in Pub/Sub."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from google.pubsub_v1.services.publisher import PublisherClient
from google.pubsub_v1.types import PubsubMessage

from shared.adapters.cloud.failures import told_as_ours
from shared.ports import Outgoing

# Attributes of ours beside the caller's. Pub/Sub has no lanes: subscriptions filter on these.
LANE, PRIORITY = "axiom-lane", "axiom-priority"

# Pub/Sub takes 1,000 messages or 10 MB in one request, attributes and framing included.
_MAX_MESSAGES = 1000
_MAX_BYTES = 9_000_000
_FRAMING_BYTES = 1024


class PubSubMessageBus:
    """MessageBus of the cloud. `topic_prefix` stands before each topic's name."""

    def __init__(self, client: PublisherClient, project: str, topic_prefix: str = "") -> None:
        self._client, self._project, self._prefix = client, project, topic_prefix

    def publish(self, messages: Iterable[Outgoing]) -> None:
        """Returns once Pub/Sub has acknowledged all of them. Raises: StorageUnavailableError."""
        by_topic: dict[str, list[PubsubMessage]] = defaultdict(list)
        for message in messages:
            by_topic[message.topic].append(_pubsub_message(message))
        for topic, batch in by_topic.items():
            path = self._client.topic_path(self._project, self._prefix + topic)
            for part in _requests(batch):
                with told_as_ours(f"Pub/Sub topic {self._prefix}{topic}", terraform_address(topic)):
                    self._client.publish(topic=path, messages=part)


def terraform_address(topic: str) -> str:
    """What Terraform calls a topic."""
    return f'module.topics["{topic}"].google_pubsub_topic.this'


def _pubsub_message(message: Outgoing) -> PubsubMessage:
    attributes = dict(message.attributes)
    if message.lane:
        attributes[LANE] = message.lane
    if message.high_priority:
        attributes[PRIORITY] = "high"
    return PubsubMessage(data=message.data, attributes=attributes)


def _requests(messages: Iterable[PubsubMessage]) -> Iterator[list[PubsubMessage]]:
    """The messages in as many lists as requests need."""
    part: list[PubsubMessage] = []
    size = 0
    for message in messages:
        bytes_ = len(message.data) + _FRAMING_BYTES
        if part and (len(part) == _MAX_MESSAGES or size + bytes_ > _MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(message)
        size += bytes_
    if part:
        yield part
