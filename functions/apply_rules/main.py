"""Apply the rules to one Instance: `instance-accepted` in, `delivery-requested` messages out."""

from __future__ import annotations

from shared import bootstrap
from shared.messages import InstanceAccepted, Stage, Topic
from shared.pipeline import rules
from shared.pipeline.push import Pushed, PushResponse, answer


def apply_rules(request: Pushed) -> PushResponse:
    """Answer one push: 204 acknowledges, 5xx has it delivered again (at least once)."""
    ports = bootstrap.from_environment()  # built once for each process, on first use
    return answer(
        request,
        InstanceAccepted,
        Stage.RULES,
        Topic.INSTANCE_ACCEPTED,
        lambda message: rules.run(message, ports),
        ports,
    )
