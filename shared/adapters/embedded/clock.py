"""The machine's own clock, and one that is set wrong again and again, as tests want it."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

VARIABLE = "AXIOM_CLOCK_JUMPS"
JUMP_EVERY_S = 15.0


class SystemClock:
    """Clock of both modes."""

    def now(self) -> datetime:
        """The wall clock, timezone-aware UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary point that never run backwards."""
        return time.monotonic()


class JumpingClock(SystemClock):
    """Its wall clock is set anew every 15 s, up to `up_to_s` seconds too early or too late.

    All processes of the machine see the same, as they do where somebody really sets it.
    """

    def __init__(self, up_to_s: float) -> None:
        self._up_to_s = up_to_s

    def now(self) -> datetime:
        """The time with what it is off by."""
        which = int(self.monotonic_s() // JUMP_EVERY_S)
        off_s = random.Random(which).uniform(-self._up_to_s, self._up_to_s)  # noqa: S311
        return super().now() + timedelta(seconds=off_s)


def system_clock(environment: Mapping[str, str]) -> SystemClock:
    """The machine's clock; with `AXIOM_CLOCK_JUMPS=21600` one that jumps by up to so many seconds.

    Raises: ValueError if that is no number.
    """
    jumps = environment.get(VARIABLE, "")
    return JumpingClock(float(jumps)) if jumps else SystemClock()
