"""Documents as JSON in SQLite: a table for each collection."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from threading import local
from typing import Any

import msgspec

from shared.adapters.embedded.database import Database
from shared.adapters.embedded.deferral import Change, Deferral
from shared.adapters.queries import (
    check_collection,
    check_field,
    check_filter,
    close_cursor,
    cursor_mark,
    open_cursor,
)
from shared.errors import AxiomError, DocumentChangedError, DocumentExistsError
from shared.ports import Document, Filter, Page, Put

# The types that json_type() gives a value that compares with one of these.
_JSON_TYPES: Mapping[type, tuple[str, ...]] = {
    str: ("text",),
    int: ("integer", "real"),
    float: ("integer", "real"),
    bool: ("true", "false"),
    type(None): ("null",),
}

_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))

# A claim in SQL and the values of its question marks.
_Claim = tuple[str, list[Any]]


class SqliteDocumentStore:
    """DocumentStore of the embedded mode, for any number of processes on one machine.

    `indices` names the fields that a collection is asked for, singly or as ("filtered by", "ordered
    by"); without an index a query reads the whole collection. A version is random, so that a
    document that was deleted and created again never has an old one.

    Values compare with values of their own JSON type alone: 1 is 1.0, but not true and not "1".
    Text that holds U+0000 is kept whole, but SQLite compares only what stands before that.
    In an order, null comes first, then false and true with the numbers 0 and 1, then text.
    """

    def __init__(
        self, path: Path, indices: Mapping[str, Sequence[str | Sequence[str]]] | None = None
    ) -> None:
        schema = []
        for collection, indexed in (indices or {}).items():
            schema.append(_create_table(collection))
            for fields in indexed:
                names = [fields] if isinstance(fields, str) else fields
                schema.append(_create_index(collection, names))
        self._database = Database(path, schema)
        self._tables: set[str] = set()  # those known to exist
        self._thread = local()

    def get(self, collection: str, key: str) -> Document | None:
        """The document as it is now; None if there is none."""
        table = _table(collection)
        with self._reading() as connection:
            if not self._has_table(connection, collection):
                return None
            row = connection.execute(
                f"SELECT key, data, version FROM {table} WHERE key = ?",  # noqa: S608
                (key,),
            ).fetchone()
        return _document(*row) if row else None

    def create(
        self, collection: str, key: str, data: Mapping[str, Any], *, also: Sequence[Put] = ()
    ) -> Document:
        """Raises: DocumentExistsError; StorageUnavailableError."""
        table, text, version = _table(collection), _encode(data), _new_version()

        def insert(connection: sqlite3.Connection) -> None:
            self._make_table(connection, collection)
            if not connection.execute(
                f"INSERT INTO {table} (key, data, version) VALUES (?, ?, ?)"  # noqa: S608
                " ON CONFLICT DO NOTHING",
                (key, text, version),
            ).rowcount:
                raise DocumentExistsError(collection, key)
            put_all(connection)

        put_all = self._putting(also)
        self._write(insert)
        return _document(key, text, version)

    def replace(
        self,
        collection: str,
        key: str,
        data: Mapping[str, Any],
        version: str,
        *,
        also: Sequence[Put] = (),
    ) -> Document:
        """Compare and set. Raises: DocumentChangedError; StorageUnavailableError."""
        table, text, new_version = _table(collection), _encode(data), _new_version()

        def update(connection: sqlite3.Connection) -> None:
            if (
                not self._has_table(connection, collection)
                or not connection.execute(
                    f"UPDATE {table} SET data = ?, version = ?"  # noqa: S608
                    " WHERE key = ? AND version = ?",
                    (text, new_version, key, version),
                ).rowcount
            ):
                raise DocumentChangedError(collection, key)
            put_all(connection)

        put_all = self._putting(also)
        self._write(update)
        return _document(key, text, new_version)

    def put(self, collection: str, key: str, data: Mapping[str, Any]) -> Document:
        """Create or overwrite. Raises: StorageUnavailableError."""
        text, version = _encode(data), _new_version()
        self._write(lambda connection: self._upsert(connection, collection, key, text, version))
        return _document(key, text, version)

    def delete(self, collection: str, key: str, version: str | None = None) -> None:
        """Raises: DocumentChangedError if `version` is not the stored one."""
        table = _table(collection)

        def remove(connection: sqlite3.Connection) -> None:
            deleted = 0
            if self._has_table(connection, collection):
                deleted = connection.execute(
                    f"DELETE FROM {table} WHERE key = ? AND version = coalesce(?, version)",  # noqa: S608
                    (key, version),
                ).rowcount
            if version is not None and not deleted:
                raise DocumentChangedError(collection, key)

        self._write(remove)

    def query(
        self,
        collection: str,
        where: Sequence[Filter] = (),
        *,
        order_by: str | None = None,
        descending: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """One page. The key's order turns round with the field's.

        Raises: ValueError for a cursor of another query, a field or a filter that cannot be one.
        """
        if limit < 1:
            raise ValueError("a page has at least one document")
        mark = partial(cursor_mark, collection, where, order_by, descending)
        after = open_cursor(cursor, mark()) if cursor is not None else None
        claims = [_claim(filter_) for filter_ in where]
        # One more than wanted tells whether the page is the last.
        statements = list(_statements(collection, claims, order_by, descending, after))
        rows: list[tuple[str, str, str, Any]] = []
        with self._reading() as connection:
            if self._has_table(connection, collection):
                for statement, values in statements:
                    missing = limit + 1 - len(rows)
                    if missing:
                        rows += connection.execute(statement, [*values, missing]).fetchall()
        documents = [_document(key, data, version) for key, data, version, _ in rows[:limit]]
        if len(rows) <= limit:
            return Page(documents, None)
        key, _, _, value = rows[limit - 1]
        return Page(documents, close_cursor(mark(), value, key))

    def count(self, collection: str, where: Sequence[Filter] = ()) -> int:
        """How many documents fit all of `where`."""
        table, claims = _table(collection), [_claim(filter_) for filter_ in where]
        text, values = _all_of(claims)
        with self._reading() as connection:
            if not self._has_table(connection, collection):
                return 0
            (number,) = connection.execute(
                f"SELECT count(*) FROM {table} WHERE {text}",  # noqa: S608
                values,
            ).fetchone()
        return int(number)

    @contextmanager
    def deferring(self, deferral: Deferral) -> Iterator[None]:
        """What this thread writes in the block is kept back there."""
        self._thread.deferral = deferral
        try:
            yield
        finally:
            self._thread.deferral = None

    def commit_each(self, kept: Sequence[Sequence[Change]]) -> list[AxiomError | None]:
        """Commit what was kept back, of each Deferral all or nothing, in one transaction.

        Says of each which document was not as it was to be. Raises: StorageUnavailableError.
        """
        return self._database.write_each([partial(_make_all, changes) for changes in kept])

    def close(self) -> None:
        """Close the file's connections; a later call opens them again."""
        self._database.close()

    def _write(self, change: Change) -> None:
        deferral: Deferral | None = getattr(self._thread, "deferral", None)
        if deferral is None:
            self._database.write(change)
        else:
            deferral.change(change)

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        deferral: Deferral | None = getattr(self._thread, "deferral", None)
        if deferral is not None and (deferral.changes or deferral.outgoing):
            deferral.commit()
        return self._database.reading()

    def _putting(self, puts: Sequence[Put]) -> Callable[[sqlite3.Connection], None]:
        """Writes them in a transaction of another. Raises, now: TypeError, ValueError."""
        encoded = [(put.collection, put.key, _encode(put.data), _new_version()) for put in puts]

        def put_all(connection: sqlite3.Connection) -> None:
            for values in encoded:
                self._upsert(connection, *values)

        return put_all

    def _upsert(
        self, connection: sqlite3.Connection, collection: str, key: str, text: str, version: str
    ) -> None:
        self._make_table(connection, collection)
        connection.execute(
            f"INSERT INTO {_table(collection)} (key, data, version) VALUES (?, ?, ?)"  # noqa: S608
            " ON CONFLICT (key) DO UPDATE"
            " SET data = excluded.data, version = excluded.version",
            (key, text, version),
        )

    def _has_table(self, connection: sqlite3.Connection, collection: str) -> bool:
        """Tables are made on the first write, maybe by another process, and never dropped."""
        if collection in self._tables:
            return True
        found = connection.execute(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (collection,)
        ).fetchone()
        # A table that a transaction has just made is gone again if that is rolled back.
        if found and not connection.in_transaction:
            self._tables.add(collection)
        return found is not None

    def _make_table(self, connection: sqlite3.Connection, collection: str) -> None:
        if collection not in self._tables:
            connection.execute(_create_table(collection))


def _make_all(changes: Sequence[Change], connection: sqlite3.Connection) -> None:
    for change in changes:
        change(connection)


def _create_table(collection: str) -> str:
    return (
        f"CREATE TABLE IF NOT EXISTS {_table(collection)}"
        " (key TEXT PRIMARY KEY NOT NULL, data TEXT NOT NULL, version TEXT NOT NULL)"
    )


def _create_index(collection: str, fields: Sequence[str]) -> str:
    columns = ", ".join(map(_value, fields))
    return (
        f'CREATE INDEX IF NOT EXISTS "{collection}.{".".join(fields)}"'
        f" ON {_table(collection)} ({columns}, key)"
    )


def _table(collection: str) -> str:
    """The collection's name, safe within SQL. Raises: ValueError."""
    check_collection(collection)
    return f'"{collection}"'


def _value(field: str) -> str:
    """SQL for a field's value; the same text in indices and queries, or no index would fit."""
    return f"json_extract(data, '{_path(field)}')"


def _type(field: str) -> str:
    return f"json_type(data, '{_path(field)}')"


def _path(field: str) -> str:
    check_field(field)
    return f'$."{field}"'


def _claim(filter_: Filter) -> _Claim:
    """A filter as SQL. Raises: ValueError."""
    field, operator, value = filter_.field, filter_.operator, filter_.value
    check_filter(filter_)
    if operator != "in":
        return _comparison(field, operator, value)
    parts = [_comparison(field, "==", one) for one in value]
    return (
        " OR ".join(f"({text})" for text, _ in parts) or "FALSE",
        [one for _, values in parts for one in values],
    )


def _comparison(field: str, operator: str, value: Any) -> _Claim:
    types = _JSON_TYPES[bool if isinstance(value, bool) else _plain_type(value)]
    of_type = f"{_type(field)} IN ({', '.join(repr(name) for name in types)})"
    if value is None:
        return f"{_value(field)} IS NULL AND {of_type}", []
    return f"{_value(field)} {operator} ? AND {of_type}", [value]


def _plain_type(value: Any) -> type:
    """The type for `_JSON_TYPES`: a StrEnum is a str."""
    return next((base for base in type(value).__mro__ if base in _JSON_TYPES), type(value))


def _all_of(claims: Sequence[_Claim]) -> _Claim:
    return (
        " AND ".join(f"({text})" for text, _ in claims) or "TRUE",
        [value for _, values in claims for value in values],
    )


def _statements(
    collection: str,
    claims: Sequence[_Claim],
    order_by: str | None,
    descending: bool,
    after: tuple[Any, str] | None,
) -> Iterator[_Claim]:
    """The SELECTs that give the page one after the other; each lacks only its LIMIT's value.

    Documents whose field is null have a SELECT of their own: comparing with NULL is never true in
    SQL, and an OR that mended that would keep SQLite from seeking to the cursor in an index.
    """
    way, beyond = ("DESC", "<") if descending else ("ASC", ">")

    def select(value: str, order: str, own: Sequence[_Claim]) -> _Claim:
        text, values = _all_of([*claims, *own])
        return (
            f"SELECT key, data, version, {value} FROM {_table(collection)}"  # noqa: S608
            f" WHERE {text} ORDER BY {order} LIMIT ?",
            values,
        )

    def by_key(own: Sequence[_Claim], seek: str | None) -> _Claim:
        sought: list[_Claim] = [] if seek is None else [(f"key {beyond} ?", [seek])]
        return select("NULL", f"key {way}", [*own, *sought])

    if order_by is None:
        yield by_key([], after[1] if after else None)
        return
    value, is_null = _value(order_by), _comparison(order_by, "==", None)
    # The cursor is at the start, among the nulls, or among the values.
    if after is None:
        nulls = by_key([is_null], None)
        valued = select(value, f"{value} {way}, key {way}", [(f"{value} IS NOT NULL", [])])
        yield from (valued, nulls) if descending else (nulls, valued)
    elif after[0] is None:
        yield by_key([is_null], after[1])
        if not descending:
            yield select(value, f"{value} {way}, key {way}", [(f"{value} IS NOT NULL", [])])
    else:
        yield select(
            value, f"{value} {way}, key {way}", [(f"({value}, key) {beyond} (?, ?)", [*after])]
        )
        if descending:
            yield by_key([is_null], None)


def _encode(data: Mapping[str, Any]) -> str:
    """Raises: TypeError or ValueError for what is not JSON."""
    return _ENCODER.encode(dict(data))


def _document(key: str, data: str, version: str) -> Document:
    # Decoded anew, so that nobody's change to a dict changes a document that was read.
    try:
        return Document(key, msgspec.json.decode(data), version)
    except msgspec.DecodeError:
        # It is faster, and does not take all that Python writes: half of a surrogate pair.
        return Document(key, json.loads(data), version)


def _new_version() -> str:
    return os.urandom(8).hex()
