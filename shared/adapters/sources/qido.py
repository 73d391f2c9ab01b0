"""QIDO-RS (PS3.18 10.6): searches, page by page, of servers that page as they like."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from shared.adapters.sources.http import SourceServer

Found = Mapping[str, Any]

STUDY_INSTANCE_UID = "0020000D"
SERIES_INSTANCE_UID = "0020000E"
SOP_INSTANCE_UID = "00080018"
SOP_CLASS_UID = "00080016"
STUDY_DATE = "00080020"
NUMBER_OF_STUDY_RELATED_INSTANCES = "00201208"

# Study Date is of the site's own time zone, which may be behind ours.
_BEHIND = timedelta(hours=14)
# A server that shows nothing new for so many pages goes round in circles.
_MOST_PAGES = 100_000
_ADDRESSES = ("00081190", "00080054", "00080056")


def pages(
    server: SourceServer,
    path: str,
    query: list[tuple[str, str]],
    key: str,
    *,
    page_size: int,
    if_none: Callable[[], object] = lambda: None,
) -> Iterator[Found]:
    """What the search gives, each once by its `key`, until a page shows nothing that is new.

    So it ends with a server that ignores `offset`, and misses nothing with one that ignores
    `limit` or gives fewer than asked for. `if_none` is called where there is no such resource.

    Raises: SourceUnavailableError and its kin.
    """
    seen: set[str] = set()
    offset = 0
    for _ in range(_MOST_PAGES):
        asked = [*query, ("limit", str(page_size)), ("offset", str(offset))]
        page = server.documents(path, asked)
        if page is None and offset == 0:
            if_none()
        if not page:
            return
        before = len(seen)
        for one in page:
            uid = text(one, key)
            if uid and uid not in seen:
                seen.add(uid)
                yield one
        if len(seen) == before:
            return
        offset += len(page)


def text(found: Found, tag: str) -> str:
    """The first Value of an Attribute as text, "" if there is none."""
    attribute = found.get(tag)
    values = attribute.get("Value") if isinstance(attribute, Mapping) else None
    if not isinstance(values, list) or not values or isinstance(values[0], dict | list):
        return ""
    return "" if values[0] is None else str(values[0]).strip()


def uid(found: Found, tag: str) -> str:
    """A UID as text, "" if it cannot be one: it goes into URLs and documents."""
    value = text(found, tag)
    return value if re.fullmatch(r"[0-9.]{1,64}", value) else ""


def number(found: Found, tag: str) -> int | None:
    """The first Value of an Attribute as a number."""
    value = text(found, tag)
    return int(value) if re.fullmatch(r"\d{1,9}", value) else None


def signature(found: Found) -> str:
    """Changes with what is shown of a Study; "" if how many Instances it has is not shown."""
    if number(found, NUMBER_OF_STUDY_RELATED_INSTANCES) is None:
        return ""
    shown = {tag: value for tag, value in found.items() if tag not in _ADDRESSES}
    plain = json.dumps(shown, sort_keys=True, default=str).encode()
    return hashlib.blake2b(plain, digest_size=12).hexdigest()


def date_range(since: datetime) -> str:
    """Matches Study Dates of `since` or later (PS3.4 C.2.2.2.5)."""
    return f"{since - _BEHIND:%Y%m%d}-"
