"""The `delivery` process: one lane for each destination, none of which waits for another."""

from __future__ import annotations

from functions.deliver_instance.main import deliver_in_steps
from functions.report_commitment.main import report_commitment
from infra.local.work import run_handlers
from shared.messages import Topic


def main() -> None:
    """Deliver until SIGTERM or SIGINT."""
    run_handlers(
        "delivery",
        {
            Topic.DELIVERY_REQUESTED: deliver_in_steps,
            Topic.COMMITMENT_REQUESTED: report_commitment,
        },
        deferred=[Topic.DELIVERY_REQUESTED],
    )
