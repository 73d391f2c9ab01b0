"""What a gateway on premises has received and the cloud has not: files, and messages about them."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from shared.adapters.embedded.message_bus import Leased, SqliteMessageBus
from shared.adapters.embedded.object_store import FolderObjectStore
from shared.errors import MalformedMessageError
from shared.messages import Topic
from shared.pipeline.retention import ORPHAN_AFTER
from shared.ports import Clock, Outgoing

log = logging.getLogger(__name__)

# Documents that the cloud is to have; of this machine alone, the cloud has no such topic.
DOCUMENT_KEPT = "document-kept"
MOVED = (Topic.INSTANCE_RECEIVED, Topic.EXCEPTION_RAISED, DOCUMENT_KEPT)

_RECEIVED = "received/"
_STAMP = re.compile(r"received/\d{8}/\d{2}/(\d{8}T\d{12})-[0-9a-f]{8}\.dcm")
# Looking for orphans reads the queue; one that is this deep is left for another day.
_DEEPEST_QUEUE = 10_000
# Measuring takes at most this part of the time.
_BUSY_PART = 0.02


class KeptDocument(Struct, frozen=True):
    """A document for the cloud. The first one of its key counts."""

    collection: str
    key: str
    data: Mapping[str, Any]

    @classmethod
    def decode(cls, data: bytes) -> KeptDocument:
        """Raises: MalformedMessageError."""
        try:
            found = json.loads(data)
            return cls(found["collection"], found["key"], found["data"])
        except (ValueError, KeyError, TypeError):
            raise MalformedMessageError("no document of ours") from None


class Depth(Struct, frozen=True):
    """What waits to be moved. `bytes` are those of all received files, unfinished ones aside."""

    messages: int
    oldest_s: float
    bytes: int


class Spool:
    """The spool. Every method raises StorageUnavailableError if its disk cannot be used."""

    def __init__(self, bus: SqliteMessageBus, objects: FolderObjectStore, clock: Clock) -> None:
        self.objects = objects
        self._bus, self._clock = bus, clock
        self._bytes, self._measure_at_s = 0, float("-inf")

    # ---- what reception asks

    def position(self) -> int:
        """A place in the queue: all that was received until now stands before it."""
        return self._bus.position()

    def has_left(self, position: int) -> bool:
        """Whether the cloud has all that was received before that place."""
        return self._bus.has_left(position, MOVED)

    def keep(self, collection: str, key: str, data: Mapping[str, Any]) -> None:
        """Have the cloud keep a document; it is durable here once this returns."""
        told = {"collection": collection, "key": key, "data": dict(data)}
        self._bus.publish([Outgoing(DOCUMENT_KEPT, json.dumps(told).encode())])

    # ---- what moves it

    def waiting(self, *, limit: int, after: int) -> list[Leased]:
        """What is to be moved, oldest first, from the id after `after` on."""
        return self._bus.in_order(MOVED, limit=limit, after=after)

    def wait(self, timeout_s: float) -> None:
        """Return when there is something new, or after so long."""
        self._bus.wait(MOVED, timeout_s)

    def moved(self, message_ids: Collection[int]) -> None:
        """The cloud has these."""
        self._bus.settle(acknowledged=message_ids)

    def forget_file(self, name: str) -> None:
        """The cloud has this file."""
        self.objects.delete(name)

    # ---- what looks after it

    def depth(self) -> Depth:
        """How much waits; the bytes are some minutes old where many files do."""
        depths = self._bus.depth()
        found = [depths[topic] for topic in MOVED if topic in depths]
        if self._clock.monotonic_s() >= self._measure_at_s:
            began_s = time.monotonic()
            self._bytes = self.objects.used_bytes(_RECEIVED)
            took_s = time.monotonic() - began_s
            self._measure_at_s = self._clock.monotonic_s() + took_s / _BUSY_PART
        return Depth(
            sum(one.messages for one in found),
            max((one.oldest_age_s for one in found), default=0.0),
            self._bytes,
        )

    def sweep(self) -> int:
        """Delete files that no message tells of and that are a day old: their senders were never
        told Success. How many they were.
        """
        if self.depth().messages > _DEEPEST_QUEUE:
            return 0
        old = [name for name in self.objects.list(_RECEIVED) if self._is_old(name)]
        if not old:
            return 0
        known = self._bus.mentioned(old, MOVED)
        orphans: Sequence[str] = [name for name in old if name not in known]
        for name in orphans:
            self.objects.delete(name)
            log.warning("deleted an orphan", extra={"object": name})
        return len(orphans)

    def _is_old(self, name: str) -> bool:
        found = _STAMP.fullmatch(name)
        if found is None:
            return False
        began = datetime.strptime(found[1], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
        return self._clock.now() - began > ORPHAN_AFTER
