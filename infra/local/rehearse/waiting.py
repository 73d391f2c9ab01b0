"""Waiting for what happens elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from infra.local.terminal import CommandFailedError

# A guard against hanging, not a claim: the machine may be busy with other things.
_WITHIN_S = 240.0


def wait(claim: Callable[[], bool], *, fails: bool = True, every_s: float = 0.02) -> None:
    """Until it is true. Raises: CommandFailedError if that takes for ever, unless not `fails`."""
    deadline_s = time.monotonic() + _WITHIN_S
    while not claim():
        if time.monotonic() > deadline_s:
            if fails:
                raise CommandFailedError("the rehearsal does not go on", code="not-in-time")
            return
        time.sleep(every_s)
