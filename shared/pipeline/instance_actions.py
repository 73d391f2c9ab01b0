"""What a person can do with an Instance that waits: release, reroute, discard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.audit import AuditLog
from shared.errors import DocumentMissingError, WrongStateError
from shared.messages import DeliveryRequested, decode
from shared.pipeline import again, give_up, instance_records, rules
from shared.pipeline.delivery_records import COLLECTION as DELIVERIES
from shared.pipeline.delivery_records import delivery_key
from shared.pipeline.exceptions import DISCARDED as ENTRY_DISCARDED
from shared.pipeline.exceptions import RETRIED
from shared.pipeline.instance_records import (
    COLLECTION,
    DISCARDED,
    HELD,
    QUARANTINED,
    RELEASED,
    ROUTED,
    WAITING,
    receipt_of,
)
from shared.pipeline.ports import Ports
from shared.times import timestamp

Data = Mapping[str, Any]

# A discarded one may come back, as long as its received file is there.
_RELEASABLE = (HELD, QUARANTINED, RELEASED, DISCARDED)


def release(receipt_id: str, *, by: str, ports: Ports, job: str = "") -> Data:
    """Have the current rules decide anew, their `hold` actions aside. What a destination has
    confirmed is not sent again.

    Raises: DocumentMissingError; WrongStateError.
    """
    known = _known(receipt_id, _RELEASABLE, ports)
    warnings = tuple(known["warnings"])
    _settle_entries(receipt_id, by, ports)
    rules.decide_anew(receipt_of(known), warnings, ports, released=True)
    return _noted(receipt_id, known, "release", by, ports, job=job)


def reroute(receipt_id: str, destination: str, *, by: str, ports: Ports, job: str = "") -> Data:
    """Send it to `destination` instead of where it is held up, as the rules changed it.

    Raises: DocumentMissingError; WrongStateError; DestinationMisconfiguredError if there is no such
    destination.
    """
    ports.destinations.entity(destination)
    known = _known(receipt_id, _RELEASABLE, ports)
    message = again.delivery(
        receipt_of(known),
        destination,
        again.planned_changes(known, destination),
        ports.documents,
        tuple(known["matched_rules"]),
        again.planned_transcoding(known, destination),
    )
    _settle_entries(receipt_id, by, ports)
    # Before it is noted, so that nothing is missing if we end right after it.
    ports.bus.publish([message])
    ordered = decode(message.data, DeliveryRequested)
    give_up.planned(ordered, ports.documents)
    _give_up_quarantined(known, f"sent to {destination} instead", ports, but=destination)

    def on_its_way(data: Data) -> Data | None:
        delivery = ports.documents.get(DELIVERIES, delivery_key(receipt_id, destination))
        if delivery is not None and _is_set_aside_since(delivery.data, ordered):
            return None
        return {**data, "state": ROUTED, "reason": ""}

    instance_records.change(ports.documents, receipt_id, on_its_way)
    return _noted(receipt_id, known, "reroute", by, ports, job=job, destination=destination)


def discard(receipt_id: str, *, reason: str, by: str, ports: Ports, job: str = "") -> Data:
    """Give it up for good: it goes nowhere, and its received file may go.

    Raises: DocumentMissingError; WrongStateError; ValueError without a reason.
    """
    if not reason.strip():
        raise ValueError("a reason is needed to discard")
    known = _known(receipt_id, WAITING, ports)

    def discarded(data: Data) -> Data:
        if data["state"] not in (*WAITING, DISCARDED):
            raise WrongStateError(receipt_id, data["state"])
        return {**data, "state": DISCARDED, "reason": reason}

    instance_records.change(ports.documents, receipt_id, discarded)
    _give_up_quarantined(known, reason, ports)
    ports.exceptions.settle_failed_rules(receipt_id, ENTRY_DISCARDED, by=by, reason=reason)
    ports.exceptions.settle_conflicts(receipt_id, ENTRY_DISCARDED, by=by, reason=reason)
    return _noted(receipt_id, known, "discard", by, ports, job=job, reason=reason)


def _settle_entries(receipt_id: str, by: str, ports: Ports) -> None:
    """Close what is open about an Instance that is to go on. Before it does, or an entry that opens
    because it came to grief again would be closed as well; until then its document shows it.
    """
    ports.exceptions.settle_failed_rules(receipt_id, RETRIED, by=by)
    ports.exceptions.settle_conflicts(receipt_id, RETRIED, by=by)


def _is_set_aside_since(delivery: Data, ordered: DeliveryRequested) -> bool:
    """Whether the very Delivery that was ordered has been carried out, and was set aside."""
    found = delivery.get("decision", 0), delivery.get("order", 0)
    return delivery["state"] == QUARANTINED and found >= (ordered.decision, ordered.order)


def _known(receipt_id: str, states: tuple[str, ...], ports: Ports) -> Data:
    found = ports.documents.get(COLLECTION, receipt_id)
    if found is None:
        raise DocumentMissingError(COLLECTION, receipt_id)
    if found.data["state"] not in states:
        raise WrongStateError(receipt_id, found.data["state"])
    return found.data


def _give_up_quarantined(instance: Data, reason: str, ports: Ports, *, but: str = "") -> None:
    receipt_id = instance["receipt_id"]
    for plan in instance["deliveries"]:
        destination = plan["destination"]
        found = ports.documents.get(DELIVERIES, delivery_key(receipt_id, destination))
        if destination != but and found is not None and found.data["state"] == QUARANTINED:
            give_up.delivery(receipt_id, destination, reason, ports.documents)


def _noted(receipt_id: str, known: Data, what: str, by: str, ports: Ports, **said: str) -> Data:
    """Add the step to the Instance's history and to the audit log; the document then."""
    told = {name: value for name, value in said.items() if value}
    step = {"at": timestamp(ports.clock.now()), "action": what, "by": by, **told}
    _, after = instance_records.change(
        ports.documents,
        receipt_id,
        lambda data: {**data, "history": [*data.get("history", []), step]},
    )
    AuditLog(ports.documents, ports.clock).add(
        who=by,
        what=f"instances.{what}",
        id=receipt_id,
        before=str(known["state"]),
        after=str(after["state"]),
        **told,
    )
    return after
