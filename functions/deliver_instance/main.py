"""Deliver one Instance to one destination: `delivery-requested` in."""

from __future__ import annotations

from shared import bootstrap
from shared.messages import DeliveryRequested, Stage, Topic
from shared.pipeline import deliver
from shared.pipeline.push import Pushed, PushResponse, answer


def deliver_instance(request: Pushed) -> PushResponse:
    """Answer one push: 204 acknowledges, 5xx has it delivered again (at least once)."""
    ports = bootstrap.from_environment()  # built once for each process, on first use
    return answer(
        request,
        DeliveryRequested,
        Stage.DELIVER,
        Topic.DELIVERY_REQUESTED,
        lambda message: deliver.run(message, ports),
        ports,
    )
