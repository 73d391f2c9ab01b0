"""How each destination is: whether deliveries go through, since when not, and what it said last.

Whoever delivers records a change; everybody can read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from shared.pipeline.delivery_records import COLLECTION as DELIVERIES
from shared.pipeline.delivery_records import RETRYING
from shared.pipeline.instance_records import QUARANTINED
from shared.pipeline.ports import Ports
from shared.ports import Clock, DocumentStore, Filter
from shared.times import timestamp

COLLECTION = "destination-states"

# Deliveries go out; or one at a time is tried until one goes through.
CLOSED, OPEN = "closed", "open"


class Health(Struct, frozen=True):
    """What deliveries to a destination met with lately."""

    destination: str
    circuit: str
    failures: int  # in a row
    failing_since: datetime | None
    last_error: str
    next_try_in_s: float


def record(health: Health, documents: DocumentStore, clock: Clock) -> None:
    """Keep it as the newest. Raises: StorageUnavailableError."""
    now = clock.now()
    since = health.failing_since
    documents.put(
        COLLECTION,
        health.destination,
        {
            "destination": health.destination,
            "circuit": health.circuit,
            "failures": health.failures,
            "retrying_since": timestamp(since) if since else None,
            "last_error": health.last_error,
            "next_try_at": (
                timestamp(now + timedelta(seconds=health.next_try_in_s))
                if health.circuit == OPEN
                else None
            ),
            "updated_at": timestamp(now),
        },
    )


def forget_all(documents: DocumentStore) -> None:
    """Whoever delivers begins anew and knows of no failures."""
    while page := documents.query(COLLECTION, limit=500).documents:
        for document in page:
            documents.delete(COLLECTION, document.key)


def state_of(name: str, ports: Ports) -> Mapping[str, Any]:
    """How a destination is, and what waits for it.

    `waiting` is None on a platform whose queue cannot tell. Raises: DestinationMisconfiguredError
    if there is none of that name.
    """
    entity = ports.destinations.entity(name)
    found = ports.documents.get(COLLECTION, name)
    known: Mapping[str, Any] = found.data if found else _WELL
    return {
        **known,
        "destination": name,
        "type": entity.type,
        "address": entity.address,
        "enabled": entity.enabled,
        "waiting": None if ports.waiting is None else ports.waiting(name),
        "retrying": _count(name, RETRYING, ports),
        "quarantined": _count(name, QUARANTINED, ports),
    }


_WELL: Mapping[str, Any] = {
    "circuit": CLOSED,
    "failures": 0,
    "retrying_since": None,
    "last_error": "",
    "next_try_at": None,
    "updated_at": None,
}


def _count(name: str, state: str, ports: Ports) -> int:
    where = [Filter("destination", "==", name), Filter("state", "==", state)]
    return ports.documents.count(DELIVERIES, where)
