"""Work on one job: `job-requested` in."""

from __future__ import annotations

from shared import bootstrap
from shared.messages import JobRequested, Stage, Topic
from shared.pipeline import jobs
from shared.pipeline.push import Pushed, PushResponse, answer


def run_job(request: Pushed) -> PushResponse:
    """Answer one push: 204 acknowledges, 5xx has it delivered again (at least once)."""
    ports = bootstrap.from_environment()  # built once for each process, on first use
    return answer(
        request,
        JobRequested,
        Stage.JOB,
        Topic.JOB_REQUESTED,
        lambda message: jobs.run(message, ports),
        ports,
    )
