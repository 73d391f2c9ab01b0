"""Answers that are kept for a while, the most recently used ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from shared.adapters.crosswalk.rows import Keys, Outputs
from shared.config.crosswalks import CrosswalkCache
from shared.ports import Clock

_MISS_TTL_S: Final = 10.0


class AnswerCache:
    """Answers by key: outputs, or None where there is no row."""

    def __init__(self, settings: CrosswalkCache, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[Keys, tuple[float, Outputs | None]] = OrderedDict()

    def get(self, keys: Keys) -> tuple[bool, Outputs | None]:
        """Whether there is an answer that still counts, and the answer."""
        with self._lock:
            found = self._kept.get(keys)
            if found is None:
                return False, None
            until_s, outputs = found
            if self._clock.monotonic_s() >= until_s:
                del self._kept[keys]
                return False, None
            self._kept.move_to_end(keys)
            return True, outputs

    def put(self, keys: Keys, outputs: Outputs | None) -> None:
        """Keep one answer; the least recently used goes if there are too many."""
        ttl_s = self._settings.ttl_s
        if outputs is None:
            ttl_s = min(ttl_s, _MISS_TTL_S)
        if ttl_s <= 0:
            return
        with self._lock:
            self._kept[keys] = (self._clock.monotonic_s() + ttl_s, outputs)
            self._kept.move_to_end(keys)
            while len(self._kept) > self._settings.max_entries:
                self._kept.popitem(last=False)
