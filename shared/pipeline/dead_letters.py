"""A message whose retries are spent becomes an entry of the exception log.

The embedded queue knows itself when they are. Pub/Sub counts attempts alone and then hands the
message over; it goes round again while the budget of the settings lasts, for a destination may be
dead for days.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from shared.errors import Category, MalformedMessageError, RetriesSpentError
from shared.messages import (
    CommitmentRequested,
    DeliveryRequested,
    ExceptionRaised,
    InstanceAccepted,
    InstanceReceived,
    JobRequested,
    Stage,
    StandardizationRequested,
    Topic,
    decode,
)
from shared.pipeline.envelope import ATTEMPT, LANE, TOPIC, PushedMessage, number
from shared.pipeline.exceptions import exception_from
from shared.pipeline.ports import Ports
from shared.ports import Outgoing

log = logging.getLogger(__name__)

# An attribute of ours: when a message that goes round was published at first.
FIRST_AT = "axiom-first-at"
# Pub/Sub's, on a message that it hands over.
_DELIVERY_COUNT = "CloudPubSubDeadLetterSourceDeliveryCount"
_PUBLISHED_AT = "CloudPubSubDeadLetterSourceTopicPublishTime"

STAGES: dict[str, tuple[Stage, type[Any]]] = {
    Topic.INSTANCE_RECEIVED: (Stage.VALIDATE, InstanceReceived),
    Topic.INSTANCE_ACCEPTED: (Stage.RULES, InstanceAccepted),
    Topic.STANDARDIZATION_REQUESTED: (Stage.STANDARDIZE, StandardizationRequested),
    Topic.DELIVERY_REQUESTED: (Stage.DELIVER, DeliveryRequested),
    Topic.COMMITMENT_REQUESTED: (Stage.COMMITMENT, CommitmentRequested),
    Topic.JOB_REQUESTED: (Stage.JOB, JobRequested),
}


def entry(
    topic: str, data: bytes, *, attempts: int, answer: str, words: str, lane: str, at: datetime
) -> ExceptionRaised:
    """The entry for a message of `topic` (one of STAGES), which was answered `answer` and `words`
    last. It holds the message itself, for a retry.
    """
    stage, kind = STAGES[topic]
    try:
        message: Any = decode(data, kind)
    except MalformedMessageError:
        message = None
    raised = exception_from(
        RetriesSpentError(attempts, answer),
        stage=stage,
        at=at,
        receipt=None
        if isinstance(message, CommitmentRequested | JobRequested | None)
        else message.receipt,
        destination=message.destination if isinstance(message, DeliveryRequested) else lane,
        attempts=attempts,
        retry_topic=topic,
        retry_message=data,
    )
    category = (
        Category.NETWORK if stage in (Stage.DELIVER, Stage.COMMITMENT) else Category.PROCESSING
    )
    return replace(raised, peer_message=words, category=category)


def take(pushed: PushedMessage, ports: Ports) -> None:
    """Send what Pub/Sub gave up round again while the budget lasts; record it then.

    Raises: MalformedMessageError for what is none of our messages; TransientError.
    """
    topic = pushed.attributes.get(TOPIC, "")
    if topic == Topic.EXCEPTION_RAISED:
        ports.exceptions.record(decode(pushed.data, ExceptionRaised))
        return
    if topic not in STAGES:
        raise MalformedMessageError("a dead letter of no topic of ours")
    before = pushed.attributes.get(ATTEMPT)
    attempts = (number(before) if before else 0) + number(pushed.attributes.get(_DELIVERY_COUNT))
    now = ports.clock.now()
    first_at = pushed.attributes.get(FIRST_AT) or pushed.attributes.get(_PUBLISHED_AT) or ""
    budget_s = ports.configuration.get().settings.retry_budget_s
    lane = pushed.attributes.get(LANE, "")
    if _began(first_at, now) + timedelta(seconds=budget_s) > now:
        again = {ATTEMPT: str(attempts), FIRST_AT: first_at}
        ports.bus.publish([Outgoing(topic, pushed.data, again, lane=lane)])
        log.info("tried again", extra={"topic": topic, "attempts": attempts})
        return
    ports.exceptions.record(
        entry(
            topic,
            pushed.data,
            attempts=attempts,
            answer="is in the function's log",
            words="",
            lane=lane,
            at=now,
        )
    )


def _began(text: str, now: datetime) -> datetime:
    """When it was published at first; long ago if nobody says: nothing goes round for ever."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=now.tzinfo)
    return found.replace(tzinfo=found.tzinfo or now.tzinfo)
