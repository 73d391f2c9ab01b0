"""What to publish so that what failed, or waits, is tried again: messages, nothing but messages.

Publishing one is all it takes. Whoever does it publishes first and notes afterwards that it was
done, so that nothing is lost in between.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec

from shared.dicom.changes import Change, Transcoding
from shared.errors import NeedsCurrentRulesError, NothingToRetryError
from shared.messages import (
    DeliveryRequested,
    InstanceAccepted,
    InstanceReceived,
    Receipt,
    Stage,
    StandardizationRequested,
    Topic,
    decode,
    encode,
)
from shared.pipeline import delivery_records, instance_records
from shared.pipeline.delivery_records import delivery_key
from shared.pipeline.instance_records import decision_of, next_decision, receipt_of
from shared.ports import Document, DocumentStore, Outgoing


def same_again(entry: Mapping[str, Any], documents: DocumentStore) -> Outgoing:
    """The failed stage once more, with what it was given then.

    Raises: NeedsCurrentRulesError of a rule that failed; NothingToRetryError.
    """
    if not entry["retry_topic"] and entry["stage"] == Stage.RULES:
        raise NeedsCurrentRulesError(entry["id"])
    if not entry["retry_topic"]:
        raise NothingToRetryError(entry["id"])
    data = base64.b64decode(entry["retry_message"])
    if entry["retry_topic"] == Topic.DELIVERY_REQUESTED and entry["receipt_id"]:
        message = decode(data, DeliveryRequested)
        return delivery(
            message.receipt,
            message.destination,
            message.changes,
            documents,
            message.matched_rules,
            message.transcoding,
        )
    return Outgoing(entry["retry_topic"], data, lane=entry["destination"])


def elsewhere(entry: Mapping[str, Any], destination: str, documents: DocumentStore) -> Outgoing:
    """The Instance to another destination: as it was to be delivered, or as it was received where
    no delivery had been decided; in the Transfer Syntax it came in. Raises: NothingToRetryError.
    """
    receipt, _, failed = _known(entry, documents)
    changes = failed.changes if failed else ()
    matched = failed.matched_rules if failed else ()
    return delivery(receipt, destination, changes, documents, matched)


def decided_anew(entry: Mapping[str, Any], documents: DocumentStore) -> Outgoing:
    """The current rules decide about the received file. Raises: NothingToRetryError.

    What validation refused is validated first.
    """
    if entry["retry_topic"] == Topic.INSTANCE_RECEIVED:
        return same_again(entry, documents)
    receipt, warnings, _ = _known(entry, documents)
    found = documents.get(instance_records.COLLECTION, receipt.receipt_id)
    number = next_decision(found.data if found else None)
    return Outgoing(Topic.INSTANCE_ACCEPTED, encode(InstanceAccepted(receipt, warnings, number)))


def delivery(
    receipt: Receipt,
    destination: str,
    changes: tuple[Change, ...],
    documents: DocumentStore,
    matched_rules: tuple[str, ...] = (),
    transcoding: Transcoding | None = None,
) -> Outgoing:
    """One Delivery that a person orders: valid by the newest decision, even if it was given up."""
    receipt_id = receipt.receipt_id
    instance = documents.get(instance_records.COLLECTION, receipt_id)
    known = documents.get(delivery_records.COLLECTION, delivery_key(receipt_id, destination))
    message = DeliveryRequested(
        receipt,
        destination,
        changes,
        matched_rules,
        decision=decision_of(instance.data if instance else None),
        order=int(known.data.get("order", 0)) + 1 if known else 1,
        transcoding=transcoding,
    )
    return Outgoing(
        Topic.DELIVERY_REQUESTED,
        encode(message),
        lane=destination,
        high_priority=bool(instance and instance.data["high_priority"]),
    )


def planned_changes(instance: Mapping[str, Any], destination: str) -> tuple[Change, ...]:
    """The Changes for `destination`: those decided for it, else those of the first destination,
    else those that the rules had made when it was held.
    """
    plans = instance["deliveries"]
    own = [plan for plan in plans if plan["destination"] == destination]
    plan = next(iter([*own, *plans]), None)
    changes = instance["changes"] if plan is None else plan["changes"]
    return msgspec.convert(changes, tuple[Change, ...])


def planned_transcoding(instance: Mapping[str, Any], destination: str) -> Transcoding | None:
    """What was decided for `destination` itself; None otherwise."""
    for plan in instance["deliveries"]:
        if plan["destination"] == destination:
            return msgspec.convert(plan.get("transcoding"), Transcoding | None)
    return None


def _known(
    entry: Mapping[str, Any], documents: DocumentStore
) -> tuple[Receipt, tuple[str, ...], DeliveryRequested | None]:
    """The receipt, validation's warnings, and the Delivery if it is one that failed."""
    instance: Document | None = None
    if entry["receipt_id"]:
        instance = documents.get(instance_records.COLLECTION, entry["receipt_id"])
    warnings = tuple(instance.data["warnings"]) if instance else ()
    topic = entry["retry_topic"] if entry["receipt_id"] else ""
    data = base64.b64decode(entry["retry_message"])
    if topic == Topic.DELIVERY_REQUESTED:
        failed = decode(data, DeliveryRequested)
        return failed.receipt, warnings, failed
    if topic == Topic.INSTANCE_ACCEPTED:
        accepted = decode(data, InstanceAccepted)
        return accepted.receipt, accepted.warnings, None
    if topic == Topic.STANDARDIZATION_REQUESTED:
        accepted = decode(data, StandardizationRequested).accepted
        return accepted.receipt, accepted.warnings, None
    if topic == Topic.INSTANCE_RECEIVED:
        return decode(data, InstanceReceived).receipt, (), None
    if instance is not None:
        return receipt_of(instance.data), warnings, None
    raise NothingToRetryError(entry["id"])
