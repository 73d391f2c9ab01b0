"""Noting that a Delivery is not to happen: it is discarded, or goes elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from shared.errors import DocumentChangedError
from shared.messages import DeliveryRequested
from shared.pipeline import instance_records
from shared.pipeline.delivery_records import (
    COLLECTION,
    GIVEN_UP,
    RETRYING,
    SETTLED,
    delivery_key,
    end_quarantine,
)
from shared.pipeline.instance_records import HELD, ROUTED
from shared.ports import DocumentStore


def delivery_of(entry: Mapping[str, Any], reason: str, documents: DocumentStore) -> None:
    """Give up the Delivery that an entry of the exception log is about; nothing if it is about
    something else.
    """
    if entry["receipt_id"] and entry["destination"]:
        delivery(entry["receipt_id"], entry["destination"], reason, documents)


def delivery(receipt_id: str, destination: str, reason: str, documents: DocumentStore) -> None:
    """Give up one Delivery unless it is confirmed; a message of it that still comes does nothing.

    An Instance that was set aside for it is so no more.
    """
    key = delivery_key(receipt_id, destination)
    while True:
        known = documents.get(COLLECTION, key)
        if known is None or known.data["state"] in SETTLED:
            break
        data = {**known.data, "state": GIVEN_UP, "reason": reason}
        try:
            documents.replace(COLLECTION, key, data, known.version)
        except DocumentChangedError:
            continue
        break
    end_quarantine(receipt_id, documents)


def planned(message: DeliveryRequested, documents: DocumentStore, *, anew: bool = True) -> None:
    """Note in the Instance's document the Delivery that a person ordered; unless it is to be `anew`
    only if none is planned there. An Instance that waited is on its way then.
    """
    receipt_id = message.receipt.receipt_id
    _take_back(message, documents)
    if documents.get(instance_records.COLLECTION, receipt_id) is None:
        return  # validation refused it, so no rules have decided

    def added(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
        others = [p for p in data["deliveries"] if p["destination"] != message.destination]
        if not anew and len(others) < len(data["deliveries"]):
            return None
        plan = {
            "destination": message.destination,
            "changes": msgspec.to_builtins(message.changes),
            "transcoding": msgspec.to_builtins(message.transcoding),
            "order": message.order,
            "by_hand": True,
        }
        state = ROUTED if data["state"] == HELD else data["state"]
        return {**data, "deliveries": [*others, plan], "state": state}

    instance_records.change(documents, receipt_id, added)


def _take_back(message: DeliveryRequested, documents: DocumentStore) -> None:
    """A Delivery that was given up, and is ordered now, is on its way again."""
    known = documents.get(COLLECTION, delivery_key(message.receipt.receipt_id, message.destination))
    if known is None or known.data["state"] != GIVEN_UP:
        return
    data = {name: value for name, value in known.data.items() if name != "reason"}
    with suppress(DocumentChangedError):  # it was carried out meanwhile
        documents.replace(COLLECTION, known.key, {**data, "state": RETRYING}, known.version)
