"""Whether Instances are let in now: watermarks that close and open by themselves, and rate limits.

A watermark closes above its limit and opens again only once it is well below, so that senders are
not let in and turned away by turns. What waits for a destination counts for none of them: one that
is dead for days stops nobody until the disk is full.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from shared.config.entities import Settings
from shared.errors import OverloadedError, RateLimitedError
from shared.messages import Source, Topic
from shared.ports import Backlog, Clock, ObjectStore, QueueGauge
from shared.rates import TokenBuckets

log = logging.getLogger(__name__)

# How old what the watermarks are judged by may be: one caller in so many seconds pays for it.
_SAMPLE_EVERY_S = 1.0
# Opens again at this part of a limit; for free disk, at the limit and this part of it more.
_OPENS_BELOW = 0.8
_OPENS_ABOVE = 1.1
_STAGE_TOPICS = (Topic.INSTANCE_RECEIVED, Topic.INSTANCE_ACCEPTED)


class Load(Struct, frozen=True):
    """What was measured."""

    free_bytes: int | None
    backlog: Backlog
    memory_bytes: int


class Admission:
    """Says who is let in; one for each process that receives, used by all its threads."""

    def __init__(
        self,
        objects: ObjectStore,
        queue: QueueGauge | None,
        clock: Clock,
        memory_bytes: Callable[[], int] | None = None,
    ) -> None:
        """Without a `queue` that can be asked, its age and depth are not looked at."""
        self._objects, self._queue, self._clock = objects, queue, clock
        self._memory_bytes = memory_bytes or resident_bytes
        self._lock = threading.Lock()
        self._sampled_at_s = float("-inf")
        self._closed: dict[str, str] = {}
        self._is_said_to_be_closed = False
        self._buckets = TokenBuckets(clock)

    def check(self, source: Source, settings: Settings, *, goes_on: bool = False) -> None:
        """Let one Instance of `source` in. `goes_on`: it is of a request that was let in already,
        which counts for its caller's rate but is not turned away in the middle for that.

        Raises: OverloadedError above a watermark; RateLimitedError; StorageUnavailableError.
        """
        words = "; ".join(self.closed(settings))
        self._say(words)
        if words:
            raise OverloadedError(words)
        if settings.rate_limit_per_s:
            rate, burst = settings.rate_limit_per_s, settings.rate_limit_burst
            wait_s = self._buckets.take(_caller(source), rate, burst, may_owe=goes_on)
            if wait_s:
                raise RateLimitedError(rate, retry_after_s=wait_s)

    def closed(self, settings: Settings) -> list[str]:
        """In words why nobody is let in, empty if everybody is; at most a second old."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            if now_s - self._sampled_at_s < _SAMPLE_EVERY_S:
                return list(self._closed.values())
            # Before the sample: the others go by the last one meanwhile.
            self._sampled_at_s = now_s
        load = self._load(settings)
        with self._lock:
            self._closed = _judged(load, settings, self._closed)
            return list(self._closed.values())

    def _say(self, words: str) -> None:
        """Once when it closes and once when it opens, not of every Instance."""
        if self._is_said_to_be_closed is bool(words):
            return
        with self._lock:
            is_news = self._is_said_to_be_closed is not bool(words)
            self._is_said_to_be_closed = bool(words)
        if is_news and words:
            log.warning("senders are turned away: %s", words)
        elif is_news:
            log.warning("senders are let in again")

    def _load(self, settings: Settings) -> Load:
        backlog = Backlog()
        if self._queue is not None and (settings.max_queue_age_s or settings.max_queue_messages):
            backlog = self._queue.backlog(_STAGE_TOPICS, at_most=settings.max_queue_messages + 1)
        return Load(self._objects.free_bytes(), backlog, self._memory_bytes())


def resident_bytes() -> int:
    """The memory that this process has in RAM; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _judged(load: Load, settings: Settings, closed: dict[str, str]) -> dict[str, str]:
    """The watermarks that are closed now, given those that were."""
    found: dict[str, str] = {}
    least = settings.min_free_bytes
    if load.free_bytes is not None and load.free_bytes < least * (
        _OPENS_ABOVE if "disk" in closed else 1
    ):
        found["disk"] = f"{load.free_bytes >> 20} MiB are free, {least >> 20} MiB are required"
    limits: tuple[tuple[str, float, float, str], ...] = (
        ("age", load.backlog.waiting_s, settings.max_queue_age_s, "the queue is {:.0f} s behind"),
        ("depth", load.backlog.messages, settings.max_queue_messages, "{:.0f} messages wait"),
        ("memory", load.memory_bytes, settings.max_memory_bytes, "{:.0f} bytes of memory are used"),
    )
    for name, value, limit, words in limits:
        if limit and value > limit * (_OPENS_BELOW if name in closed else 1):
            found[name] = f"{words.format(value)}, {limit:.0f} is the limit"
    return found


def _caller(source: Source) -> str:
    """Whose bucket it is: an API key's, or a calling AE's at its address."""
    if source.principal:
        return f"key {source.principal}"
    return f"{source.type} {source.calling_ae_title}@{source.peer_address}"
