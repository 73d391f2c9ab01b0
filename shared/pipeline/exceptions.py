"""The exception log: what could not be done, in words, with what a retry needs."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared import metrics, tracing
from shared.audit import AuditLog
from shared.errors import (
    AxiomError,
    DestinationRefusedError,
    DestinationUnavailableError,
    DocumentChangedError,
    DocumentExistsError,
    DocumentMissingError,
    InstanceConflictError,
    RuleFailedError,
    WrongStateError,
)
from shared.messages import (
    DeliveryRequested,
    ExceptionRaised,
    Receipt,
    Source,
    Stage,
    Topic,
    decode,
    encode,
)
from shared.pipeline import again, give_up
from shared.ports import Clock, DocumentStore, Filter, MessageBus, Outgoing, Page
from shared.times import timestamp

COLLECTION = "exceptions"

# How many are remembered, to know a message that comes again. Which came last their times do not
# tell: the wall clock may have been set back in between.
_OCCURRENCES = 20

OPEN, RETRIED, ARCHIVED, DISCARDED = "open", "retried", "archived", "discarded"
STATUSES = (OPEN, RETRIED, ARCHIVED, DISCARDED)
_ACTIONS = {RETRIED: "retry", ARCHIVED: "archive", DISCARDED: "discard"}


def exception_from(
    error: AxiomError,
    *,
    stage: Stage,
    at: datetime,
    receipt: Receipt | None = None,
    source: Source | None = None,
    destination: str = "",
    attempts: int = 1,
    retry_topic: str = "",
    retry_message: bytes = b"",
    key: str = "",
    sop_class_uid: str = "",
    sop_instance_uid: str = "",
    study_instance_uid: str = "",
    transfer_syntax_uid: str = "",
) -> ExceptionRaised:
    """The entry for `error`.

    The same error of the same stage, Instance, destination and `key` (a rule's name, say) has the
    same `exception_id`, however often the message is delivered, so it is one entry.
    """
    if receipt is not None:
        parts = (receipt.receipt_id, stage, destination, key)
        exception_id = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    elif retry_message:
        exception_id = hashlib.sha256(stage.encode() + retry_message).hexdigest()[:24]
    else:
        exception_id = uuid.uuid4().hex[:24]
    scope = tracing.current()
    trace_id = receipt.trace_id if receipt else scope.trace_id if scope else ""
    spoken_by_peer = isinstance(error, DestinationRefusedError | DestinationUnavailableError)
    return ExceptionRaised(
        exception_id=exception_id,
        occurred_at=at,
        stage=stage,
        category=error.category,
        code=error.code,
        message=str(error),
        hint=error.hint,
        peer_message=str(error.args[-1]) if spoken_by_peer and error.args else "",
        receipt_id=receipt.receipt_id if receipt else "",
        trace_id=trace_id,
        source=receipt.source if receipt else source,
        destination=destination,
        sop_class_uid=receipt.sop_class_uid if receipt else sop_class_uid,
        sop_instance_uid=receipt.sop_instance_uid if receipt else sop_instance_uid,
        study_instance_uid=receipt.study_instance_uid if receipt else study_instance_uid,
        attempts=attempts,
        retry_topic=retry_topic,
        retry_message=retry_message,
        transfer_syntax_uid=receipt.transfer_syntax_uid if receipt else transfer_syntax_uid,
    )


class ExceptionLog:
    """The entries, in a DocumentStore; `record_exception` writes them, people work them off."""

    def __init__(self, documents: DocumentStore, bus: MessageBus, clock: Clock) -> None:
        self._documents, self._bus, self._clock = documents, bus, clock
        self._audit = AuditLog(documents, clock)

    def publish(self, raised: ExceptionRaised) -> None:
        """Hand an entry over; it is durable once this returns, and listed soon after."""
        self._bus.publish([Outgoing(Topic.EXCEPTION_RAISED, encode(raised))])

    def record(self, raised: ExceptionRaised) -> None:
        """Write an entry; an entry that is there is opened again, with the newest words.

        The same message a second time changes nothing.
        """
        data = _document(raised)
        source = raised.source.name if raised.source else ""
        metrics.PROCESS.count(
            metrics.EXCEPTIONS,
            raised.category,
            raised.stage,
            raised.code,
            source,
            raised.destination,
        )
        try:
            self._documents.create(COLLECTION, raised.exception_id, data)
        except DocumentExistsError:
            while True:
                known = self._documents.get(COLLECTION, raised.exception_id)
                if known is None:
                    return
                occurrences = known.data.get("occurrences", [known.data["last_at"]])
                if data["last_at"] in occurrences:
                    return
                merged = {
                    **data,
                    "occurrences": [*occurrences, data["last_at"]][-_OCCURRENCES:],
                    "first_at": known.data["first_at"],
                    "attempts": known.data["attempts"] + data["attempts"],
                    "history": known.data["history"],
                }
                try:
                    self._documents.replace(COLLECTION, raised.exception_id, merged, known.version)
                except DocumentChangedError:
                    continue
                return

    def list(
        self,
        *,
        where: Mapping[str, str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Entries, newest first, without what a retry needs.

        `where` names fields of an entry (status, category, stage, code, destination,
        study_instance_uid, sop_instance_uid, receipt_id) and the value each must have; `since` and
        `until` are about the last time.
        """
        filters = [Filter(name, "==", value) for name, value in (where or {}).items() if value]
        if since is not None:
            filters.append(Filter("last_at", ">=", timestamp(since)))
        if until is not None:
            filters.append(Filter("last_at", "<=", timestamp(until)))
        return self._documents.query(
            COLLECTION, filters, order_by="last_at", descending=True, limit=limit, cursor=cursor
        )

    def get(self, exception_id: str) -> Mapping[str, Any]:
        """One entry. Raises: DocumentMissingError."""
        found = self._documents.get(COLLECTION, exception_id)
        if found is None:
            raise DocumentMissingError(COLLECTION, exception_id)
        return found.data

    def retry(
        self,
        exception_id: str,
        *,
        by: str,
        destination: str = "",
        with_current_rules: bool = False,
        job: str = "",
    ) -> Mapping[str, Any]:
        """Try what failed again, from the stage where it failed; the entry opens again if it fails
        again, and stays open if it already has when this returns.

        With `destination` the Instance goes there instead; with `with_current_rules` these decide
        about the received file anew. That closes what is open about rules that failed on it, as
        does sending it elsewhere because one failed. Raises: DocumentMissingError;
        NothingToRetryError if nothing was accepted that could be retried; NeedsCurrentRulesError;
        WrongStateError if it was discarded.
        """
        entry = self.get(exception_id)
        if entry["status"] == DISCARDED:
            raise WrongStateError(exception_id, DISCARDED)
        if with_current_rules:
            message = again.decided_anew(entry, self._documents)
        elif destination:
            message = again.elsewhere(entry, destination, self._documents)
        else:
            message = again.same_again(entry, self._documents)
        is_of_rule = entry["code"] == RuleFailedError.code
        if entry["receipt_id"] and (with_current_rules or is_of_rule):
            self._close(entry["receipt_id"], RuleFailedError.code, RETRIED, by, but=exception_id)
        # In this order: if we end in between, the work is queued and the entry still open.
        self._bus.publish([message])
        is_elsewhere = destination not in ("", entry["destination"])
        if entry["receipt_id"] and message.topic == Topic.DELIVERY_REQUESTED:
            ordered = decode(message.data, DeliveryRequested)
            give_up.planned(ordered, self._documents, anew=is_elsewhere)
        if is_elsewhere:
            give_up.delivery_of(entry, f"sent to {destination} instead", self._documents)
        return self._move(
            exception_id,
            RETRIED,
            by,
            known_attempts=entry["attempts"],
            job=job,
            destination=destination,
            with_current_rules="yes" if with_current_rules else "",
        )

    def archive(
        self, exception_id: str, *, by: str, reason: str = "", job: str = ""
    ) -> Mapping[str, Any]:
        """Mark as dealt with; nothing else happens, and a second time nothing at all.

        Raises: DocumentMissingError.
        """
        return self._move(exception_id, ARCHIVED, by, reason=reason, job=job)

    def discard(
        self, exception_id: str, *, by: str, reason: str, job: str = ""
    ) -> Mapping[str, Any]:
        """Give up for good what failed: it is not delivered, and its received file may go.

        Raises: DocumentMissingError; ValueError without a reason.
        """
        if not reason.strip():
            raise ValueError("a reason is needed to discard")
        give_up.delivery_of(self.get(exception_id), reason, self._documents)
        return self._move(exception_id, DISCARDED, by, reason=reason, job=job)

    def settle_conflicts(self, receipt_id: str, status: str, *, by: str, reason: str = "") -> None:
        """Close what is open about an Instance that was set aside, for a person dealt with it."""
        self._close(receipt_id, InstanceConflictError.code, status, by, reason=reason)

    def settle_failed_rules(
        self, receipt_id: str, status: str, *, by: str, reason: str = ""
    ) -> None:
        """Close what is open about rules that failed on an Instance, before it is dealt with: if
        the current rules fail on it as well, that comes later and opens the entry again.
        """
        self._close(receipt_id, RuleFailedError.code, status, by, reason=reason)

    def _close(
        self, receipt_id: str, code: str, status: str, by: str, *, but: str = "", reason: str = ""
    ) -> None:
        where = {"receipt_id": receipt_id, "status": OPEN, "code": code}
        for document in self.list(where=where).documents:
            if document.key != but:
                self._move(document.key, status, by, reason=reason)

    def _move(
        self,
        exception_id: str,
        status: str,
        by: str,
        *,
        known_attempts: int | None = None,
        **said: str,
    ) -> Mapping[str, Any]:
        """Note a step. An entry of which there were more than `known_attempts` has failed since
        whoever takes the step looked at it, and stays as it is.
        """
        told = {name: value for name, value in said.items() if value}
        while True:
            known = self._documents.get(COLLECTION, exception_id)
            if known is None:
                raise DocumentMissingError(COLLECTION, exception_id)
            if status == ARCHIVED == known.data["status"]:
                return known.data
            has_failed_again = known_attempts not in (None, known.data["attempts"])
            after = str(known.data["status"]) if has_failed_again else status
            step = {"at": timestamp(self._clock.now()), "status": status, "by": by, **told}
            data = {**known.data, "status": after, "history": [*known.data["history"], step]}
            try:
                moved = self._documents.replace(COLLECTION, exception_id, data, known.version).data
            except DocumentChangedError:
                continue
            self._audit.add(
                who=by,
                what=f"exceptions.{_ACTIONS[status]}",
                id=exception_id,
                before=str(known.data["status"]),
                after=after,
                **told,
            )
            return moved


def words_of(entry: Mapping[str, Any]) -> list[str]:
    """What a search for a text looks at."""
    names = ("id", "code", "message", "peer_message", "destination", "receipt_id")
    uids = ("sop_class_uid", "sop_instance_uid", "study_instance_uid")
    source = entry.get("source") or {}
    return [str(word) for word in [*(entry[name] for name in names + uids), *source.values()]]


def _document(raised: ExceptionRaised) -> dict[str, Any]:
    at = timestamp(raised.occurred_at)
    source = raised.source
    return {
        "id": raised.exception_id,
        "status": OPEN,
        "category": raised.category,
        "stage": raised.stage,
        "code": raised.code,
        "message": raised.message,
        "hint": raised.hint,
        "peer_message": raised.peer_message,
        "first_at": at,
        "last_at": at,
        "occurrences": [at],
        "attempts": raised.attempts,
        "destination": raised.destination,
        "receipt_id": raised.receipt_id,
        "trace_id": raised.trace_id,
        "sop_class_uid": raised.sop_class_uid,
        "sop_instance_uid": raised.sop_instance_uid,
        "study_instance_uid": raised.study_instance_uid,
        "transfer_syntax_uid": raised.transfer_syntax_uid,
        "source": source
        and {
            "type": source.type,
            "name": source.name,
            "calling_ae_title": source.calling_ae_title,
            "called_ae_title": source.called_ae_title,
            "peer_address": source.peer_address,
            "principal": source.principal,
        },
        "details": list(raised.details),
        "retry_topic": raised.retry_topic,
        "retry_message": base64.b64encode(raised.retry_message).decode(),
        "history": [],
    }
