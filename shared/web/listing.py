"""Lists of documents: newest first, page by page, searched if asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from flask import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from shared.ports import Document, DocumentStore, Page
from shared.web.documents_out import json_response
from shared.web.media_types import JSON
from shared.web.problems import ProblemError

# A search reads at most so much for one page of its own; its cursor goes on where it stopped.
_SEARCH_PAGES = 10
_SEARCH_PAGE = 500


def _in_utc(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)


# A time without an offset is UTC; a day is its midnight.
Since = Annotated[
    datetime,
    AfterValidator(_in_utc),
    # Not format date-time (RFC 3339): more is taken.
    WithJsonSchema({"type": "string", "examples": ["2026-11-21T10:00:00Z"]}),
]


class Listing(BaseModel):
    """Query parameters that every list takes."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=100, ge=1, le=500, description="Entries on one page")
    cursor: str | None = Field(default=None, description="`next_cursor` of the page before")


def described(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON response for the OpenAPI document."""
    return {"description": description, "content": {JSON: {"schema": dict(schema)}}}


def described_page(description: str, item: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A page of a list for the OpenAPI document."""
    cursor = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    items = {"type": "array", "items": dict(item or {"type": "object"})}
    properties = {"items": items, "next_cursor": cursor}
    schema = {"type": "object", "properties": properties, "required": ["items", "next_cursor"]}
    return described(description, schema)


def page_response(page: Page, shown: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Response:
    """One page as {"items", "next_cursor"}, each document as `shown` tells it."""
    items = [shown(document.data) for document in page.documents]
    return json_response({"items": items, "next_cursor": page.cursor})


def listed_response(
    listed: Sequence[Any],
    listing: Listing,
    shown: Callable[[Any], object] = lambda one: one,
) -> Response:
    """A page of a list that is there as a whole; `shown` is called for what is on the page. The
    cursor is a position in the list.
    """
    cursor = listing.cursor or "0"
    if not (cursor.isascii() and cursor.isdigit()):
        raise _foreign_cursor()
    begin = int(cursor[:9])
    end = begin + listing.limit
    following = str(end) if end < len(listed) else None
    items = [shown(one) for one in listed[begin:end]]
    return json_response({"items": items, "next_cursor": following})


def newest_response(
    documents: DocumentStore, collection: str, order_by: str, listing: Listing
) -> Response:
    """One page of a whole collection, by a time, the newest first."""
    page = fetch(
        lambda limit, cursor: documents.query(
            collection, order_by=order_by, descending=True, limit=limit, cursor=cursor
        ),
        listing,
    )
    return page_response(page, dict)


def fetch(query: Callable[[int, str | None], Page], listing: Listing) -> Page:
    """The page that `query(limit, cursor)` gives. Raises: ProblemError 400 for a foreign cursor."""
    try:
        return query(listing.limit, listing.cursor or None)
    except ValueError:
        raise _foreign_cursor() from None


def search(
    query: Callable[[int, str | None], Page],
    listing: Listing,
    wanted: str,
    words_of: Callable[[Mapping[str, Any]], Iterable[object]],
) -> Page:
    """As `fetch`, of those documents alone in whose words `wanted` occurs, case aside.

    The page may be short, or even empty, with a cursor to go on from.
    """
    needle = wanted.casefold()
    found: list[Document] = []
    cursor = listing.cursor
    for _ in range(_SEARCH_PAGES):
        page = fetch(query, Listing(limit=_SEARCH_PAGE, cursor=cursor))
        for position, document in enumerate(page.documents, start=1):
            if any(needle in str(word).casefold() for word in words_of(document.data)):
                found.append(document)
                if len(found) == listing.limit:
                    # The page again up to here, for the cursor that stands behind this document.
                    return Page(found, query(position, cursor).cursor)
        cursor = page.cursor
        if cursor is None:
            break
    return Page(found, cursor)


def _foreign_cursor() -> ProblemError:
    return ProblemError(400, "invalid-cursor", "The cursor is not one that this list gave.")
