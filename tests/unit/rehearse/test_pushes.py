"""Pushes as a subscription's policies say, without Pub/Sub and without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.rehearse.pushes import (
    ACKNOWLEDGING,
    Message,
    Policy,
    Pusher,
    envelope,
    given_up,
)
from shared.pipeline.envelope import open_envelope
from shared.pipeline.push import PushRequest

POLICY = Policy(
    subscription="projects/p/subscriptions/axiom-validate-instance",
    ack_deadline_s=60,
    minimum_backoff_s=5,
    maximum_backoff_s=600,
    max_attempts=20,
    dead_letter_topic="axiom-dead-letters",
)
MESSAGE = Message("7", b"data", {"axiom-topic": "t"}, datetime(2026, 11, 21, tzinfo=UTC))


@dataclass
class FakeQueue:
    """What a subscription is told."""

    kept: int = 0
    acknowledged: list[str] = field(default_factory=list)
    published: list[tuple[str, bytes, Mapping[str, str]]] = field(default_factory=list)

    def pull(self) -> list[Message]:
        return []

    def keep(self, message: Message) -> None:
        self.kept += 1

    def acknowledge(self, message: Message) -> None:
        self.acknowledged.append(message.message_id)

    def publish(self, topic: str, data: bytes, attributes: Mapping[str, str]) -> None:
        self.published.append((topic, data, attributes))


@dataclass
class Endpoint:
    """Answers one status after the other."""

    statuses: Iterator[int]
    bodies: list[bytes] = field(default_factory=list)

    def push(self, body: bytes, headers: Mapping[str, str]) -> int:
        self.bodies.append(body)
        return next(self.statuses)


def pushed(
    statuses: Iterator[int], policy: Policy = POLICY
) -> tuple[FakeQueue, Endpoint, list[float]]:
    """Push one message until nothing is left to do; the pauses in between."""
    queue, endpoint = FakeQueue(), Endpoint(statuses)
    pauses: list[float] = []
    due: list[Callable[[], None]] = []

    def later(pause_s: float, call: Callable[[], None]) -> None:
        pauses.append(pause_s)
        due.append(call)

    Pusher(policy, queue, endpoint.push, later).take(MESSAGE)
    while due:
        due.pop()()
    return queue, endpoint, pauses


@pytest.mark.parametrize("status", sorted(ACKNOWLEDGING))
def test_what_is_taken_is_acknowledged_and_not_pushed_again(status: int) -> None:
    queue, endpoint, pauses = pushed(iter([status]))
    assert (queue.acknowledged, len(endpoint.bodies), pauses) == (["7"], 1, [])


def test_what_is_refused_is_pushed_again_after_pauses_that_double() -> None:
    queue, endpoint, pauses = pushed(iter([503, 500, 425, 429, 204]))
    assert len(endpoint.bodies) == 5
    for pause_s, wanted_s in zip(pauses, (5, 10, 20, 40), strict=True):
        assert wanted_s <= pause_s <= 1.1 * wanted_s
    assert (queue.kept, queue.acknowledged, queue.published) == (4, ["7"], [])


def test_pauses_have_an_end() -> None:
    assert [POLICY.pause_s(attempt) for attempt in (7, 8, 9, 10_000)] == [320, 600, 600, 600]


def test_what_was_tried_as_often_as_it_may_goes_to_the_dead_letters() -> None:
    queue, endpoint, _ = pushed(iter([503] * 20))
    assert len(endpoint.bodies) == 20
    [(topic, data, attributes)] = queue.published
    assert (topic, data) == ("axiom-dead-letters", b"data")
    assert attributes == given_up(MESSAGE, POLICY, 20)
    assert attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "20"
    assert attributes["axiom-topic"] == "t"
    assert queue.acknowledged == ["7"]


def test_without_dead_letters_nothing_is_given_up() -> None:
    policy = Policy("projects/p/subscriptions/s", 60, 5, 600)
    queue, endpoint, _ = pushed(iter([*[503] * 50, 200]), policy)
    assert (len(endpoint.bodies), queue.published, queue.acknowledged) == (51, [], ["7"])
    assert open_envelope(PushRequest(endpoint.bodies[30], {})).attempt == 1  # nobody tells it


@given(
    data=st.binary(max_size=200),
    attributes=st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=50), max_size=5),
    attempt=st.integers(1, 100),
)
def test_the_envelope_is_one_that_functions_open(
    data: bytes, attributes: dict[str, str], attempt: int
) -> None:
    attributes = {name: value for name, value in attributes.items() if name[:6] != "axiom-"}
    message = Message("m", data, attributes, MESSAGE.published_at, ordering_key="key")
    opened = open_envelope(PushRequest(envelope(message, POLICY, attempt), {}))
    assert (opened.data, dict(opened.attributes), opened.attempt) == (data, attributes, attempt)
    assert (opened.message_id, opened.ordering_key) == ("m", "key")
