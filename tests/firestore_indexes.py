"""Which queries the composite indexes of infra/firestore/indexes.json can answer.

Google's emulator never asks for an index, and Firestore refuses a query that has none. So every
query that a test makes of a document store is held against the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.bootstrap import INDICES
from shared.ports import Filter

FILE = Path(__file__).resolve().parents[1] / "infra" / "firestore" / "indexes.json"

_RANGES = frozenset({"<", "<=", ">", ">="})
_ASCENDING, _DESCENDING = "ASCENDING", "DESCENDING"

# Field path and order.
Column = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Query:
    """The shape of one query as FirestoreDocumentStore makes it: its values do not matter."""

    collection: str
    equal: frozenset[str]
    tail: tuple[Column, ...]

    @classmethod
    def of(
        cls,
        collection: str,
        where: Sequence[Filter],
        order_by: str | None = None,
        descending: bool = False,
    ) -> Query:
        """Ordered by a field, then the key; what else is compared comes last."""
        order = _DESCENDING if descending else _ASCENDING
        ranges = sorted({one.field for one in where if one.operator in _RANGES})
        tail = [] if order_by is None else [(f"fields.{order_by}", order)]
        tail.append(("key", order))
        tail += [(f"fields.{name}", order) for name in ranges if name != order_by]
        equal = {f"fields.{one.field}" for one in where if one.operator not in _RANGES}
        return cls(collection, frozenset(equal), tuple(tail))

    @classmethod
    def of_count(cls, collection: str, where: Sequence[Filter]) -> Query | None:
        """A count goes by its range, newest first; without one no composite index is needed."""
        ranges = sorted({one.field for one in where if one.operator in _RANGES})
        if not ranges:
            return None
        return cls.of(collection, where, ranges[0], descending=True)

    @property
    def is_answered(self) -> bool:
        """True if an index answers it, or several that Firestore merges: of one order all."""
        if not self.equal:
            # Firestore has an index of each field alone by itself.
            return len(self.tail) == 1 or (self.collection, frozenset(), self.tail) in _indexes()
        found = frozenset[str]().union(
            *(
                equal
                for collection, equal, tail in _indexes()
                if collection == self.collection and tail == self.tail and equal <= self.equal
            )
        )
        return found == self.equal

    def __str__(self) -> str:
        columns = [*((name, _ASCENDING) for name in sorted(self.equal)), *self.tail]
        return f"{self.collection}: {', '.join(f'{name} {order}' for name, order in columns)}"


@cache
def _indexes() -> frozenset[tuple[str, frozenset[str], tuple[Column, ...]]]:
    """Each index, cut at each place where the fields that are equal may end."""
    found = set()
    for index in json.loads(FILE.read_text(encoding="utf-8"))["indexes"]:
        columns = [(field["fieldPath"], field["order"]) for field in index["fields"]]
        for cut in range(len(columns)):
            equal = frozenset(name for name, _ in columns[:cut])
            found.add((index["collectionGroup"], equal, tuple(columns[cut:])))
    return frozenset(found)


@contextmanager
def queries_noted(patch: pytest.MonkeyPatch) -> Iterator[set[Query]]:
    """The queries that are made meanwhile of collections whose fields are asked for.

    What a test asks for itself does not count.
    """
    noted: set[Query] = set()
    query, count = SqliteDocumentStore.query, SqliteDocumentStore.count

    def is_ours(collection: str) -> bool:
        caller = sys._getframe(2).f_globals["__name__"]
        return collection in INDICES and not str(caller).startswith("tests.")

    def noting_query(
        self: SqliteDocumentStore, collection: str, where: Sequence[Filter] = (), **named: Any
    ) -> Any:
        if is_ours(collection):
            order_by, descending = named.get("order_by"), named.get("descending", False)
            noted.add(Query.of(collection, where, order_by, descending))
        return query(self, collection, where, **named)

    def noting_count(
        self: SqliteDocumentStore, collection: str, where: Sequence[Filter] = ()
    ) -> int:
        counted = Query.of_count(collection, where)
        if counted is not None and is_ours(collection):
            noted.add(counted)
        return count(self, collection, where)

    patch.setattr(SqliteDocumentStore, "query", noting_query)
    patch.setattr(SqliteDocumentStore, "count", noting_count)
    yield noted
