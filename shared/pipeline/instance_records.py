"""The document of a received Instance: what was decided about it, and what people did with it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from shared.errors import DocumentChangedError, DocumentMissingError
from shared.messages import Receipt
from shared.pipeline.times import timestamp
from shared.ports import Clock, DocumentStore

COLLECTION = "instances"

# On its way; waiting for a person; dropped on purpose; about to be decided anew; set aside because
# a destination has other bytes under its SOP Instance UID.
ROUTED, HELD, DISCARDED, RELEASED, QUARANTINED = (
    "routed",
    "held",
    "discarded",
    "released",
    "quarantined",
)
STATES = (ROUTED, HELD, DISCARDED, RELEASED, QUARANTINED)
# What waits for a person.
WAITING = (HELD, QUARANTINED)

Data = Mapping[str, Any]


def receipt_of(data: Data) -> Receipt:
    """The receipt that the document keeps; its header is read again from the received file."""
    fields = {name: data[name] for name in Receipt.__dataclass_fields__ if name != "header"}
    return msgspec.convert({**fields, "header": None}, Receipt)


def new_decision_id(clock: Clock) -> str:
    """Sorts after every earlier one."""
    return f"{timestamp(clock.now())}-{secrets.token_hex(4)}"


def decision_id_of(data: Data | None) -> str:
    """Which decision the document holds; "" for the first, and before there is any."""
    return "" if data is None else str(data.get("decision_id", ""))


def change(
    documents: DocumentStore, receipt_id: str, changed: Callable[[Data], Data | None]
) -> tuple[Data, Data]:
    """Change the document by compare-and-set; the document before and after.

    `changed` gets it as it is, and returns what it is to be, or None to leave it. It may be called
    again, and may raise. Raises: DocumentMissingError.
    """
    while True:
        known = documents.get(COLLECTION, receipt_id)
        if known is None:
            raise DocumentMissingError(COLLECTION, receipt_id)
        data = changed(known.data)
        if data is None:
            return known.data, known.data
        try:
            return known.data, documents.replace(COLLECTION, receipt_id, data, known.version).data
        except DocumentChangedError:
            continue
