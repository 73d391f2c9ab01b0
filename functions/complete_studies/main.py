"""See which Studies are complete, and have these delivered: called every second or so, by a timer.

Cloud Scheduler calls it over HTTP; the embedded mode calls it without.
"""

from __future__ import annotations

from functools import cache

from shared import bootstrap
from shared.errors import TransientError
from shared.pipeline.collect import Collector
from shared.pipeline.push import Pushed, PushResponse


def complete_studies(request: Pushed) -> PushResponse:
    """Answer one call: 204, or 503 if the documents cannot be asked now. The next call goes on."""
    try:
        _collector().run()
    except TransientError as error:
        return str(error), 503, {}
    return "", 204, {}


@cache
def _collector() -> Collector:
    return Collector(bootstrap.from_environment())
