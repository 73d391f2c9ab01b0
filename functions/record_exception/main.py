"""Write one entry of the exception log: `exception-raised` in."""

from __future__ import annotations

from shared import bootstrap
from shared.messages import ExceptionRaised, Stage, Topic
from shared.pipeline.push import Pushed, PushResponse, answer


def record_exception(request: Pushed) -> PushResponse:
    """Answer one push: 204 acknowledges, 5xx has it delivered again (at least once)."""
    ports = bootstrap.from_environment()  # built once for each process, on first use
    return answer(
        request,
        ExceptionRaised,
        Stage.RECORD,
        Topic.EXCEPTION_RAISED,
        ports.exceptions.record,
        ports,
    )
