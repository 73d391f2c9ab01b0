"""Which Studies a process has met of late, so that new ones can be counted."""

from __future__ import annotations

import threading
from collections import OrderedDict

_FOR_S = 3600.0
_MOST = 20_000


class RecentStudies:
    """Studies by UID, the longest unmet forgotten first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._met_s: OrderedDict[tuple[str, str], float] = OrderedDict()

    def is_new(self, source: str, study_instance_uid: str, now_s: float) -> bool:
        """Whether nothing of the Study came from the source for an hour; it has come now."""
        key = source, study_instance_uid
        with self._lock:
            before_s = self._met_s.pop(key, None)
            self._met_s[key] = now_s
            if len(self._met_s) > _MOST:
                self._met_s.popitem(last=False)
        return before_s is None or now_s - before_s > _FOR_S
