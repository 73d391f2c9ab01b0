"""How fast bytes may go over the link, all uploads together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from shared.ports import Clock


class Pace:
    """Has whoever sends wait its turn. Thread-safe."""

    def __init__(
        self, bytes_per_s: int, clock: Clock, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """0 for as fast as it goes."""
        self._bytes_per_s, self._clock, self._sleep = bytes_per_s, clock, sleep
        self._lock = threading.Lock()
        self._free_at_s = float("-inf")

    def take(self, size: int) -> None:
        """Return once so many bytes may be sent."""
        if not self._bytes_per_s:
            return
        with self._lock:
            now_s = self._clock.monotonic_s()
            begins_s = max(now_s, self._free_at_s)
            self._free_at_s = begins_s + size / self._bytes_per_s
        if begins_s > now_s:
            self._sleep(begins_s - now_s)
