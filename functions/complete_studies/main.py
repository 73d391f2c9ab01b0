"""See which Studies are complete, and have these delivered: called every second or so, by a timer.

Cloud Scheduler calls it over HTTP; the embedded mode calls it without.
"""

from __future__ import annotations

from functools import cache

from shared import bootstrap
from shared.pipeline.collect import Collector
from shared.pipeline.push import Pushed, PushResponse, tick


def complete_studies(request: Pushed) -> PushResponse:
    """Answer one call: 204, or 503 if the documents cannot be asked now. The next call goes on."""
    return tick(request, lambda: _collector().run(), bootstrap.from_environment())


@cache
def _collector() -> Collector:
    return Collector(bootstrap.from_environment())
