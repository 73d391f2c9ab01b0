"""What every DocumentStore asks of a query before it is one, and the cursors it gives out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from shared.cursors import cursor_of, said_by
from shared.ports import Filter

MAX_IN_VALUES = 30  # Firestore's limit

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_OPERATORS = frozenset({"==", "in", "<", "<=", ">", ">="})


def check_collection(collection: str) -> None:
    """Raises: ValueError for what is no collection's name."""
    if not _NAME.fullmatch(collection):
        raise ValueError(f"not a collection's name: {collection!r}")


def check_field(field: str) -> None:
    """Raises: ValueError for a field that cannot be asked for."""
    if not is_field(field):
        raise ValueError(f"not a field that can be asked for: {field!r}")


def is_field(name: str) -> bool:
    """True if queries can ask for a field of this name."""
    return _NAME.fullmatch(name) is not None


def is_comparable(value: object) -> bool:
    """True for null, text, numbers and booleans."""
    return value is None or isinstance(value, str | int | float)


def check_filter(filter_: Filter) -> None:
    """Raises: ValueError for a filter that cannot be one."""
    check_field(filter_.field)
    if filter_.operator not in _OPERATORS:
        raise ValueError(f"not an operator: {filter_.operator!r}")
    values = [filter_.value]
    if filter_.operator == "in":
        if not isinstance(filter_.value, list | tuple) or len(filter_.value) > MAX_IN_VALUES:
            raise ValueError(f"`in` takes a list of up to {MAX_IN_VALUES} values")
        values = list(filter_.value)
    for value in values:
        if not is_comparable(value):
            raise ValueError(f"cannot compare a field with {type(value).__name__}")
        if value is None and filter_.operator not in ("==", "in"):
            raise ValueError("null is equal or not, never more or less")


def cursor_mark(
    collection: str, where: Sequence[Filter], order_by: str | None, descending: bool
) -> str:
    """Tells a query from others, so that a cursor is used with its own alone."""
    claims = [[filter_.field, filter_.operator, filter_.value] for filter_ in where]
    text = json.dumps([collection, claims, order_by, descending], default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def close_cursor(mark: str, value: Any, key: str) -> str:
    """The cursor that stands behind the document of this key and this value of `order_by`."""
    return cursor_of(mark, value, key)


def open_cursor(cursor: str, mark: str) -> tuple[Any, str]:
    """Value and key of a cursor. Raises: ValueError if another query gave it, or nobody."""
    match said_by(cursor):
        case [found, value, str(key)] if found == mark and not isinstance(value, list | dict):
            return value, key
    raise ValueError("the cursor is not one of this query")
