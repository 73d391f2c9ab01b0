"""Cursors: what a page of a list says of where the next one begins."""

from __future__ import annotations

import base64
import json
from typing import Any


def cursor_of(*said: Any) -> str:
    """A cursor that `said_by` reads back, of what JSON knows."""
    return base64.urlsafe_b64encode(json.dumps(said).encode()).decode()


def said_by(cursor: str) -> list[Any]:
    """What a cursor was made of, or whatever a stranger made one of. Raises: ValueError."""
    try:
        match json.loads(base64.urlsafe_b64decode(cursor)):
            case list(said):
                return said
    except RecursionError:
        pass
    raise ValueError("it is no cursor")
