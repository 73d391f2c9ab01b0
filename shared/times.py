"""Times as documents hold them."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp(at: datetime) -> str:
    """UTC in ISO 8601 with microseconds and `Z`: sorts as text."""
    in_utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    return f"{in_utc.isoformat(timespec='microseconds')[:26]}Z"
