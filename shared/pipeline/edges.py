"""Gateways on premises, as the cloud sees them: each says every minute how it is.

One that says nothing may work all the same, with its link down: what it has waits on its disk.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct, structs

from shared.ports import Clock, DocumentStore
from shared.times import timestamp

log = logging.getLogger(__name__)

COLLECTION = "edges"

# One that was silent for so long does not come back: it is forgotten.
_FORGOTTEN_AFTER_S = 60 * 86_400.0
# Each says something every minute.
SILENT_AFTER_S = 600.0
_MOST = 1000


class EdgeState(Struct, frozen=True):
    """How a gateway on premises is."""

    messages: int  # that the cloud does not have
    oldest_s: float  # how long the oldest of them waits
    bytes: int
    free_bytes: int
    instances: int  # that were moved since it started
    stuck: int  # files that cannot be moved, for a reason of their own
    configuration: int  # the version that it goes by
    fault: str = ""  # in words; "" for none
    link: str = ""  # why the link does not work; "" if it does

    def as_json(self) -> dict[str, Any]:
        """As documents, log lines and the health port show it."""
        return structs.asdict(self)


class SeenEdge(Struct, frozen=True):
    """What is known of one here."""

    name: str
    silent_s: float
    state: EdgeState

    @property
    def oldest_s(self) -> float:
        """How long the oldest that waits there has waited by now, as far as that is known."""
        return self.state.oldest_s + self.silent_s if self.state.messages else 0.0


def say(name: str, state: EdgeState, documents: DocumentStore, clock: Clock) -> None:
    """Leave word. Raises: StorageUnavailableError."""
    documents.put(COLLECTION, name, {"at": timestamp(clock.now()), **state.as_json()})


def seen(documents: DocumentStore, clock: Clock) -> Sequence[SeenEdge]:
    """All that have left word, by name. Raises: StorageUnavailableError."""
    found = []
    for document in documents.query(COLLECTION, limit=_MOST).documents:
        at = datetime.fromisoformat(document.data["at"]).astimezone(UTC)
        told = {name: document.data[name] for name in EdgeState.__struct_fields__}
        silent_s = max(0.0, (clock.now() - at).total_seconds())
        found.append(SeenEdge(document.key, silent_s, EdgeState(**told)))
    return found


def look_after(documents: DocumentStore, clock: Clock) -> None:
    """Log how each is, which the cloud's monitoring counts; forget those that are long gone.

    Raises: StorageUnavailableError.
    """
    for edge in seen(documents, clock):
        if edge.silent_s > _FORGOTTEN_AFTER_S:
            documents.delete(COLLECTION, edge.name)
            log.warning("a gateway on premises is forgotten", extra={"edge": edge.name})
            continue
        log.info(
            "a gateway on premises",
            extra={
                **edge.state.as_json(),
                "edge": edge.name,
                "silent_s": round(edge.silent_s),
                "oldest_s": round(edge.oldest_s),
            },
        )


def fault_of_any(documents: DocumentStore, clock: Clock) -> str | None:
    """What is wrong with gateways on premises, in words; None if nothing is."""
    words = []
    for edge in seen(documents, clock):
        if edge.silent_s > SILENT_AFTER_S:
            words.append(f"{edge.name}: no sign of life for {edge.silent_s:.0f} s")
        elif edge.state.fault:
            words.append(f"{edge.name}: {edge.state.fault}")
    return "; ".join(words) or None
