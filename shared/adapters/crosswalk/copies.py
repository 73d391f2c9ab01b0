"""Copies of whole tables, which answer in place of their source and outlive it.

A copy is one immutable object; one document for each map names the newest and says how the last
attempt went. Whoever takes a copy, every process finds it by looking at that small document.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from shared import metrics
from shared.adapters.crosswalk.rows import Index, Keys, Outputs
from shared.config.crosswalks import AnyCrosswalkSource, CrosswalkMap
from shared.errors import (
    AxiomError,
    CrosswalkMisconfiguredError,
    DocumentChangedError,
    DocumentExistsError,
    ObjectMissingError,
)
from shared.ports import Clock, Document, DocumentStore, ObjectStore
from shared.times import timestamp

COLLECTION: Final = "crosswalk-copies"
MAX_ROWS: Final = 2_000_000
_LOOK_EVERY_S: Final = 1.0
_RETRY_S: Final = 60.0
_DECODER: Final = msgspec.json.Decoder(list[tuple[Keys, Outputs]])

# Everything that the source has for the map, read within so many seconds.
ReadAll = Callable[[CrosswalkMap, float], Iterable[tuple[Keys, Outputs]]]


class CopiedRows:
    """Rows for one map, from the newest copy of its table."""

    def __init__(
        self,
        entity: CrosswalkMap,
        source: AnyCrosswalkSource,
        read_all: ReadAll,
        objects: ObjectStore,
        documents: DocumentStore,
        clock: Clock,
    ) -> None:
        assert entity.sync is not None
        self._entity, self._sync, self._read_all = entity, entity.sync, read_all
        self._objects, self._documents, self._clock = objects, documents, clock
        self._made_of = fingerprint(entity, source)
        self._lock, self._first = threading.Lock(), threading.Lock()
        self._index = Index(entity.name)
        self._loaded = ""
        self._looked_at_s = float("-inf")

    def find(self, keys: Keys) -> Outputs | None:
        """As `Rows.find`. The first lookup of all has to wait for the first copy."""
        return self._current().find(keys)

    def sync(self) -> None:
        """Take a copy now. Raises: CrosswalkUnavailableError, CrosswalkMisconfiguredError."""
        try:
            name, rows = self._copied()
        except AxiomError as error:
            self._note({"failed_at": timestamp(self._clock.now()), "error": str(error)})
            self._count("failed")
            raise
        succeeded = {"synced_at": timestamp(self._clock.now()), "failed_at": None, "error": None}
        self._note({"object": name, "rows": rows, **succeeded})
        self._count("taken")
        with self._lock:
            self._looked_at_s = float("-inf")

    def due_in_s(self) -> float:
        """Seconds until the next copy is to be taken; 0 or less now. After a failure at most one
        minute passes.
        """
        known = self._known()
        if known is None or not self._is_ours(known):
            return 0.0
        interval_s = self._sync.interval_s
        failed_at = known.data.get("failed_at")
        if failed_at:
            interval_s = min(interval_s, _RETRY_S)
        last = datetime.fromisoformat(failed_at or known.data["synced_at"])
        return (last - self._clock.now()).total_seconds() + interval_s

    def _current(self) -> Index:
        with self._lock:
            now_s = self._clock.monotonic_s()
            if self._loaded and now_s - self._looked_at_s < _LOOK_EVERY_S:
                return self._index
            loaded = self._load_newest()
        if not loaded:
            loaded = self._first_copy()
        if not loaded:
            raise CrosswalkMisconfiguredError(self._entity.name, "its configuration is changing")
        return self._index

    def _first_copy(self) -> bool:
        with self._first:
            with self._lock:
                if self._load_newest():  # somebody took it while we waited
                    return True
            self.sync()
            with self._lock:
                return self._load_newest()

    def _load_newest(self) -> bool:
        """Have the newest copy in memory. False if there is none of this map as it is now."""
        for _ in range(3):  # the object may be gone when another process just took a newer copy
            known = self._known()
            if known is None or not self._is_ours(known) or "object" not in known.data:
                return False
            name = known.data["object"]
            if name != self._loaded:
                try:
                    with self._objects.open(name) as reader:
                        rows = _DECODER.decode(reader.read_at(0, reader.size))
                except ObjectMissingError:
                    continue
                self._index, self._loaded = Index(self._entity.name, rows), name
            self._looked_at_s = self._clock.monotonic_s()
            return True
        return False

    def _copied(self) -> tuple[str, int]:
        rows = []
        for row in self._read_all(self._entity, self._sync.timeout_s):
            rows.append(row)
            if len(rows) > MAX_ROWS:
                raise CrosswalkMisconfiguredError(
                    self._entity.name, f"the table has more than {MAX_ROWS} rows"
                )
        name = f"crosswalks/{self._entity.name}/{secrets.token_hex(8)}.json"
        with self._objects.create(name) as writer:
            writer.write(msgspec.json.encode(rows))
            writer.commit()
        return name, len(rows)

    def _known(self) -> Document | None:
        return self._documents.get(COLLECTION, self._entity.name)

    def _is_ours(self, known: Document) -> bool:
        return bool(known.data.get("made_of") == self._made_of)

    def _count(self, outcome: str) -> None:
        labels = self._entity.name, self._entity.source, outcome
        metrics.PROCESS.count(metrics.CROSSWALK_SYNCS, *labels)

    def _note(self, news: Mapping[str, Any]) -> None:
        """Change the map's document; somebody else's change meanwhile starts it anew.

        A copy that is not named any more is deleted: the one before, or one of the map as it was.
        """
        key = self._entity.name
        while True:
            known = self._known()
            kept = known.data if known is not None and self._is_ours(known) else {}
            data = {**kept, **news, "made_of": self._made_of}
            try:
                if known is None:
                    self._documents.create(COLLECTION, key, data)
                else:
                    self._documents.replace(COLLECTION, key, data, known.version)
            except (DocumentExistsError, DocumentChangedError):
                continue
            before = known.data.get("object") if known is not None else None
            if before and before != data.get("object"):
                self._objects.delete(before)
            return


def fingerprint(entity: CrosswalkMap, source: AnyCrosswalkSource) -> str:
    """Changes whenever a copy that was taken before no longer says what the map means."""
    columns = [output.column for output in entity.outputs]
    keys = [(match.column, match.type) for match in entity.match]
    where = source.model_dump_json(exclude={"statement_timeout_s", "enabled", "credentials"})
    text = msgspec.json.encode([where, entity.table, keys, columns])
    return hashlib.sha256(text).hexdigest()
