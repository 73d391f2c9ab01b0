"""Pub/Sub's pushes, as a subscription's policies say.

Google's emulator keeps the messages. Its own pushes are not used: they bring no token and count no
attempts, and with a retry policy they fall silent after some failures. So its subscriptions are
pulled here, and each message is pushed with the plan's token, deadline, pauses and number of
attempts, and goes to the plan's topic of dead letters in the end.
"""

from __future__ import annotations

import base64
import heapq
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

# What Pub/Sub takes as an acknowledgement.
ACKNOWLEDGING = frozenset({102, 200, 201, 202, 204})

_AT_ONCE = 16  # pushes of one subscription


@dataclass(frozen=True, slots=True)
class Policy:
    """What a subscription says of its pushes."""

    subscription: str
    ack_deadline_s: float
    minimum_backoff_s: float
    maximum_backoff_s: float
    max_attempts: int = 0  # 0: for ever
    dead_letter_topic: str = ""

    def pause_s(self, attempt: int) -> float:
        """How long after the attempt that failed the next one comes: twice as long each time."""
        doubled = self.minimum_backoff_s * 2.0 ** min(attempt - 1, 32)
        return min(doubled, self.maximum_backoff_s)


@dataclass(frozen=True, slots=True)
class Message:
    """What was published, and how it is told that it was taken."""

    message_id: str
    data: bytes
    attributes: Mapping[str, str]
    published_at: datetime
    ordering_key: str = ""
    ack_id: str = ""


class Queue(Protocol):
    """What keeps the messages of one subscription."""

    def pull(self) -> list[Message]:
        """Some that wait; empty if none came for a while. Raises: QueueEndedError."""

    def keep(self, message: Message) -> None:
        """Give it to nobody else for the next ten minutes."""

    def acknowledge(self, message: Message) -> None:
        """It is done with."""

    def publish(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> None:
        """To the topic of dead letters."""


class QueueEndedError(Exception):
    """Nothing will come any more."""


@dataclass(slots=True)
class Count:
    """What was pushed so far."""

    pushes: int = 0
    refused: int = 0  # answered with anything but an acknowledgement
    dead_letters: int = 0
    waiting: int = 0  # not yet acknowledged


# Body and header fields in, HTTP status out.
Push = Callable[[bytes, Mapping[str, str]], int]


@dataclass(slots=True)
class Pusher:
    """Pushes one message until it is acknowledged or given up."""

    policy: Policy
    queue: Queue
    push: Push
    later: Callable[[float, Callable[[], None]], None]  # seconds, and what is called then
    count: Count = field(default_factory=Count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, message: Message, attempt: int = 1) -> None:
        """Push it, and see to it that it is pushed again if need be."""
        policy = self.policy
        body = envelope(message, policy, attempt)
        status = self.push(body, {"Content-Type": "application/json"})
        is_taken = status in ACKNOWLEDGING
        is_spent = not is_taken and 0 < policy.max_attempts <= attempt
        with self._lock:
            self.count.pushes += 1
            self.count.refused += not is_taken
            self.count.dead_letters += is_spent
        if is_spent:
            self.queue.publish(
                policy.dead_letter_topic, message.data, given_up(message, policy, attempt)
            )
        if is_taken or is_spent:
            self.queue.acknowledge(message)
            with self._lock:
                self.count.waiting -= 1
            return
        self.queue.keep(message)
        pause_s = policy.pause_s(attempt) * random.uniform(1.0, 1.1)  # noqa: S311
        self.later(pause_s, lambda: self.take(message, attempt + 1))


def envelope(message: Message, policy: Policy, attempt: int) -> bytes:
    """The body of a push, as Pub/Sub writes it. Attempts are told beside dead letters alone."""
    published_at = message.published_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    shown: dict[str, Any] = {
        "attributes": dict(message.attributes),
        "data": base64.b64encode(message.data).decode(),
        "messageId": message.message_id,
        "message_id": message.message_id,
        "publishTime": published_at,
        "publish_time": published_at,
    }
    if message.ordering_key:
        shown["orderingKey"] = message.ordering_key
    told: dict[str, Any] = {"message": shown, "subscription": policy.subscription}
    if policy.dead_letter_topic:
        told["deliveryAttempt"] = attempt
    return json.dumps(told).encode()


def given_up(message: Message, policy: Policy, attempts: int) -> dict[str, str]:
    """The attributes of a dead letter: its own, and those that Pub/Sub adds."""
    _, project, _, name = policy.subscription.split("/")
    return {
        **message.attributes,
        "CloudPubSubDeadLetterSourceDeliveryCount": str(attempts),
        "CloudPubSubDeadLetterSourceSubscription": name,
        "CloudPubSubDeadLetterSourceSubscriptionProject": project,
        "CloudPubSubDeadLetterSourceTopicPublishTime": message.published_at.isoformat(),
    }


class Pushing:
    """The pushes of all subscriptions."""

    def __init__(self) -> None:
        self.pushers: dict[str, Pusher] = {}
        self._pools: list[ThreadPoolExecutor] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._has_ended = False
        self._threads = [threading.Thread(target=self._wake, daemon=True)]
        self._threads[0].start()

    def add(self, policy: Policy, queue: Queue, push: Push) -> None:
        """Push what comes to a subscription from now on."""
        pool = ThreadPoolExecutor(_AT_ONCE)
        self._pools.append(pool)

        def later(pause_s: float, call: Callable[[], None]) -> None:
            with self._changed:
                due = time.monotonic() + pause_s, next(self._numbers), lambda: submit(call)
                heapq.heappush(self._due, due)
                self._changed.notify()

        def submit(call: Callable[[], None]) -> None:
            with suppress(RuntimeError):  # it has ended
                pool.submit(call)

        pusher = Pusher(policy, queue, push, later)
        self.pushers[policy.subscription.rpartition("/")[2]] = pusher

        def run() -> None:
            with suppress(QueueEndedError):
                while not self._has_ended:
                    for message in queue.pull():
                        pusher.count.waiting += 1
                        submit(lambda message=message: pusher.take(message))  # type: ignore[misc]

        thread = threading.Thread(target=run, name=policy.subscription, daemon=True)
        self._threads.append(thread)
        thread.start()

    @property
    def waiting(self) -> int:
        """Messages that were pulled and are not done with."""
        return sum(pusher.count.waiting for pusher in self.pushers.values())

    def end(self) -> None:
        """Push nothing any more; what waits is lost with the emulator."""
        with self._changed:
            self._has_ended = True
            self._changed.notify()
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)

    def _wake(self) -> None:
        while True:
            with self._changed:
                if self._has_ended:
                    return
                now_s = time.monotonic()
                if not self._due or self._due[0][0] > now_s:
                    self._changed.wait(self._due[0][0] - now_s if self._due else None)
                    continue
                _, _, call = heapq.heappop(self._due)
            call()
