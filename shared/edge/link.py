"""Whether the link to the cloud is up, as those find who use it, and when to try again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import datetime

from shared.ports import Clock

# After so many failures in a row it is down: one tries at a time until it works again.
_IS_DOWN_AFTER = 3
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0


class Link:
    """What the uploads found. Thread-safe."""

    def __init__(self, clock: Clock, jitter: Callable[[], float] = random.random) -> None:
        self._clock, self._jitter = clock, jitter
        self._lock = threading.Lock()
        self._failures = 0
        self._try_at_s = float("-inf")
        self._since: datetime | None = None
        self._words = ""

    def worked(self) -> None:
        """Something went over it."""
        with self._lock:
            self._failures, self._since, self._words = 0, None, ""
            self._try_at_s = float("-inf")

    def failed(self, words: str) -> None:
        """Something did not; the next try waits, longer each time."""
        with self._lock:
            self._failures += 1
            self._since = self._since or self._clock.now()
            self._words = words
            longest_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 16))
            # At least half of it, so that many gateways do not come back together, nor at once.
            self._try_at_s = self._clock.monotonic_s() + longest_s * (0.5 + self._jitter() / 2)

    @property
    def is_down(self) -> bool:
        """True while all that was tried lately failed."""
        with self._lock:
            return self._failures >= _IS_DOWN_AFTER

    @property
    def since(self) -> datetime | None:
        """Since when nothing works; None if the last thing did."""
        with self._lock:
            return self._since

    @property
    def words(self) -> str:
        """Why the last try failed; "" if it did not."""
        with self._lock:
            return self._words

    def wait_s(self) -> float:
        """Seconds until something may be tried again; 0 if it may now."""
        with self._lock:
            return max(0.0, self._try_at_s - self._clock.monotonic_s())
