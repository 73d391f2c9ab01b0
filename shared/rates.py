"""Token buckets: how often each of many callers may do something."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict

from shared.ports import Clock

# More callers than this at once, and those longest silent start anew with a full bucket.
MOST_CALLERS = 10_000


class TokenBuckets:
    """A bucket for each caller: full after a pause, refilled at the rate. Memory is bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()  # and as of when

    def take(self, caller: str, rate_per_s: float, burst: float, *, may_owe: bool = False) -> float:
        """Take one token; how many seconds until there is one, 0 if it was had.

        Who `may_owe` always gets it, and pays later.
        """
        now_s = self._clock.monotonic_s()
        with self._lock:
            left = self._left(caller, rate_per_s, burst, now_s)
            is_refused = left < 1 and not may_owe
            self._tokens[caller] = (left if is_refused else left - 1, now_s)
            if len(self._tokens) > MOST_CALLERS:
                self._tokens.popitem(last=False)
        return (1 - left) / rate_per_s if is_refused else 0.0

    def reserve(
        self,
        caller: str,
        rate_per_s: float,
        burst: float,
        amount: float = 1.0,
        *,
        at_most_s: float = math.inf,
    ) -> float:
        """Take `amount`, more than there is if need be; how many seconds to wait before it is used.

        Nothing is taken if that would be more than `at_most_s`. What is larger than a full bucket
        needs no more than that, and those who come after it pay for the rest.
        """
        now_s = self._clock.monotonic_s()
        with self._lock:
            left = self._left(caller, rate_per_s, burst, now_s)
            wait_s = max(0.0, (min(amount, burst) - left) / rate_per_s)
            self._tokens[caller] = (left if wait_s > at_most_s else left - amount, now_s)
        return wait_s

    def wait_s(self, caller: str, rate_per_s: float, burst: float) -> float:
        """How many seconds until there is a token; none is taken."""
        with self._lock:
            if caller not in self._tokens:
                return 0.0
            now_s = self._clock.monotonic_s()
            left = self._left(caller, rate_per_s, burst, now_s)
            self._tokens[caller] = (left, now_s)
        return max(0.0, (1 - left) / rate_per_s)

    def _left(self, caller: str, rate_per_s: float, burst: float, now_s: float) -> float:
        left, at_s = self._tokens.pop(caller, (burst, now_s))
        return min(burst, left + (now_s - at_s) * rate_per_s)
