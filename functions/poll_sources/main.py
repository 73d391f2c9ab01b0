"""Poll the sources that are due: called every second or so, by a timer.

Cloud Scheduler calls it over HTTP; the embedded mode calls it without.
"""

from __future__ import annotations

from functools import cache

from shared import bootstrap
from shared.errors import TransientError
from shared.pipeline.polling import Poller
from shared.pipeline.push import Pushed, PushResponse


def poll_sources(request: Pushed) -> PushResponse:
    """Answer one call: 204, or 503 if the stores cannot be asked now. The next call goes on."""
    try:
        _poller().run()
    except TransientError as error:
        return str(error), 503, {}
    return "", 204, {}


@cache
def _poller() -> Poller:
    return Poller(bootstrap.from_environment())
