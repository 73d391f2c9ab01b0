"""The document of a Delivery: in which state it is, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from shared.dicom.changes import Change, Transcoding
from shared.pipeline import instance_records
from shared.pipeline.copies import fingerprint
from shared.pipeline.instance_records import QUARANTINED, ROUTED, decision_of, receipt_of
from shared.ports import DocumentStore

COLLECTION = "deliveries"

DELIVERED, RETRYING, FAILED = "delivered", "retrying", "failed"
# A newer copy took its place; a person gave it up. QUARANTINED is a state here as well.
SUPERSEDED, GIVEN_UP = "superseded", "discarded"
STATES = (DELIVERED, RETRYING, FAILED, QUARANTINED, SUPERSEDED, GIVEN_UP)
# Nothing more happens to these by itself or by a retry.
SETTLED = (DELIVERED, SUPERSEDED, GIVEN_UP)


def delivery_key(receipt_id: str, destination: str) -> str:
    """The key of a Delivery's document."""
    return f"{receipt_id}:{destination}"


def is_overtaken(
    delivery: Mapping[str, Any], plan: Mapping[str, Any], instance: Mapping[str, Any]
) -> bool:
    """Whether a Delivery was decided or ordered anew, as `plan` of the Instance's document says,
    and its own document tells of what was before: it is on its way, whatever its state.
    """
    asked = decision_of(instance), plan.get("order", 0)
    known = delivery.get("decision", 0), delivery.get("order", 0)
    if known >= asked or delivery["state"] not in SETTLED:
        return False
    if delivery["state"] == GIVEN_UP and instance.get("corrects") and not plan.get("order"):
        return False  # a correction leaves it given up
    if delivery["state"] != DELIVERED:
        return True
    changes = msgspec.convert(plan["changes"], tuple[Change, ...])
    transcoding = msgspec.convert(plan.get("transcoding"), Transcoding | None)
    return bool(
        delivery.get("fingerprint") != fingerprint(receipt_of(instance), changes, transcoding)
    )


def left_at(instance: Mapping[str, Any], deliveries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The destinations that have the Instance by an earlier decision, and are sent nothing by the
    one that counts now.
    """
    planned = {plan["destination"] for plan in instance["deliveries"]}
    has_it = {one["destination"] for one in deliveries if one["state"] == DELIVERED}
    return sorted(has_it - planned)


def end_quarantine(receipt_id: str, documents: DocumentStore) -> None:
    """Nothing of the Instance is set aside any more, unless another of its Deliveries is."""

    def ended(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if data["state"] != QUARANTINED:
            return None
        for plan in data["deliveries"]:
            key = delivery_key(receipt_id, plan["destination"])
            delivery = documents.get(COLLECTION, key)
            if delivery is not None and delivery.data["state"] == QUARANTINED:
                return None
        return {**data, "state": ROUTED, "reason": ""}

    if documents.get(instance_records.COLLECTION, receipt_id) is not None:
        instance_records.change(documents, receipt_id, ended)
