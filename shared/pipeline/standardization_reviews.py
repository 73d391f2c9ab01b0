"""People in charge of standard terms: approve, correct, reject and take back, for a whole Series.

A person's word is recorded first; then every Instance of the Series that got something else is
decided about anew, which delivers it again. If we end in between, saying the same again goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from shared.audit import AuditLog
from shared.errors import (
    AxiomError,
    DocumentChangedError,
    DocumentMissingError,
    NoTermError,
    ObjectMissingError,
    WrongStateError,
)
from shared.pipeline import instance_records, rules
from shared.pipeline.instance_records import HELD as INSTANCE_HELD
from shared.pipeline.instance_records import ROUTED, receipt_of
from shared.pipeline.ports import Ports
from shared.pipeline.series_decisions import (
    APPLIED,
    APPROVED,
    ASKING,
    COLLECTION,
    CORRECTED,
    KEPT,
    OPEN,
    REJECTED,
    REVERTED,
    STATES,
    is_settled_as,
)
from shared.pipeline.site_synonyms import COLLECTION as SYNONYMS
from shared.pipeline.site_synonyms import SiteSynonyms
from shared.pipeline.standardizers import audited
from shared.pipeline.validate import header_of
from shared.ports import Document, Filter, Page
from shared.standardize.proposals import Question
from shared.times import timestamp

_PAGE: Final = 200

Data = Mapping[str, Any]


class Settled(Struct, frozen=True):
    """A decision as it is then, how many Instances are decided about anew for it, and how many
    cannot be, because their received file is gone.
    """

    decision: Data
    again: int
    gone: int


def find(
    ports: Ports,
    *,
    states: Sequence[str] = OPEN,
    series_instance_uid: str = "",
    limit: int = 100,
    cursor: str | None = None,
) -> Page:
    """Decisions in these states, the newest first. Raises: ValueError for a foreign cursor."""
    where = [Filter("state", "in", list(states or STATES))]
    if series_instance_uid:
        where.append(Filter("series_instance_uid", "==", series_instance_uid))
    return ports.documents.query(
        COLLECTION, where, order_by="updated_at", descending=True, limit=limit, cursor=cursor
    )


def summary(data: Data) -> dict[str, Any]:
    """A decision without any text of the Instances."""
    proposal = data["proposal"] or {}
    failed = data["failed"]  # decisions that were made before reasons were kept have a list
    shown = ("provider", "model", "vocabulary", "edition", "confidence")
    return {
        **{name: value for name, value in data.items() if name != "proposal"},
        "failed": failed if isinstance(failed, dict) else dict.fromkeys(failed, "unavailable"),
        "proposed": proposal.get("value"),
        **{name: proposal.get(name) for name in shown},
        "evidence": [
            {"source": one["source"], "how": one["how"]} for one in proposal.get("evidence", ())
        ],
    }


def read(key: str, ports: Ports, *, by: str) -> dict[str, Any]:
    """A decision with what was asked, and all evidence; that somebody looked is in the audit log.

    Raises: DocumentMissingError.
    """
    data = _known(key, ports).data
    question = _question(data, ports)
    AuditLog(ports.documents, ports.clock).add(who=by, what="standardize.read", id=key)
    return {
        **summary(data),
        "evidence": list((data["proposal"] or {}).get("evidence", ())),
        "raw_value": None if question is None else question.raw_value,
        "context": None if question is None else dict(question.context),
        **ports.standardizers.hits(key, data["standardizer"], question),
    }


def approve(key: str, ports: Ports, *, by: str, always: bool = False) -> Settled:
    """What was proposed is right. `always` has the site say so from now on.

    Raises: DocumentMissingError; WrongStateError if nothing was proposed or it is decided.
    """
    data = _known(key, ports).data
    value = (data["proposal"] or {}).get("value")
    if value is None:
        raise WrongStateError(key, data["state"])
    return _settle(key, (*OPEN, REJECTED), APPROVED, value, ports, by=by, always=always)


def correct(
    key: str, value: str, ports: Ports, *, by: str, always: bool = False, reason: str = ""
) -> Settled:
    """Another term is right, also where one was applied already.

    Raises: DocumentMissingError; NoTermError.
    """
    data = _known(key, ports).data
    vocabulary = ports.standardizers.vocabulary(data["standardizer"], data["attribute"])
    if not vocabulary.may_propose(value):
        raise NoTermError(vocabulary.name, data["attribute"])
    return _settle(key, STATES, CORRECTED, value, ports, by=by, always=always, reason=reason)


def reject(key: str, ports: Ports, *, by: str, reason: str = "") -> Settled:
    """What was proposed is wrong: the Instances go on as they came.

    Raises: DocumentMissingError; WrongStateError if it is no proposal.
    """
    return _settle(key, OPEN, REJECTED, None, ports, by=by, reason=reason)


def revert(key: str, ports: Ports, *, by: str, reason: str = "") -> Settled:
    """Take back what was applied: the Instances are delivered again as they came.

    Raises: DocumentMissingError; WrongStateError if nothing was applied.
    """
    applied = (APPLIED, KEPT, APPROVED, CORRECTED)
    return _settle(key, applied, REVERTED, None, ports, by=by, reason=reason)


def ask_again(key: str, ports: Ports, *, by: str) -> Settled:
    """Have the providers decide anew, as when one was down or the configuration has changed.

    Raises: DocumentMissingError.
    """
    while True:
        known = _known(key, ports)
        data = {
            **known.data,
            "state": ASKING,
            "asked_until": "",
            "history": [*known.data["history"], _step("ask_again", by, "", ports)],
        }
        try:
            ports.documents.replace(COLLECTION, key, data, known.version)
            break
        except DocumentChangedError:
            continue
    _audit("ask_again", known.data, None, ports, by=by, reason="")
    return Settled(data, *_sweep(data, ports))


def forget_synonym(key: str, ports: Ports, *, by: str) -> None:
    """Say it no more; what was decided by it stays. Raises: DocumentMissingError."""
    gone = SiteSynonyms(ports.documents).delete(key)
    if gone is None:
        raise DocumentMissingError(SYNONYMS, key)
    AuditLog(ports.documents, ports.clock).add(
        who=by, what="standardize.forget_synonym", id=key, before=gone["value"]
    )


# ---- inside --------------------------------------------------------------------------------


def _settle(
    key: str,
    allowed: Sequence[str],
    state: str,
    value: str | None,
    ports: Ports,
    *,
    by: str,
    always: bool = False,
    reason: str = "",
) -> Settled:
    # Asked first: whoever says "always" is not to be heard by half.
    asked = _asked(_known(key, ports).data, ports) if always else None
    while True:
        known = _known(key, ports)
        before = known.data
        if (before["state"], before["value"]) == (state, value):
            data = before  # said before; its Instances may not all have heard
            break
        if before["state"] not in allowed:
            raise WrongStateError(key, before["state"])
        data = {
            **before,
            "state": state,
            "value": value,
            "by": by,
            "reason": reason,
            "revision": before["revision"] + 1,
            "updated_at": timestamp(ports.clock.now()),
            "history": [*before["history"], _step(state, by, reason, ports)],
        }
        try:
            ports.documents.replace(COLLECTION, key, data, known.version)
        except DocumentChangedError:
            continue
        _audit(state, before, value, ports, by=by, reason=reason)
        proposal = before["proposal"] or {}
        ports.standardizers.counts.count(
            "settled",
            before["standardizer"],
            before["attribute"],
            proposal.get("provider", ""),
            proposal.get("vocabulary", ""),
            state,
        )
        # A command ends before it would be written by itself.
        ports.standardizers.counts.write()
        break
    if asked is not None and value is not None:
        _say_always(asked, value, ports, by=by)
    return Settled(data, *_sweep(data, ports))


def _asked(data: Data, ports: Ports) -> Question:
    question = _question(data, ports)
    if question is None:
        raise ObjectMissingError(data["receipt_id"])
    return question


def _say_always(question: Question, value: str, ports: Ports, *, by: str) -> None:
    at = timestamp(ports.clock.now())
    said = SiteSynonyms(ports.documents).add(question, value, by=by, at=at)
    if said is not None:
        AuditLog(ports.documents, ports.clock).add(
            who=by, what="standardize.synonym", id=said["key"], after=value, source=said["source"]
        )


def _sweep(data: Data, ports: Ports) -> tuple[int, int]:
    """Have the Instances decided about anew that got something else."""
    again = gone = 0
    for instance in _instances(data, ports):
        if instance["state"] not in (ROUTED, INSTANCE_HELD):
            continue
        told = [one for one in instance.get("standardized", ()) if one["key"] == data["key"]]
        if not told or (data["state"] != ASKING and is_settled_as(data, told[0])):
            continue
        receipt = receipt_of(instance)
        try:
            ports.objects.stat(receipt.file.object_name)
        except ObjectMissingError:
            gone += 1
            continue
        warnings = tuple(instance["warnings"])
        rules.decide_anew(receipt, warnings, ports, released=instance["released"], corrects=True)
        again += 1
    return again, gone


def _instances(data: Data, ports: Ports) -> Iterator[Data]:
    if not data["series_instance_uid"]:
        found = ports.documents.get(instance_records.COLLECTION, data["receipt_id"])
        if found is not None:
            yield found.data
        return
    where = [Filter("series_instance_uid", "==", data["series_instance_uid"])]
    cursor = None
    while True:
        page = ports.documents.query(instance_records.COLLECTION, where, limit=_PAGE, cursor=cursor)
        yield from [document.data for document in page.documents]
        cursor = page.cursor
        if cursor is None:
            return


def _known(key: str, ports: Ports) -> Document:
    found = ports.documents.get(COLLECTION, key)
    if found is None or "value" not in found.data:
        raise DocumentMissingError(COLLECTION, key)
    return found


def _question(data: Data, ports: Ports) -> Question | None:
    """What was asked about the Instance that came first, as it was received; None if it is gone."""
    known = ports.documents.get(instance_records.COLLECTION, data["receipt_id"])
    if known is None:
        return None
    receipt = receipt_of(known.data)
    try:
        with ports.objects.open(receipt.file.object_name) as reader:
            header = header_of(receipt, reader)
            return ports.standardizers.question(data["standardizer"], data["attribute"], header)
    except AxiomError:
        return None


def _step(what: str, by: str, reason: str, ports: Ports) -> dict[str, str]:
    step = {"at": timestamp(ports.clock.now()), "action": what, "by": by}
    return {**step, "reason": reason} if reason else step


def _audit(
    what: str, before: Data, value: str | None, ports: Ports, *, by: str, reason: str
) -> None:
    AuditLog(ports.documents, ports.clock).add(
        who=by,
        what=f"standardize.{what}",
        id=before["key"],
        before=before["value"] or "",
        after=value or "",
        reason=reason,
        standardizer=before["standardizer"],
        attribute=before["attribute"],
        series_instance_uid=before["series_instance_uid"],
        **audited(before["proposal"] or {}),
    )
