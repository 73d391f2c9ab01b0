"""Reconciliation: what came from a source against what a destination holds, Study by Study.

It trusts neither our own records nor the destination's answers to the deliveries: it asks the
destination what is there. What is missing can be delivered anew.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from shared.audit import AuditLog
from shared.errors import (
    AxiomError,
    DocumentMissingError,
    InstanceConflictError,
    ObjectMissingError,
    TransientError,
)
from shared.messages import JobRequested, Topic, encode
from shared.pipeline import again, exceptions
from shared.pipeline.copies import COLLECTION as COPIES
from shared.pipeline.copies import copy_key
from shared.pipeline.delivery_records import COLLECTION as DELIVERIES
from shared.pipeline.delivery_records import (
    DELIVERED,
    FAILED,
    GIVEN_UP,
    RETRYING,
    SUPERSEDED,
    delivery_key,
    is_overtaken,
)
from shared.pipeline.instance_records import COLLECTION as INSTANCES
from shared.pipeline.instance_records import QUARANTINED, receipt_of
from shared.pipeline.plans import delivered_uid
from shared.pipeline.ports import Ports
from shared.ports import Document, Filter, Outgoing
from shared.times import timestamp

log = logging.getLogger(__name__)

COLLECTION = "reconciliations"
RUNNING, FINISHED, NOT_ASKED = "running", "finished", "failed"
ID_PREFIX = "reconcile-"

# A Delivery of which the destination was to keep nothing for so long.
_EXPIRED = "expired"
# What is in one of these states is not to be there.
_WITHDRAWN = (GIVEN_UP, SUPERSEDED, _EXPIRED)
# So many Instances of each kind are named; all are counted.
_NAMED = 1000
_PAGE = 500

Data = Mapping[str, Any]


class Inventory(Protocol):
    """What a destination holds."""

    def instances(self, study_instance_uid: str) -> set[str] | None:
        """The SOP Instance UIDs of a Study; none if it is not there. "" is what belongs to no
        Study (colour palettes, say): None if the destination cannot be asked about that.

        Raises: DestinationUnavailableError and its kin.
        """


class Difference(Struct):
    """What was found. Counts are of Instances; lists name the first of them."""

    studies: int = 0
    present: int = 0
    missing: int = 0  # confirmed, and not there
    failed: int = 0  # not delivered, and not there, or other bytes are: the exception log says why
    pending: int = 0  # on its way
    extra: int = 0  # there, and never sent from here
    not_routed: int = 0  # came, and no rule sends it there
    not_asked: int = 0  # confirmed, of no Study, and the destination is asked by Study
    # Not there: a person gave it up, a later copy took its place, or its time there is over.
    discarded: int = 0
    requeued: int = 0
    gone: int = 0  # missing, and the received file is deleted
    named: dict[str, list[dict[str, str]]] = field(
        default_factory=lambda: {"missing": [], "failed": [], "extra": []}
    )

    def name(self, kind: str, study_instance_uid: str, sop_instance_uid: str, **more: str) -> None:
        """Name one Instance, unless enough are."""
        if len(self.named[kind]) < _NAMED:
            uids = {"study_instance_uid": study_instance_uid, "sop_instance_uid": sop_instance_uid}
            self.named[kind].append({**uids, **more})

    def as_json(self) -> dict[str, Any]:
        """As documents, the API and the command line show it."""
        counts = ("studies", "present", "missing", "failed", "pending", "extra", "not_routed")
        others = ("not_asked", "discarded", "requeued", "gone")
        return {
            **{name: getattr(self, name) for name in (*counts, *others)},
            "instances": self.named,
        }


def create(
    source: str,
    destination: str,
    ports: Ports,
    *,
    by: str,
    since: datetime | None = None,
    requeue: bool = False,
) -> Data:
    """The document of a reconciliation, for one who will `work` on it.

    `source` is the name of a listener or source, or a calling AE Title; "" is all.
    Raises: DestinationMisconfiguredError if there is no such destination.
    """
    ports.destinations.entity(destination)
    now = ports.clock.now()
    key = f"{ID_PREFIX}{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    data = {
        "id": key,
        "source": source,
        "destination": destination,
        "since": timestamp(since) if since else None,
        "requeue": requeue,
        "by": by,
        "state": RUNNING,
        "reason": "",
        "began_at": timestamp(now),
        "finished_at": None,
    }
    created = ports.documents.create(COLLECTION, key, data).data
    AuditLog(ports.documents, ports.clock).add(
        who=by, what="reconciliation", id=key, after="requeue" if requeue else ""
    )
    return created


def start(key: str, ports: Ports) -> None:
    """Have it worked on in the background."""
    ports.bus.publish([Outgoing(Topic.JOB_REQUESTED, encode(JobRequested(key)))])


def work(key: str, ports: Ports) -> Data:
    """Compare, and requeue if that was asked for; the document then. Twice is once.

    Raises: DocumentMissingError; TransientError, after which it begins anew. What else keeps the
    destination from being asked is in the document.
    """
    known = ports.documents.get(COLLECTION, key)
    if known is None:
        raise DocumentMissingError(COLLECTION, key)
    if known.data["state"] != RUNNING:
        return known.data
    said: dict[str, Any]
    try:
        with ports.inventory(known.data["destination"]) as inventory:
            said = {"state": FINISHED, **_compared(known.data, inventory, ports).as_json()}
    except TransientError:
        raise
    except AxiomError as error:
        said = {"state": NOT_ASKED, "reason": str(error)}
    data = {**known.data, **said, "finished_at": timestamp(ports.clock.now())}
    return ports.documents.put(COLLECTION, key, data).data


class _Expected(Struct, frozen=True):
    instance: Data
    study_instance_uid: str  # as the destination sees it
    sop_instance_uid: str
    state: str
    code: str  # of what it failed with


def _compared(asked: Data, inventory: Inventory, ports: Ports) -> Difference:
    difference = Difference()
    for study in _studies(asked, ports):
        difference.studies += study != ""
        expected, others = _expected(study, asked, difference, ports)
        for seen_study in {one.study_instance_uid for one in expected}:
            there = inventory.instances(seen_study)
            own = {o.sop_instance_uid: o for o in expected if o.study_instance_uid == seen_study}
            for one in own.values():
                if there is None and one.state == DELIVERED:
                    difference.not_asked += 1
                else:
                    is_there = there is not None and one.sop_instance_uid in there
                    _judge(one, is_there, asked, difference, ports)
            for uid in sorted((there or set()) - own.keys() - others):
                difference.extra += 1
                difference.name("extra", seen_study, uid)
    return difference


def _studies(asked: Data, ports: Ports) -> list[str]:
    """The Studies of which something came from the source, in the order they came."""
    where = [Filter("received_at", ">=", asked["since"])] if asked["since"] else []
    found = {
        document.data["study_instance_uid"]: None
        for document in _all(ports, where, order_by="received_at")
        if _is_from(document.data, asked["source"])
    }
    return list(found)


def _expected(
    study: str, asked: Data, difference: Difference, ports: Ports
) -> tuple[list[_Expected], set[str]]:
    """What of a Study the destination should have from the source, and from others."""
    destination = asked["destination"]
    kept_since = _kept_since(destination, ports)
    newest: dict[str, _Expected] = {}
    others: set[str] = set()
    where = [Filter("study_instance_uid", "==", study)]
    for document in sorted(_all(ports, where), key=lambda one: str(one.data["received_at"])):
        instance = document.data
        plans = [p for p in instance["deliveries"] if p["destination"] == destination]
        is_asked = _is_from(instance, asked["source"]) and (
            not asked["since"] or instance["received_at"] >= asked["since"]
        )
        if not plans:
            difference.not_routed += is_asked
            continue
        uid = delivered_uid(plans[0], instance["sop_instance_uid"])
        found = ports.documents.get(DELIVERIES, delivery_key(document.key, destination))
        state = RETRYING
        if found is not None and not is_overtaken(found.data, plans[0], instance):
            state = str(found.data["state"])
            if state == DELIVERED and found.data["updated_at"] < kept_since:
                state = _EXPIRED
        if not is_asked:
            others.add(uid)
            if state in (DELIVERED, _EXPIRED) and uid in newest:
                newest[uid] = replace(newest[uid], state=SUPERSEDED)
            continue
        if state in _WITHDRAWN and uid in newest:
            continue
        newest[uid] = _Expected(
            instance,
            delivered_uid(plans[0], study, "StudyInstanceUID"),
            uid,
            state,
            "" if found is None else str(found.data.get("code", "")),
        )
    return list(newest.values()), others


def _kept_since(destination: str, ports: Ports) -> str:
    """What was delivered before is deleted there by now, or soon (`retain_days`)."""
    days = ports.destinations.entity(destination).storage_policy.retain_days
    return "" if days is None else timestamp(ports.clock.now() - timedelta(days=days))


def _judge(
    one: _Expected, is_there: bool, asked: Data, difference: Difference, ports: Ports
) -> None:
    is_conflict = one.state in (FAILED, QUARANTINED) and one.code == InstanceConflictError.code
    is_other = is_there and is_conflict
    if is_there and not is_other:
        difference.present += 1
        return
    if one.state == RETRYING:
        difference.pending += 1
        return
    if one.state in _WITHDRAWN:
        difference.discarded += 1
        return
    kind = "missing" if one.state == DELIVERED else "failed"
    setattr(difference, kind, getattr(difference, kind) + 1)
    receipt_id = str(one.instance["receipt_id"])
    difference.name(
        kind, one.study_instance_uid, one.sop_instance_uid, receipt_id=receipt_id, state=one.state
    )
    if not asked["requeue"] or is_other:  # it would be refused again
        return
    try:
        with ports.objects.open(one.instance["file"]["object_name"]):
            _requeue(one, asked, ports)
    except ObjectMissingError:
        difference.gone += 1
    else:
        difference.requeued += 1


def _requeue(one: _Expected, asked: Data, ports: Ports) -> None:
    """Deliver once more, as it was decided. If we end in between, it counts as failed the next
    time, and is requeued then.
    """
    destination = asked["destination"]
    receipt = receipt_of(one.instance)
    key = delivery_key(receipt.receipt_id, destination)
    known = ports.documents.get(DELIVERIES, key)
    if known is not None and known.data["state"] == DELIVERED:
        reason = "it was confirmed, and is not there (reconciliation)"
        data = {**known.data, "state": FAILED, "error": reason, "code": "missing-at-destination"}
        ports.documents.replace(DELIVERIES, key, data, known.version)
    address = ports.destinations.entity(destination).address
    ports.documents.delete(COPIES, copy_key(destination, address, one.sop_instance_uid))
    where = [
        Filter("receipt_id", "==", receipt.receipt_id),
        Filter("status", "==", exceptions.OPEN),
        Filter("destination", "==", destination),
    ]
    entries = ports.documents.query(exceptions.COLLECTION, where).documents
    if entries:
        for entry in entries:
            ports.exceptions.retry(entry.key, by=asked["by"], job=asked["id"])
        return
    message = again.delivery(
        receipt,
        destination,
        again.planned_changes(one.instance, destination),
        ports.documents,
        tuple(one.instance["matched_rules"]),
        again.planned_transcoding(one.instance, destination),
    )
    ports.bus.publish([message])


def _is_from(instance: Data, source: str) -> bool:
    came = instance["source"]
    return source in ("", came["name"], came["calling_ae_title"])


def _all(ports: Ports, where: Iterable[Filter], order_by: str | None = None) -> Iterator[Document]:
    cursor = None
    while True:
        page = ports.documents.query(
            INSTANCES, list(where), order_by=order_by, limit=_PAGE, cursor=cursor
        )
        yield from page.documents
        cursor = page.cursor
        if cursor is None:
            return
