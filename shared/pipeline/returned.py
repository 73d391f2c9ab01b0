"""The loop guard: whether an Instance that is received is one that left from here.

What left is known from the documents of the Instances received before, so nothing is written for
it, but for Instances that leave under another SOP Instance UID than they came with.

An Instance has come back if one with its SOP Instance UID was sent on from here, and

- every Attribute that rules changed for that destination has the new Value: no sender but one that
  has it from us can know that; or
- it was sent on unchanged to the peer that it comes from now: the calling AE Title is that of the
  `dimse` destination, or the address that of the `dicomweb` destination, loopback aside.

So a modality that sends again what it sent before is never taken for a loop. The guard lasts as
long as the documents are kept.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from shared.config.entities import (
    Configuration,
    DicomwebDestination,
    DimseDestination,
    OrthancDestination,
)
from shared.dicom import original_attributes
from shared.dicom.changes import Change
from shared.dicom.header import Header
from shared.dicom.values import as_text
from shared.errors import DocumentExistsError
from shared.messages import Receipt, Source
from shared.pipeline.instance_records import COLLECTION
from shared.pipeline.plans import Plan
from shared.pipeline.ports import Ports
from shared.ports import Filter

RENAMED: Final = "renamed-instances"
_SOP_INSTANCE_UID: Final = "SOPInstanceUID"
_LOOKED_AT: Final = 10  # earlier receipts of one SOP Instance, the newest


def has_returned(receipt: Receipt, header: Header, ports: Ports) -> bool:
    """Whether this Instance left from here before."""
    configuration = ports.configuration.get()
    return any(
        _is_this(plan, header, receipt.source, configuration)
        for plan in _departures(receipt, ports)
    )


def remember_renamed(receipt: Receipt, plans: Sequence[Plan], ports: Ports) -> None:
    """Note under which other SOP Instance UIDs the Instance leaves; twice is once."""
    for plan in plans:
        uid = _final(plan.changes, _SOP_INSTANCE_UID)
        if uid and uid != (receipt.sop_instance_uid,):
            with suppress(DocumentExistsError):
                ports.documents.create(RENAMED, uid[0], {"receipt_id": receipt.receipt_id})


def _departures(receipt: Receipt, ports: Ports) -> list[Plan]:
    same = [Filter("sop_instance_uid", "==", receipt.sop_instance_uid)]
    # Most have none, and that is known soonest without an order.
    page = ports.documents.query(COLLECTION, same, limit=1)
    if page.documents:
        page = ports.documents.query(
            COLLECTION, same, order_by="received_at", descending=True, limit=_LOOKED_AT
        )
    earlier: list[Mapping[str, Any]] = [document.data for document in page.documents]
    renamed = ports.documents.get(RENAMED, receipt.sop_instance_uid)
    if renamed is not None:
        original = ports.documents.get(COLLECTION, renamed.data["receipt_id"])
        earlier += [original.data] if original else []
    return [
        plan
        for data in earlier
        if data["receipt_id"] != receipt.receipt_id
        for plan in msgspec.convert(data["deliveries"], list[Plan])
    ]


def _is_this(plan: Plan, header: Header, source: Source, configuration: Configuration) -> bool:
    changed = [change for change in plan.changes if change.by != original_attributes.BY]
    last = {change.path: change for change in changed}
    first = {change.path: change for change in reversed(changed)}
    final = {
        path: change
        for path, change in last.items()
        if change.new_element != first[path].old_element
    }
    if final:
        return all(_has(header, change) for change in final.values())
    return _is_peer(configuration, plan.destination, source)


def _has(header: Header, change: Change) -> bool:
    """Whether the Attribute is as the Change left it, whatever the Transfer Syntax is now."""
    element = header.element(change.path)
    if change.new is None or element is None:
        return change.new is None and element is None
    if change.vr == "SQ" or element.vr == "SQ":
        return header.data[element.start : element.value_end] == change.new_element
    return tuple(map(as_text, header.values(change.path) or ())) == change.new


def _is_peer(configuration: Configuration, name: str, source: Source) -> bool:
    destination = configuration.destination(name)
    if isinstance(destination, DimseDestination):
        return bool(source.calling_ae_title) and (
            source.calling_ae_title.strip() == destination.ae_title.strip()
        )
    if isinstance(destination, DicomwebDestination | OrthancDestination) and source.peer_address:
        host = urlsplit(destination.base_url).hostname or ""
        with suppress(ValueError):
            address = ipaddress.ip_address(source.peer_address)
            return not address.is_loopback and address == ipaddress.ip_address(host)
    return False


def _final(changes: Sequence[Change], path: str) -> tuple[str, ...] | None:
    return next((change.new for change in reversed(changes) if change.path == path), None)
