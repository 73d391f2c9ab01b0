"""Find standard terms for one Instance: `standardization-requested` in, `instance-accepted` out."""

from __future__ import annotations

from shared import bootstrap
from shared.messages import Stage, StandardizationRequested, Topic
from shared.pipeline import standardize
from shared.pipeline.push import Pushed, PushResponse, answer


def standardize_attributes(request: Pushed) -> PushResponse:
    """Answer one push: 204 acknowledges, 5xx has it delivered again (at least once)."""
    ports = bootstrap.from_environment()  # built once for each process, on first use
    return answer(
        request,
        StandardizationRequested,
        Stage.STANDARDIZE,
        Topic.STANDARDIZATION_REQUESTED,
        lambda message: standardize.run(message, ports),
        ports,
    )
