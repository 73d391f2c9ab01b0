"""A message whose retries are spent becomes an entry of the exception log."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from shared.adapters.embedded.message_bus import Leased
from shared.errors import Category, MalformedMessageError, RetriesSpentError
from shared.messages import (
    CommitmentRequested,
    DeliveryRequested,
    InstanceAccepted,
    InstanceReceived,
    Stage,
    Topic,
    decode,
    encode,
)
from shared.pipeline.exceptions import exception_from
from shared.ports import Outgoing

_STAGES = {
    Topic.INSTANCE_RECEIVED: (Stage.VALIDATE, InstanceReceived),
    Topic.INSTANCE_ACCEPTED: (Stage.RULES, InstanceAccepted),
    Topic.DELIVERY_REQUESTED: (Stage.DELIVER, DeliveryRequested),
    Topic.COMMITMENT_REQUESTED: (Stage.COMMITMENT, CommitmentRequested),
}


def dead_letter(leased: Leased, status: int, words: str, at: datetime) -> Outgoing | None:
    """What to publish in place of `leased`, which was answered `status` and `words` last.

    It holds the message itself, for a retry. None for a message of the exception log and for an
    unknown topic: there is no better place for these, so they are tried for ever.
    """
    if leased.topic not in _STAGES:
        return None
    stage, kind = _STAGES[Topic(leased.topic)]
    try:
        message = decode(leased.data, kind)
    except MalformedMessageError:
        message = None
    raised = exception_from(
        RetriesSpentError(leased.attempt, status),
        stage=stage,
        at=at,
        receipt=None if isinstance(message, CommitmentRequested | None) else message.receipt,
        destination=message.destination if isinstance(message, DeliveryRequested) else leased.lane,
        attempts=leased.attempt,
        retry_topic=leased.topic,
        retry_message=leased.data,
    )
    category = (
        Category.NETWORK if stage in (Stage.DELIVER, Stage.COMMITMENT) else Category.PROCESSING
    )
    return Outgoing(
        Topic.EXCEPTION_RAISED, encode(replace(raised, peer_message=words, category=category))
    )
