"""Documents in Firestore (Native mode)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from google.api_core import exceptions as google_errors
from google.api_core.datetime_helpers import DatetimeWithNanoseconds
from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter, Or
from google.cloud.firestore_v1.field_path import FieldPath

from shared.adapters.cloud.failures import told_as_ours
from shared.adapters.queries import (
    check_collection,
    check_field,
    check_filter,
    close_cursor,
    cursor_mark,
    is_comparable,
    is_field,
    open_cursor,
)
from shared.errors import DocumentChangedError, DocumentExistsError, StorageUnavailableError
from shared.ports import Document, Filter, Page, Put

TERRAFORM_ADDRESS = "module.firestore.google_firestore_database.this"
INDEX_ADDRESS = "module.firestore.google_firestore_index.this"

# Of each Firestore document: the JSON as it is, which no index needs; its scalar fields, which
# queries ask for; its key, since Firestore does not scan its own ids downwards; and who wrote it,
# which tells our own write from somebody else's.
_JSON, _FIELDS, _KEY, _WRITER = "json", "fields", "key", "writer"
# Marks that no person reads and nothing asks for once they are old: by this field Firestore deletes
# them itself (TTL, infra/firestore), so many days after they were last written. All else goes by
# what the clean-up knows of it.
EXPIRES = "expires"
EXPIRING_DAYS: Mapping[str, int] = {"edges": 90, "gateways": 7, "ingested": 400}


class FirestoreDocumentStore:
    """DocumentStore of the cloud.

    A document holds its JSON as text, since Firestore knows no array within an array, and its
    scalar fields beside it for queries. Every write carries a random mark: where the client tries
    again after a lost answer, it tells that the first try was ours.
    """

    def __init__(self, client: firestore.Client) -> None:
        self._client = client

    def get(self, collection: str, key: str) -> Document | None:
        """The document as it is now; None if there is none."""
        reference = self._reference(collection, key)
        with told_as_ours("Firestore", TERRAFORM_ADDRESS):
            snapshot = reference.get()
        return _document(snapshot) if snapshot.exists else None

    def create(
        self, collection: str, key: str, data: Mapping[str, Any], *, also: Sequence[Put] = ()
    ) -> Document:
        """Raises: DocumentExistsError; StorageUnavailableError."""
        reference, stored = self._reference(collection, key), _stored(collection, key, data)
        with told_as_ours("Firestore", TERRAFORM_ADDRESS):
            try:
                batch = self._batch(also)
                batch.create(reference, stored)
                *_, written = batch.commit()
            except google_errors.AlreadyExists:
                return self._if_ours(reference, stored, DocumentExistsError(collection, key))
        return Document(key, json.loads(stored[_JSON]), _version(written.update_time))

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
        reference, stored = self._reference(collection, key), _stored(collection, key, data)
        with told_as_ours("Firestore", TERRAFORM_ADDRESS):
            try:
                # These fields are all there are, so an update of them replaces the document.
                batch = self._batch(also)
                batch.update(reference, stored, option=self._if_unchanged(version))
                *_, written = batch.commit()
            except (google_errors.FailedPrecondition, google_errors.NotFound):
                return self._if_ours(reference, stored, DocumentChangedError(collection, key))
        return Document(key, json.loads(stored[_JSON]), _version(written.update_time))

    def put(self, collection: str, key: str, data: Mapping[str, Any]) -> Document:
        """Create or overwrite. Raises: StorageUnavailableError."""
        reference, stored = self._reference(collection, key), _stored(collection, key, data)
        with told_as_ours("Firestore", TERRAFORM_ADDRESS):
            written = reference.set(stored)
        return Document(key, json.loads(stored[_JSON]), _version(written.update_time))

    def delete(self, collection: str, key: str, version: str | None = None) -> None:
        """Raises: DocumentChangedError if `version` is not the stored one."""
        reference = self._reference(collection, key)
        with told_as_ours("Firestore", TERRAFORM_ADDRESS):
            if version is None:
                reference.delete()
                return
            try:
                reference.delete(option=self._if_unchanged(version))
            except (google_errors.FailedPrecondition, google_errors.NotFound):
                raise DocumentChangedError(collection, key) from None

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

        Raises: ValueError for a cursor of another query, a field or a filter that cannot be one;
        StorageUnavailableError.
        """
        if limit < 1:
            raise ValueError("a page has at least one document")
        mark = cursor_mark(collection, where, order_by, descending)
        after = open_cursor(cursor, mark) if cursor is not None else None
        query = self._filtered(collection, where)
        if query is None:
            return Page([], None)
        way = firestore.Query.DESCENDING if descending else firestore.Query.ASCENDING
        start: dict[str, Any] = {}
        if order_by is not None:
            path = _path(order_by)
            query = query.order_by(path, direction=way)
            if after is not None:
                start[path] = after[0]
        query = query.order_by(_KEY, direction=way)
        if after is not None:
            query = query.start_after({**start, _KEY: after[1]})
        with _answered_by_an_index(collection):
            # One more than wanted tells whether the page is the last.
            snapshots = list(query.limit(limit + 1).stream())
        documents = [_document(snapshot) for snapshot in snapshots[:limit]]
        if len(snapshots) <= limit:
            return Page(documents, None)
        last = documents[-1]
        value = last.data.get(order_by) if order_by is not None else None
        return Page(documents, close_cursor(mark, value, last.key))

    def count(self, collection: str, where: Sequence[Filter] = ()) -> int:
        """How many documents fit all of `where`."""
        query = self._filtered(collection, where)
        if query is None:
            return 0
        ranges = {filter_.field for filter_ in where if filter_.operator not in ("==", "in")}
        for field in sorted(ranges):
            # As lists are, newest first: so that their indexes answer this too.
            query = query.order_by(_path(field), direction=firestore.Query.DESCENDING)
        if ranges:
            query = query.order_by(_KEY, direction=firestore.Query.DESCENDING)
        with _answered_by_an_index(collection):
            ((result,),) = query.count().get()
        return int(result.value)

    def _batch(self, puts: Sequence[Put]) -> Any:
        """Writes that all happen or none, these first."""
        batch = self._client.batch()
        for put in puts:
            batch.set(
                self._reference(put.collection, put.key), _stored(put.collection, put.key, put.data)
            )
        return batch

    def _reference(self, collection: str, key: str) -> firestore.DocumentReference:
        return self._collection(collection).document(_document_id(key))

    def _collection(self, collection: str) -> firestore.CollectionReference:
        check_collection(collection)
        return self._client.collection(collection)

    def _filtered(self, collection: str, where: Sequence[Filter]) -> Any:
        """The query, or None if nothing can fit."""
        query: Any = self._collection(collection)
        for filter_ in where:
            check_filter(filter_)
            if filter_.operator == "in" and not filter_.value:
                return None
            query = query.where(filter=_claim(filter_))
        return query

    def _if_unchanged(self, version: str) -> Any:
        return self._client.write_option(last_update_time=_update_time(version))

    @staticmethod
    def _if_ours(
        reference: firestore.DocumentReference, stored: Mapping[str, Any], error: Exception
    ) -> Document:
        """The document if it is the write at hand, whose answer was lost; else raises `error`."""
        snapshot = reference.get()
        if snapshot.exists and snapshot.get(_WRITER) == stored[_WRITER]:
            return _document(snapshot)
        raise error from None


