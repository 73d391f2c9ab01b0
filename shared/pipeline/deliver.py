"""`deliver_instance`: one Instance to one destination, recorded, at most once confirmed."""

from __future__ import annotations

import logging
from typing import Any

from shared import crash_points
from shared.dicom.edit import apply_changes
from shared.dicom.outgoing import OutgoingInstance
from shared.errors import AxiomError, PermanentError
from shared.messages import DeliveryRequested
from shared.pipeline.ports import Ports
from shared.pipeline.times import timestamp
from shared.pipeline.validate import header_of
from shared.ports import Document

log = logging.getLogger(__name__)

COLLECTION = "deliveries"

DELIVERED, RETRYING, FAILED = "delivered", "retrying", "failed"


def run(message: DeliveryRequested, ports: Ports) -> None:
    """Deliver, unless this Delivery is confirmed already; record how it went.

    Raises: TransientError, after which the message comes again; PermanentError.
    """
    receipt = message.receipt
    key = delivery_key(receipt.receipt_id, message.destination)
    known = ports.documents.get(COLLECTION, key)
    if known is not None and known.data["state"] == DELIVERED:
        return
    began_s = ports.clock.monotonic_s()
    try:
        answer = _deliver(message, ports)
    except AxiomError as error:
        state = FAILED if isinstance(error, PermanentError) else RETRYING
        _record(message, known, key, state, began_s, ports, error=str(error), code=error.code)
        raise
    crash_points.reached(crash_points.AFTER_SEND)
    _record(message, known, key, DELIVERED, began_s, ports, answer=answer)
    crash_points.reached(crash_points.AFTER_RECORD)
    log.info(
        "delivered",
        extra={
            "trace_id": receipt.trace_id,
            "sop_instance_uid": receipt.sop_instance_uid,
            "destination": message.destination,
        },
    )


def delivery_key(receipt_id: str, destination: str) -> str:
    """The key of a Delivery's document."""
    return f"{receipt_id}:{destination}"


def _deliver(message: DeliveryRequested, ports: Ports) -> str:
    receipt = message.receipt
    destination = ports.destinations.get(message.destination)
    with ports.objects.open(receipt.file.object_name) as reader:
        header = header_of(receipt, reader)
        instance = OutgoingInstance(
            header=apply_changes(header, message.changes),
            reader=reader,
            body_offset=receipt.file.body_offset,
            unchanged=not message.changes,
            receipt_id=receipt.receipt_id,
            calling_ae_title=receipt.source.calling_ae_title,
        )
        return destination.deliver(instance)


def _record(
    message: DeliveryRequested,
    known: Document | None,
    key: str,
    state: str,
    began_s: float,
    ports: Ports,
    **outcome: str,
) -> None:
    now = ports.clock.now()
    receipt = message.receipt
    data: dict[str, Any] = {
        "receipt_id": receipt.receipt_id,
        "destination": message.destination,
        "sop_instance_uid": receipt.sop_instance_uid,
        "study_instance_uid": receipt.study_instance_uid,
        "state": state,
        "attempts": (known.data["attempts"] if known else 0) + 1,
        "updated_at": timestamp(now),
        "delivery_ms": round(1000 * (ports.clock.monotonic_s() - began_s), 1),
        "since_received_ms": round(1000 * (now - receipt.received_at).total_seconds(), 1),
        **outcome,
    }
    ports.documents.put(COLLECTION, key, data)
