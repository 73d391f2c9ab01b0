"""Delete what is needed no more, some of it at each call: called every few seconds, by a timer.

Cloud Scheduler calls it over HTTP; the embedded mode calls it without.
"""

from __future__ import annotations

from functools import cache

from shared import bootstrap
from shared.pipeline.push import Pushed, PushResponse, tick
from shared.pipeline.retention import Cleaner


def clean_up(request: Pushed) -> PushResponse:
    """Answer one call: 204, or 503 if the stores cannot be asked now. The next call goes on."""
    return tick(request, lambda: _cleaner().run(), bootstrap.from_environment())


@cache
def _cleaner() -> Cleaner:
    return Cleaner(bootstrap.from_environment())
