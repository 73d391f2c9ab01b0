"""The document of a received Instance: what was decided about it, and what people did with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from shared.errors import DocumentChangedError, DocumentMissingError
from shared.messages import Receipt
from shared.ports import DocumentStore

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
# Waiting for its Study or Series to be complete: only a rule for these may still send it somewhere.
COLLECTING = "collecting"
STATES = (ROUTED, COLLECTING, HELD, DISCARDED, RELEASED, QUARANTINED)
# What waits for a person.
WAITING = (HELD, QUARANTINED)

Data = Mapping[str, Any]


def receipt_of(data: Data) -> Receipt:
    """The receipt that the document keeps; its header is read again from the received file."""
    fields = {name: data[name] for name in Receipt.__struct_fields__ if name != "header"}
    return msgspec.convert({**fields, "header": None}, Receipt)


def decision_of(data: Data | None) -> int:
    """The number of the decision that the document holds; 0 for the first, or before any."""
    return 0 if data is None else int(data.get("decision", 0))


def next_decision(data: Data | None) -> int:
    """The number for having the rules decide anew."""
    return 1 if data is None else max(int(data.get("decision", 0)), int(data.get("asked", 0))) + 1


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
