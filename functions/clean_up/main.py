"""Delete what is needed no more, and send what was audited to its repository, some of it at each
call; in the cloud tell how gateways on premises are: called every few seconds, by a timer.

Cloud Scheduler calls it over HTTP; the embedded mode calls it without.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from shared import bootstrap, exporting
from shared.environment import Environment, Platform
from shared.pipeline import edges
from shared.pipeline.push import Pushed, PushResponse, tick
from shared.pipeline.retention import Cleaner

if TYPE_CHECKING:
    from shared.pipeline.audit_forwarding import Forwarder

# How long a call works: Cloud Scheduler makes one a minute, the embedded mode one in a few seconds.
_FOR_S = {Platform.EMBEDDED: 2.0, Platform.CLOUD: 50.0}
# Side by side: each waits for Google's answers, a dozen for one Instance.
_AT_ONCE = {Platform.EMBEDDED: 1, Platform.CLOUD: 16}


def clean_up(request: Pushed) -> PushResponse:
    """Answer one call: 204, or 503 if the stores cannot be asked now. The next call goes on."""
    for_s = _FOR_S[Environment.read().platform]
    return tick(request, lambda: _work(for_s), bootstrap.from_environment())


def _work(for_s: float) -> None:
    forwarder = _forwarder()
    if forwarder is not None:
        forwarder.run(for_s=for_s / 2)
    if Environment.read().platform is Platform.CLOUD:
        ports = bootstrap.from_environment()
        edges.look_after(ports.documents, ports.clock)
    _cleaner().run(for_s=for_s)


@cache
def _forwarder() -> Forwarder | None:
    return exporting.audit_forwarder(bootstrap.from_environment())


@cache
def _cleaner() -> Cleaner:
    at_once = _AT_ONCE[Environment.read().platform]
    return Cleaner(bootstrap.from_environment(), at_once=at_once)
