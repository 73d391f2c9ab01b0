"""Messages in Pub/Sub.

A lane may have a topic of its own, named `TOPIC.LANE`, whose subscription waits for that lane
alone. Whether it has is found out by publishing: where Pub/Sub knows none, the topic of all lanes
takes the message.
"""

from __future__ import annotations

import re
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from google.api_core import exceptions as google_errors
from google.pubsub_v1.services.publisher import PublisherClient
from google.pubsub_v1.types import PubsubMessage

from shared.adapters.cloud.failures import told_as_ours
from shared.pipeline.envelope import DEFLATED, ENCODING, LANE, PRIORITY, TOPIC
from shared.ports import Outgoing

# Pub/Sub takes 1,000 messages or 10 MB in one request, attributes and framing included.
_MAX_MESSAGES = 1000
_MAX_BYTES = 9_000_000
_FRAMING_BYTES = 1024
# A smaller one is paid for as if it had as many. With the header of a CT, 16 KB are 3 KB then; that
# takes a tenth of a millisecond.
_DEFLATED_FROM_BYTES = 1000
_LEVEL = 1
# A lane that may be part of a topic's name.
_LANE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# How long a lane is known to have no topic of its own.
_WITHOUT_S = 300.0
# Without a role on the project Pub/Sub may say of a missing topic that it is forbidden.
_NO_TOPIC = (google_errors.NotFound, google_errors.Forbidden)


class PubSubMessageBus:
    """MessageBus of the cloud. `topic_prefix` stands before each topic's name."""

    def __init__(
        self,
        client: PublisherClient,
        project: str,
        topic_prefix: str = "",
        *,
        once_within_s: float | None = None,
    ) -> None:
        """With `once_within_s` a request is made once and given up then; else it is tried again
        for as long as the client thinks fit.
        """
        self._client, self._project, self._prefix = client, project, topic_prefix
        self._how: dict[str, Any] = {}
        if once_within_s is not None:
            self._how = {"retry": None, "timeout": once_within_s}
        self._without: dict[str, float] = {}  # topics that are not there, and until when

    def publish(self, messages: Iterable[Outgoing]) -> None:
        """Returns once Pub/Sub has acknowledged all of them. Raises: StorageUnavailableError."""
        by_topic: dict[tuple[str, str], list[PubsubMessage]] = defaultdict(list)
        for message in messages:
            by_topic[message.topic, message.lane].append(_pubsub_message(message))
        shared: dict[str, list[PubsubMessage]] = defaultdict(list)
        for (topic, lane), batch in by_topic.items():
            if not (_LANE.fullmatch(lane) and self._published_apart(f"{topic}.{lane}", batch)):
                shared[topic] += batch
        for topic, batch in shared.items():
            for part in _requests(batch):
                with told_as_ours(f"Pub/Sub topic {self._prefix}{topic}", terraform_address(topic)):
                    self._client.publish(topic=self._path(topic), messages=part, **self._how)

    def _published_apart(self, topic: str, batch: list[PubsubMessage]) -> bool:
        """False if there is no such topic: nothing is published then."""
        if self._without.get(topic, 0.0) > time.monotonic():
            return False
        is_first = True
        for part in _requests(batch):
            with told_as_ours(f"Pub/Sub topic {self._prefix}{topic}", terraform_address(topic)):
                try:
                    self._client.publish(topic=self._path(topic), messages=part, **self._how)
                except _NO_TOPIC:
                    if not is_first:
                        raise
                    self._without[topic] = time.monotonic() + _WITHOUT_S
                    return False
            is_first = False
        return True

    def _path(self, topic: str) -> str:
        return self._client.topic_path(self._project, self._prefix + topic)


def terraform_address(topic: str) -> str:
    """What Terraform calls a topic."""
    return f'module.topics["{topic}"].google_pubsub_topic.this'


def _pubsub_message(message: Outgoing) -> PubsubMessage:
    attributes = {**message.attributes, TOPIC: message.topic}
    data = message.data
    if len(data) >= _DEFLATED_FROM_BYTES:
        data = zlib.compress(data, _LEVEL)
        attributes[ENCODING] = DEFLATED
    if message.lane:
        attributes[LANE] = message.lane
    if message.high_priority:
        attributes[PRIORITY] = "high"
    return PubsubMessage(data=data, attributes=attributes)


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
