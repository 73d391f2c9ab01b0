"""Studies and Series that rules wait for: their documents, and what people may do with them.

`studies` has one document for each rule and Study (or Series): it is created once and changes only
when the timer or a person decides something. `collected` has one small document for each rule and
Instance. So nothing is counted up, and a thousand Instances write a thousand different documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from shared.audit import AuditLog
from shared.errors import DocumentChangedError, DocumentExistsError, DocumentMissingError
from shared.ports import Clock, Document, DocumentStore, Filter, Page
from shared.rules.studies import Arrival, StudyRule
from shared.times import timestamp

STUDIES, COLLECTED = "studies", "collected"

COLLECTING, COMPLETE, TIMED_OUT = "collecting", "complete", "timed_out"
STATES = (COLLECTING, COMPLETE, TIMED_OUT)

_PAGE = 1000

Data = Mapping[str, Any]


class StudyDecidedError(ValueError):
    """What was decided about the Study has been carried out already."""


# ---- what the collector keeps ----------------------------------------------------------------


def group_key(rule: str, study_instance_uid: str, series_instance_uid: str) -> str:
    """The key of a `studies` document. `series_instance_uid` is "" for a study rule."""
    parts = (rule, study_instance_uid, series_instance_uid)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def open_study(
    rule: str,
    level: str,
    study_instance_uid: str,
    series_instance_uid: str,
    *,
    at: datetime,
    due_at: datetime,
    documents: DocumentStore,
) -> Document:
    """The document of a Study or Series that a rule waits for; created if there is none."""
    key = group_key(rule, study_instance_uid, series_instance_uid)
    known = documents.get(STUDIES, key)
    if known is not None:
        return known
    data = {
        "id": key,
        "rule": rule,
        "level": level,
        "study_instance_uid": study_instance_uid,
        "series_instance_uid": series_instance_uid,
        "state": COLLECTING,
        "opened_at": timestamp(at),
        # When the timer looks next: null if there is nothing to do. Whoever carries out a decision
        # puts it off, so that nobody else does until then.
        "due_at": timestamp(due_at),
        # Decisions are numbered from 1; a member of a lower round has not heard of the last one.
        "round": 0,
        "forced_by": "",
        "decided_at": None,
        "matched": None,
        "verdict": None,
        "reason": "",
        "instances": None,
        "late": 0,
    }
    try:
        return documents.create(STUDIES, key, data)
    except DocumentExistsError:
        known = documents.get(STUDIES, key)
        if known is None:
            raise
        return known


def member_of(
    key: str, receipt_id: str, decision: int, arrival: Arrival, fingerprint: str
) -> dict[str, Any]:
    """A new `collected` document; its key is `member_key`."""
    return {
        "study": key,
        "receipt_id": receipt_id,
        # Which decision of the instance rules had it collected.
        "decision": decision,
        "arrived_at": timestamp(arrival.at),
        "sop_instance_uid": arrival.sop_instance_uid,
        "series_instance_uid": arrival.series_instance_uid,
        "fulfils": list(arrival.fulfils),
        "expects": list(arrival.expects),
        "fingerprint": fingerprint,
        "round": 0,
        "late": False,
        "is_waiting_late": False,
    }


def member_key(key: str, receipt_id: str) -> str:
    """The key of an Instance in the Study or Series `key`."""
    return f"{key}:{receipt_id}"


def arrival_of(member: Data, rule: StudyRule) -> Arrival | None:
    """What the member keeps, if it was made for the rule as it is now."""
    if member["fingerprint"] != rule.fingerprint:
        return None
    return Arrival(
        at=datetime.fromisoformat(member["arrived_at"]),
        sop_instance_uid=member["sop_instance_uid"],
        series_instance_uid=member["series_instance_uid"],
        fulfils=tuple(member["fulfils"]),
        expects=tuple(member["expects"]),
    )


def all_documents(
    documents: DocumentStore,
    collection: str,
    where: Sequence[Filter],
    *,
    order_by: str | None = None,
) -> Iterator[Document]:
    """All that fit, page by page."""
    cursor = None
    while True:
        page = documents.query(collection, where, order_by=order_by, limit=_PAGE, cursor=cursor)
        yield from page.documents
        cursor = page.cursor
        if cursor is None:
            return


# ---- what people see and do ------------------------------------------------------------------


def find(
    documents: DocumentStore,
    *,
    where: Mapping[str, str] | None = None,
    since: datetime | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Page:
    """Studies and Series, the newest first; see `shown`.

    `where` names fields (state, study_instance_uid, rule) and the value each must have.
    """
    filters = [Filter(name, "==", value) for name, value in (where or {}).items() if value]
    if since is not None:
        filters.append(Filter("opened_at", ">=", timestamp(since)))
    return documents.query(
        STUDIES, filters, order_by="opened_at", descending=True, limit=limit, cursor=cursor
    )


def shown(documents: DocumentStore, study: Data) -> dict[str, Any]:
    """A document as people see it: with the number of Instances while these still come."""
    count = study["instances"]
    if count is None or study["state"] == COLLECTING:
        count = documents.count(COLLECTED, [Filter("study", "==", study["id"])])
    hidden = ("due_at", "round")
    return {
        **{name: value for name, value in study.items() if name not in hidden},
        "instances": count,
    }


def of_study(documents: DocumentStore, study_instance_uid: str) -> list[Document]:
    """What all rules have of one Study. Raises: DocumentMissingError if none has anything."""
    where = [Filter("study_instance_uid", "==", study_instance_uid)]
    found = list(all_documents(documents, STUDIES, where))
    if not found:
        raise DocumentMissingError(STUDIES, study_instance_uid)
    return found


def complete(
    documents: DocumentStore, clock: Clock, study_instance_uid: str, *, by: str, rule: str = ""
) -> list[Data]:
    """Have a Study, and its Series, count as complete for all rules or for one.

    The timer decides within a second or so. What was held or discarded is decided anew; what was
    sent, or is of no rule, stays as it is. Returns the documents that changed.

    Raises: DocumentMissingError; StudyDecidedError if there was none to change.
    """
    found = [
        study
        for study in of_study(documents, study_instance_uid)
        if rule in ("", study.data["rule"])
    ]
    if not found:
        raise DocumentMissingError(STUDIES, f"{study_instance_uid} of rule {rule}")
    changed = [data for study in found if (data := _forced(documents, clock, study, by))]
    if not changed:
        raise StudyDecidedError("the Study is complete already, and nothing of it is held back")
    for data in changed:
        AuditLog(documents, clock).add(
            who=by,
            what="studies.complete",
            id=study_instance_uid,
            rule=data["rule"],
            series_instance_uid=data["series_instance_uid"],
        )
    return changed


def _forced(documents: DocumentStore, clock: Clock, study: Document, by: str) -> Data | None:
    known: Document | None = study
    while known is not None:
        is_held_back = known.data["matched"] and known.data["verdict"] != "route"
        if known.data["state"] != COLLECTING and not is_held_back:
            return None
        data = {
            **known.data,
            "state": COLLECTING,
            "forced_by": by,
            "due_at": timestamp(clock.now()),
        }
        try:
            return documents.replace(STUDIES, known.key, data, known.version).data
        except DocumentChangedError:
            known = documents.get(STUDIES, known.key)
    return None
