"""What a stage tells of a destination that would refuse any other Instance as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.adapters.destinations import outcomes
from shared.adapters.destinations.outcomes import Outcome, Verdict
from shared.messages import DeliveryRequested, Stage, Topic, encode
from shared.pipeline.push import PushRequest, answer
from tests.embedded_system import System


@pytest.mark.parametrize(
    ("outcome", "words"),
    [(Outcome.MISCONFIGURED, "pacs: Unauthorized: 401"), (Outcome.PERMANENT, "")],
)
def test_is_its_words_beside_the_acknowledgement(
    tmp_path: Path, outcome: Outcome, words: str
) -> None:
    system = System(tmp_path / "home")

    def refuse(_: DeliveryRequested) -> None:
        raise outcomes.failure(Verdict(outcome, "Unauthorized"), "pacs", "401")

    request = PushRequest(
        encode(DeliveryRequested(system.receive(), "pacs")), {"x-goog-pubsub-message-id": "1"}
    )
    answered = answer(
        request,
        DeliveryRequested,
        Stage.DELIVER,
        Topic.DELIVERY_REQUESTED,
        refuse,
        system.ports,
    )
    assert answered == (words, 204, {})
