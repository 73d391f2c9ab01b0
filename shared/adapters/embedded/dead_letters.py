"""A message whose retries are spent becomes an entry of the exception log."""

from __future__ import annotations

from datetime import datetime

from shared.adapters.embedded.message_bus import Leased
from shared.messages import Topic, encode
from shared.pipeline.dead_letters import STAGES, entry
from shared.ports import Outgoing

# A job that waits for something goes on whenever that comes.
_TRIED_FOR_EVER = frozenset({Topic.JOB_REQUESTED})


def dead_letter(leased: Leased, status: int, words: str, at: datetime) -> Outgoing | None:
    """What to publish in place of `leased`, which was answered `status` and `words` last.

    It holds the message itself, for a retry. None for a message of the exception log and for an
    unknown topic: there is no better place for these, so they are tried for ever.
    """
    if leased.topic not in STAGES or leased.topic in _TRIED_FOR_EVER:
        return None
    raised = entry(
        leased.topic,
        leased.data,
        attempts=leased.attempt,
        answer=str(status),
        words=words,
        lane=leased.lane,
        at=at,
    )
    return Outgoing(Topic.EXCEPTION_RAISED, encode(raised))
