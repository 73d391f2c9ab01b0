"""Deliver one Instance to one destination: `delivery-requested` in."""

from __future__ import annotations

from shared import bootstrap
from shared.messages import DeliveryRequested, Stage, Topic
from shared.pipeline import deliver
from shared.pipeline.push import Pushed, PushResponse, Steps, answer_in_steps, to_the_end


def deliver_instance(request: Pushed) -> PushResponse:
    """Answer one push: 204 acknowledges, 5xx has it delivered again (at least once)."""
    return to_the_end(deliver_in_steps(request))


def deliver_in_steps(request: Pushed) -> Steps:
    """The same, for who makes durable what several Deliveries have written together."""
    ports = bootstrap.from_environment()  # built once for each process, on first use
    return answer_in_steps(
        request,
        DeliveryRequested,
        Stage.DELIVER,
        Topic.DELIVERY_REQUESTED,
        lambda message: deliver.steps(message, ports),
        ports,
    )
