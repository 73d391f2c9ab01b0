"""The audit log: who did what, when, to what. Entries are only ever added."""

from __future__ import annotations

import secrets
from datetime import datetime

from shared.pipeline.times import timestamp
from shared.ports import Clock, DocumentStore, Filter, Page

COLLECTION = "audit"


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
        **details: str,
    ) -> None:
        """Add an entry. `what` is such as "exceptions.retry", `id` names what it was done to,
        `before` and `after` are its states. Durable once this returns.
        """
        when = timestamp(self._clock.now())
        self._documents.create(
            COLLECTION,
            f"{when}-{secrets.token_hex(6)}",
            {
                "who": who,
                "when": when,
                "what": what,
                "id": id,
                "before": before,
                "after": after,
                "reason": reason,
                **{name: value for name, value in details.items() if value},
            },
        )

    def list(
        self, *, since: datetime | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page:
        """Entries, newest first. Raises: ValueError for a foreign cursor."""
        filters = [] if since is None else [Filter("when", ">=", timestamp(since))]
        return self._documents.query(
            COLLECTION, filters, order_by="when", descending=True, limit=limit, cursor=cursor
        )
