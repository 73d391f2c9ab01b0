"""The audit log: who did what, when, from where, to what. Entries are only ever added.

Each is also a line of the structured log, so that a copy stands where nobody here can change it.
"""

from __future__ import annotations

import logging
import secrets
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from shared.ports import Clock, DocumentStore, Filter, Page, Put
from shared.times import timestamp

log = logging.getLogger(__name__)

COLLECTION = "audit"
# What a repository is still to get: see `shared.pipeline.audit_forwarding`.
SPOOL = "audit-spool"


class Origin(Struct, frozen=True):
    """Where what is going on comes from, and what for, as whoever asks says it."""

    address: str = ""
    purpose: str = ""


_UNKNOWN: Final = Origin()
# Set for each request, so that no layer between has to hand it on.
ORIGIN: Final[ContextVar[Origin]] = ContextVar("ORIGIN", default=_UNKNOWN)


class _Spooling:
    """Whether the entries of this process go to a repository as well."""

    is_on = False


def spool_entries(is_on: bool = True) -> None:
    """Keep entries for a repository too from now on, or no longer."""
    _Spooling.is_on = is_on


class AuditLog:
    """The entries, in a DocumentStore. They hold no patient's Values."""

    def __init__(self, documents: DocumentStore, clock: Clock) -> None:
        self._documents, self._clock = documents, clock

    def add(
        self,
        *,
        who: str,
        what: str,
        id: str,
        before: str = "",
        after: str = "",
        reason: str = "",
        **details: Any,
    ) -> None:
        """Add an entry. `what` is such as "exceptions.retry", `id` names what it was done to,
        `before` and `after` are its states. Durable once this returns.
        """
        when = timestamp(self._clock.now())
        origin = ORIGIN.get()
        given = {**details, "address": origin.address, "purpose": origin.purpose}
        entry = {
            "who": who,
            "when": when,
            "what": what,
            "id": id,
            "before": before,
            "after": after,
            "reason": reason,
            **{name: value for name, value in given.items() if value},
        }
        key = f"{when}-{secrets.token_hex(6)}"
        also = [Put(SPOOL, key, entry)] if _Spooling.is_on else []
        self._documents.create(COLLECTION, key, entry, also=also)
        log.info("audit", extra={"audit": entry})

    def list(
        self, *, since: datetime | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page:
        """Entries, newest first. Raises: ValueError for a foreign cursor."""
        filters = [] if since is None else [Filter("when", ">=", timestamp(since))]
        return self._documents.query(
            COLLECTION, filters, order_by="when", descending=True, limit=limit, cursor=cursor
        )
