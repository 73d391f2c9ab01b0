"""How often standardizers were asked and what came of it, counted without a hot document.

Each process counts for itself and writes, at most once a second and when it ends, documents of its
own. What was counted in the last second before a process is killed is lost, and nothing else.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.errors import AxiomError
from shared.pipeline.soon import WrittenSoon
from shared.ports import Clock, DocumentStore, Filter
from shared.times import timestamp

COUNTS: Final = "standardization-counts"
HITS: Final = "standardization-hits"
# Of a decision: an equal question had been answered before.
CACHED: Final = "cached"
_PAGE: Final = 500
_SEPARATOR: Final = "|"


class StandardizationCounts:
    """The counts of one process; `totals` and `hits` are of all."""

    def __init__(self, documents: DocumentStore, clock: Clock, *, write_after_s: float = 1) -> None:
        self._documents, self._clock = documents, clock
        self._process = secrets.token_hex(6)
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._counts: Counter[str] = Counter()
        self._hits: Counter[str] = Counter()
        self._dirty: set[str] = set()  # decisions whose hits are not written
        self._written = WrittenSoon("counts of standardizers", self.write, after_s=write_after_s)

    def count(self, *what: str, number: int = 1) -> None:
        """Count what happened, named by some words without a vertical bar."""
        with self._lock:
            self._counts[_SEPARATOR.join(what)] += number
        self._written.has_changed()

    def hit(self, decision: str) -> None:
        """Count that a decision was at hand."""
        with self._lock:
            self._hits[decision] += 1
            self._dirty.add(decision)
        self._written.has_changed()

    def write(self) -> None:
        """Write what was counted since. Raises: StorageUnavailableError, and it stays counted."""
        with self._writing:
            with self._lock:
                counts, dirty = dict(self._counts), {key: self._hits[key] for key in self._dirty}
                self._dirty.clear()
            at = timestamp(self._clock.now())
            try:
                self._documents.put(COUNTS, self._process, {"at": at, "counts": counts})
                for key, number in list(dirty.items()):
                    data = {"decision": key, "hits": number, "at": at}
                    self._documents.put(HITS, f"{key}-{self._process}", data)
                    del dirty[key]
            except AxiomError:
                with self._lock:
                    self._dirty.update(dirty)
                raise

    def totals(self) -> Mapping[tuple[str, ...], int]:
        """What all processes have written, by the words that `count` was told."""
        totals: Counter[tuple[str, ...]] = Counter()
        for data in self._all(COUNTS):
            for name, number in data["counts"].items():
                totals[tuple(name.split(_SEPARATOR))] += int(number)
        return totals

    def hits(self, decision: str) -> int:
        """How often that decision was at hand, in all processes."""
        return sum(int(one["hits"]) for one in self._all(HITS, Filter("decision", "==", decision)))

    def close(self) -> None:
        """Write what is left; never raises."""
        self._written.close()

    def _all(self, collection: str, *where: Filter) -> Iterator[Mapping[str, Any]]:
        cursor = None
        while True:
            page = self._documents.query(collection, where, limit=_PAGE, cursor=cursor)
            for document in page.documents:
                yield document.data
            cursor = page.cursor
            if cursor is None:
                return
