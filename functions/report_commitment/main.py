"""Report storage commitment to whoever asked for it: `commitment-requested` in."""

from __future__ import annotations

from shared import bootstrap
from shared.messages import CommitmentRequested, Stage, Topic
from shared.pipeline import report_commitment as stage
from shared.pipeline.push import Pushed, PushResponse, answer


def report_commitment(request: Pushed) -> PushResponse:
    """Answer one push: 204 acknowledges, 5xx and 425 have it delivered again (at least once)."""
    ports = bootstrap.from_environment()  # built once for each process, on first use
    return answer(
        request,
        CommitmentRequested,
        Stage.COMMITMENT,
        Topic.COMMITMENT_REQUESTED,
        lambda message: stage.run(message, ports),
        ports,
    )
