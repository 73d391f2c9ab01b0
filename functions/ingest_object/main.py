"""Take in one object of a landing bucket: a notification of Cloud Storage in.

It comes from Pub/Sub, as the bucket's own notification or as Eventarc's event.
"""

from __future__ import annotations

from shared import bootstrap
from shared.messages import Stage
from shared.pipeline import ingest
from shared.pipeline.push import Pushed, PushResponse, take


def ingest_object(request: Pushed) -> PushResponse:
    """Answer one push: 204 acknowledges, 5xx has it delivered again (at least once)."""
    ports = bootstrap.from_environment()  # built once for each process, on first use
    return take(
        request,
        Stage.RECEIVE,
        lambda pushed: ingest.take_object(pushed, ports, bootstrap.places()),
        ports,
    )
