"""Record one message that Pub/Sub gave up, or send it round again: any dead letter topic in."""

from __future__ import annotations

from shared import bootstrap
from shared.messages import Stage
from shared.pipeline import dead_letters
from shared.pipeline.push import Pushed, PushResponse, take


def record_dead_letter(request: Pushed) -> PushResponse:
    """Answer one push: 204 acknowledges, 5xx has it delivered again (at least once)."""
    ports = bootstrap.from_environment()  # built once for each process, on first use
    return take(request, Stage.RECORD, lambda pushed: dead_letters.take(pushed, ports), ports)