@contextmanager
def _answered_by_an_index(collection: str) -> Iterator[None]:
    """Firestore refuses a query for want of an index with FAILED_PRECONDITION, and of a database or
    a role with other words.
    """
    with told_as_ours("Firestore", TERRAFORM_ADDRESS):
        try:
            yield
        except google_errors.FailedPrecondition as error:
            raise StorageUnavailableError(
                f"Firestore has no index for a query of {collection}, or builds it yet: "
                f"apply {INDEX_ADDRESS} of {collection}"
            ) from error


def _document_id(key: str) -> str:
    """A Firestore id for any key: no `/`, not `.` or `..`, not of the form `__x__`."""
    encoded = quote(key, safe=":.-_~ ")
    return encoded.replace(".", "%2E") if encoded in (".", "..") else _escape_underscores(encoded)


def _escape_underscores(encoded: str) -> str:
    return "%5F" + encoded[1:] if encoded.startswith("__") else encoded


def _stored(collection: str, key: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Raises: TypeError or ValueError for what is not JSON."""
    text = json.dumps(dict(data), allow_nan=False, separators=(",", ":"))
    fields = {
        name: value
        for name, value in json.loads(text).items()
        if is_field(name) and is_comparable(value)
    }
    stored = {_JSON: text, _FIELDS: fields, _KEY: key, _WRITER: secrets.token_hex(8)}
    days = EXPIRING_DAYS.get(collection)
    return stored if days is None else {**stored, EXPIRES: datetime.now(UTC) + timedelta(days=days)}


def _document(snapshot: firestore.DocumentSnapshot[Any]) -> Document:
    return Document(
        snapshot.get(_KEY), json.loads(snapshot.get(_JSON)), _version(snapshot.update_time)
    )


def _version(update_time: Any) -> str:
    text: str = update_time.rfc3339()
    return text


def _update_time(version: str) -> Any:
    return DatetimeWithNanoseconds.from_rfc3339(version).timestamp_pb()


def _path(field: str) -> str:
    check_field(field)
    return FieldPath(_FIELDS, field).to_api_repr()


def _claim(filter_: Filter) -> FieldFilter | Or:
    path, value = _path(filter_.field), filter_.value
    if filter_.operator == "in" and None in value:  # which Firestore's own `in` does not find
        return Or([FieldFilter(path, "==", one) for one in value])
    return FieldFilter(path, filter_.operator, value)
