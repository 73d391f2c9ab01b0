"""Take in one Instance that others stored in a DICOM store: a notification of the store in."""

from __future__ import annotations

from shared import bootstrap
from shared.messages import Stage
from shared.pipeline import ingest
from shared.pipeline.push import Pushed, PushResponse, take


def ingest_store_instance(request: Pushed) -> PushResponse:
    """Answer one push: 204 acknowledges, 5xx and 425 have it delivered again (at least once)."""
    ports = bootstrap.from_environment()  # built once for each process, on first use
    return take(
        request,
        Stage.RECEIVE,
        lambda pushed: ingest.take_stored(pushed, ports, bootstrap.places()),
        ports,
    )
