"""Delete what is needed no more, send what was audited, watch gateways on premises: by a timer.

Cloud Scheduler calls it over HTTP; the embedded mode calls it without.
"""

from __future__ import annotations

from functools import cache

from shared import bootstrap, exporting
from shared.environment import Environment
from shared.pipeline.housekeeping import Housekeeping
from shared.pipeline.push import Pushed, PushResponse, tick


def clean_up(request: Pushed) -> PushResponse:
    """Answer one call: 204, or 503 if the stores cannot be asked now. The next call goes on."""
    return tick(request, lambda: _housekeeping().run(), bootstrap.from_environment())


@cache
def _housekeeping() -> Housekeeping:
    ports = bootstrap.from_environment()
    return Housekeeping(ports, exporting.audit_forwarder(ports), Environment.read().platform)
