"""Poll the sources that are due: called every second or so, by a timer. There is one of it, so it
also speaks for the whole system where metrics are exported.

Cloud Scheduler calls it over HTTP; the embedded mode calls it without.
"""

from __future__ import annotations

from functools import cache, partial

from shared import bootstrap, exporting
from shared.pipeline import readings
from shared.pipeline.polling import Poller
from shared.pipeline.push import Pushed, PushResponse, tick


def poll_sources(request: Pushed) -> PushResponse:
    """Answer one call: 204, or 503 if the stores cannot be asked now. The next call goes on."""
    return tick(request, lambda: _poller().run(), bootstrap.from_environment())


@cache
def _poller() -> Poller:
    ports = bootstrap.from_environment()
    exporting.speak_for(partial(readings.read, ports))
    return Poller(ports)
