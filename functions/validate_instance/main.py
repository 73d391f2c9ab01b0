"""Validate one received Instance: `instance-received` in, `instance-accepted` out."""

from __future__ import annotations

from shared import bootstrap
from shared.messages import InstanceReceived, Stage, Topic
from shared.pipeline import validate
from shared.pipeline.push import Pushed, PushResponse, answer


def validate_instance(request: Pushed) -> PushResponse:
    """Answer one push: 204 acknowledges, 5xx has it delivered again (at least once)."""
    ports = bootstrap.from_environment()  # built once for each process, on first use
    return answer(
        request,
        InstanceReceived,
        Stage.VALIDATE,
        Topic.INSTANCE_RECEIVED,
        lambda message: validate.run(message, ports),
        ports,
    )
