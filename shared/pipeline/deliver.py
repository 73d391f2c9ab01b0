"""`deliver_instance`: one Instance to one destination, recorded, at most once confirmed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, TypeGuard

from msgspec.structs import replace

from shared import crash_points, metrics, tracing
from shared.config.entities import OnConflict
from shared.dicom import original_attributes
from shared.dicom.body_elements import left_out
from shared.dicom.changes import Change
from shared.dicom.edit import apply_changes
from shared.dicom.header import Header
from shared.dicom.outgoing import OutgoingInstance
from shared.errors import (
    AxiomError,
    DestinationUnavailableError,
    DocumentMissingError,
    InstanceConflictError,
    PermanentError,
)
from shared.messages import DeliveryRequested
from shared.pipeline import instance_records
from shared.pipeline.copies import Claimed, Conflict, Copies, Copy, Present, fingerprint
from shared.pipeline.delivery_records import (
    COLLECTION,
    DELIVERED,
    FAILED,
    GIVEN_UP,
    RETRYING,
    SUPERSEDED,
    delivery_key,
    end_quarantine,
)
from shared.pipeline.instance_records import QUARANTINED, decision_of
from shared.pipeline.ports import Ports
from shared.pipeline.transcoding import in_wanted_syntax
from shared.pipeline.validate import header_of
from shared.ports import BatchingDestination, Destination, Document, ObjectReader, Put
from shared.times import timestamp

log = logging.getLogger(__name__)


def run(message: DeliveryRequested, ports: Ports) -> None:
    """Deliver, unless this Delivery is confirmed, given up or void already; record how it went.

    Raises: TransientError, after which the message comes again; PermanentError.
    """
    for _ in steps(message, ports):
        pass


def steps(message: DeliveryRequested, ports: Ports) -> Iterator[bool]:
    """The same for who keeps back what is written: it yields False before anything is sent, when
    the claim has to be durable, and True when others may join its request. Closed there, it gives
    the claim up.
    """
    with ports.destinations.turn(message.destination):
        yield from _steps(message, ports)


def _steps(message: DeliveryRequested, ports: Ports) -> Iterator[bool]:
    receipt = message.receipt
    tracing.note("axiom.destination", message.destination)
    key = delivery_key(receipt.receipt_id, message.destination)
    known = ports.documents.get(COLLECTION, key)
    mark = fingerprint(receipt, message.changes, message.transcoding)
    if known is not None and _is_settled(known.data, message, mark):
        return
    instance = ports.documents.get(instance_records.COLLECTION, receipt.receipt_id)
    if message.decision < decision_of(instance.data if instance else None):
        return
    record = partial(_record, message, mark, known, ports.clock.monotonic_s(), ports)
    try:
        put, is_written = yield from _deliver(message, mark, ports, record)
    except AxiomError as error:
        known = ports.documents.get(COLLECTION, key)
        if known is not None and _is_settled(known.data, message, mark):
            return  # whoever took this attempt for a dead one's was faster
        state = FAILED if isinstance(error, PermanentError) else RETRYING
        if isinstance(error, InstanceConflictError) and _policy(message, ports) is (
            OnConflict.QUARANTINE
        ):
            state = QUARANTINED
        _write(message, record(state, error=str(error), code=error.code), ports)
        if state == QUARANTINED:
            # After the Delivery, by which others see that it was set aside again.
            _quarantine(message, str(error), ports)
        raise
    if is_written:
        _count(message, put.data)
    else:
        _write(message, put, ports)
    crash_points.reached(crash_points.AFTER_RECORD)
    if instance is not None and instance.data["state"] == QUARANTINED:
        end_quarantine(receipt.receipt_id, ports.documents)
    log.info(
        put.data["state"],
        extra={
            "trace_id": receipt.trace_id,
            "sop_instance_uid": receipt.sop_instance_uid,
            "destination": message.destination,
        },
    )


def _is_settled(delivery: Mapping[str, Any], message: DeliveryRequested, mark: str) -> bool:
    if delivery["state"] == GIVEN_UP and message.corrects:
        return True  # it is not there to be corrected, and no person wants it after all
    if delivery["state"] in (GIVEN_UP, SUPERSEDED):
        settled = delivery.get("decision", 0), delivery.get("order", 0)
        return (message.decision, message.order) <= settled
    return bool(delivery["state"] == DELIVERED and delivery.get("fingerprint") == mark)


def _deliver(
    message: DeliveryRequested, mark: str, ports: Ports, record: Callable[..., Put]
) -> Generator[bool, None, tuple[Put, bool]]:
    """The record of the Delivery, and whether it is written already."""
    receipt = message.receipt
    destination = ports.destinations.get(message.destination)
    entity = ports.destinations.entity(message.destination)
    tells = ports.configuration.get().tells_original_attributes(message.destination)
    if not tells:
        # It may have been decided for another destination, or before it was configured so.
        others = tuple(c for c in message.changes if c.by != original_attributes.BY)
        message = replace(message, changes=others)
    copies = Copies(ports.documents, ports.clock)
    with ports.objects.open(receipt.file.object_name) as reader:
        received = header_of(receipt, reader)
        header = apply_changes(received, message.changes)
        told = next((c for c in message.changes if c.by == original_attributes.BY), None)
        copy = Copy(
            destination=message.destination,
            address=entity.address,
            sop_instance_uid=header.text("SOPInstanceUID") or receipt.sop_instance_uid,
            fingerprint=mark,
            receipt_id=receipt.receipt_id,
            received_at=timestamp(receipt.received_at),
            original_attributes=told,
        )
        replaces = entity.on_conflict is OnConflict.REPLACE
        claim = copies.claim(copy, replaces=replaces, corrects=message.corrects)
        if isinstance(claim, Present):
            words = f"equal bytes are there already, from {claim.receipt_id}"
            return record(DELIVERED, answer=words), False
        if isinstance(claim, Conflict):
            raise InstanceConflictError(copy.sop_instance_uid, claim.fingerprint[:8], mark[:8])
        if not isinstance(claim, Claimed):
            words = f"bytes received later are there, from {claim.receipt_id}"
            return record(SUPERSEDED, answer=words), False
        # Even if an earlier attempt told them: nobody knows that it arrived.
        if tells and claim.original_attributes != told:
            header = apply_changes(received, _told_as(claim, message.changes))
        try:
            yield False
        except GeneratorExit:
            if not claim.redelivery:
                copies.release(copy)
            raise
        crash_points.reached(crash_points.AFTER_CLAIM)
        replaces = replaces or message.corrects
        instance = _outgoing(message, header, reader, claim, replaces=replaces)
        try:
            instance = in_wanted_syntax(instance, message.transcoding)
            if _takes_several(destination):
                pending = destination.begin(instance)
                try:
                    yield True
                except GeneratorExit:
                    if not pending.withdraw():
                        copies.rest(copy, gives_up=False)
                    elif not claim.redelivery:
                        copies.release(copy)
                    raise
                answer = pending.answer()
            else:
                answer = destination.deliver(instance)
        except AxiomError as error:
            if claim.redelivery or _may_be_stored(error):
                copies.rest(copy, gives_up=isinstance(error, PermanentError))
            else:
                copies.release(copy)
            raise
    crash_points.reached(crash_points.AFTER_SEND)
    # One transaction: what a destination has, and that the Delivery is done.
    put = record(DELIVERED, answer=answer)
    copies.confirm(copy, answer, also=[put])
    return put, True


def _takes_several(destination: Destination) -> TypeGuard[BatchingDestination]:
    return _is_batching(type(destination))


# Asked of an instance it looks for each method anew, which costs as much as a claim.
@cache
def _is_batching(kind: type[Destination]) -> bool:
    return issubclass(kind, BatchingDestination)


def _told_as(claim: Claimed, changes: Sequence[Change]) -> list[Change]:
    """The Changes, with the Original Attributes that the claim has to be sent with."""
    others = [change for change in changes if change.by != original_attributes.BY]
    return others if claim.original_attributes is None else [*others, claim.original_attributes]


def _outgoing(
    message: DeliveryRequested,
    header: Header,
    reader: ObjectReader,
    claim: Claimed,
    *,
    replaces: bool,
) -> OutgoingInstance:
    receipt = message.receipt
    return OutgoingInstance(
        header=header,
        reader=reader,
        body_offset=receipt.file.body_offset,
        unchanged=not message.changes,
        receipt_id=receipt.receipt_id,
        calling_ae_title=receipt.source.calling_ae_title,
        redelivery=claim.redelivery,
        replaces=replaces,
        earlier_answer=claim.earlier_answer,
        is_syntax_decided=message.transcoding is not None,
        left_out=left_out(receipt.file.beside_pixels, message.changes),
    )


def _may_be_stored(error: AxiomError) -> bool:
    return isinstance(error, DestinationUnavailableError | PermanentError) and error.may_be_stored


def _policy(message: DeliveryRequested, ports: Ports) -> OnConflict:
    return ports.destinations.entity(message.destination).on_conflict


def _quarantine(message: DeliveryRequested, reason: str, ports: Ports) -> None:
    words = f"{message.destination}: {reason}"
    receipt_id = message.receipt.receipt_id
    with suppress(DocumentMissingError):
        instance_records.change(
            ports.documents,
            receipt_id,
            lambda data: {**data, "state": QUARANTINED, "reason": words},
        )


def _write(message: DeliveryRequested, put: Put, ports: Ports) -> None:
    ports.documents.put(put.collection, put.key, put.data)
    _count(message, put.data)


def _record(
    message: DeliveryRequested,
    mark: str,
    known: Document | None,
    began_s: float,
    ports: Ports,
    state: str,
    **outcome: str,
) -> Put:
    """The document of the Delivery as it is to be."""
    now = ports.clock.now()
    receipt = message.receipt
    data: dict[str, Any] = {
        "receipt_id": receipt.receipt_id,
        "destination": message.destination,
        "sop_instance_uid": receipt.sop_instance_uid,
        "study_instance_uid": receipt.study_instance_uid,
        "fingerprint": mark,
        "decision": message.decision,
        "order": message.order,
        "state": state,
        "attempts": (known.data["attempts"] if known else 0) + 1,
        "updated_at": timestamp(now),
        "delivery_ms": round(1000 * (ports.clock.monotonic_s() - began_s), 1),
        "since_received_ms": round(1000 * (now - receipt.received_at).total_seconds(), 1),
        **outcome,
    }
    return Put(COLLECTION, delivery_key(receipt.receipt_id, message.destination), data)


def _count(message: DeliveryRequested, data: Mapping[str, Any]) -> None:
    source, destination, state = message.receipt.source, data["destination"], data["state"]
    tracing.note("axiom.state", state)
    metrics.PROCESS.count(metrics.DELIVERIES, source.type, source.name, destination, state)
    for rule in message.matched_rules:
        metrics.PROCESS.count(metrics.RULE_DELIVERIES, rule, state)
    if state == DELIVERED:
        for metric, took_ms in (
            (metrics.DELIVERY_SECONDS, data["delivery_ms"]),
            (metrics.END_TO_END_SECONDS, data["since_received_ms"]),
        ):
            metrics.PROCESS.observe(metric, destination, seconds=took_ms / 1000)
