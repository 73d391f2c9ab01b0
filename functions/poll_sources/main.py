"""Poll the sources that are due: called every second or so, by a timer.

Cloud Scheduler calls it over HTTP; the embedded mode calls it without.
"""

from __future__ import annotations

from functools import cache

from shared import bootstrap
from shared.pipeline.polling import Poller
from shared.pipeline.push import Pushed, PushResponse, tick


def poll_sources(request: Pushed) -> PushResponse:
    """Answer one call: 204, or 503 if the stores cannot be asked now. The next call goes on."""
    return tick(request, lambda: _poller().run(), bootstrap.from_environment())


@cache
def _poller() -> Poller:
    return Poller(bootstrap.from_environment())
