"""Study and series rules at work: Instances are collected, and decided about when all are there.

`register` notes that an Instance has come. `Collector.run`, called every second or so, finds out
from what is stored which Studies are complete, records one decision for each, and then has every
Instance of it delivered. Both may be done twice, by two processes at once, and be killed anywhere.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct

from shared import crash_points
from shared.errors import (
    DocumentChangedError,
    DocumentExistsError,
    PermanentError,
    StorageUnavailableError,
    TransientError,
)
from shared.messages import Receipt, Stage
from shared.pipeline import instance_records, studies
from shared.pipeline.exceptions import exception_from
from shared.pipeline.instance_records import decision_of, receipt_of
from shared.pipeline.plans import (
    delivery_messages,
    facts_of,
    plans_of,
    record_failures,
    told_in_the_instance,
)
from shared.pipeline.ports import Ports
from shared.pipeline.studies import COLLECTED, COLLECTING, COMPLETE, STUDIES, TIMED_OUT
from shared.pipeline.study_outcome import (
    Outcome,
    destinations_of,
    is_awaited,
    recorded_round,
    with_outcome,
)
from shared.pipeline.validate import header_in
from shared.ports import Document, Filter
from shared.rules import Program, Verdict
from shared.rules.ruleset import Level
from shared.rules.studies import (
    Arrival,
    Collected,
    State,
    StudyDecision,
    StudyRule,
    study_rules_of,
)
from shared.times import timestamp

log = logging.getLogger(__name__)

# Who carries out a decision is alone with it for so long; then it counts as dead.
CLAIM_S: Final = 30.0
# A Study that could not be decided about now is left for so long: a crosswalk did not answer, say.
_LEFT_ALONE_S: Final = 10.0
_CHUNK: Final = 50

_RULE_IS_GONE: Final = "the rule is no longer in force"

Data = Mapping[str, Any]


def register(data: Data, receipt: Receipt, ports: Ports) -> None:
    """Note that an Instance, whose document is `data`, waits for its study and series rules.

    The same again changes nothing. An Instance whose Study is complete already is late: the timer
    finds it soon, and what was decided about the Study holds for it too.
    """
    for name in data.get("collecting_for", ()):
        rule = _rules_in_force(ports).get(name)
        by_series = rule is not None and rule.level is Level.SERIES
        series_uid = receipt.series_instance_uid if by_series else ""
        key = studies.group_key(name, receipt.study_instance_uid, series_uid)
        arrival = _join(key, rule, data, receipt, ports)
        study = studies.open_study(
            name,
            rule.level if rule else Level.STUDY,
            receipt.study_instance_uid,
            series_uid,
            at=arrival.at,
            due_at=rule.not_before([arrival]) if rule else arrival.at,
            documents=ports.documents,
        )
        # Looked at after the Instance is there to be seen: either the decision found it, or it
        # finds the decision.
        if study.data["state"] != COLLECTING:
            _have_told(studies.member_key(key, receipt.receipt_id), study.data, ports)


class Collector:
    """The timer's part; one for each process. What it remembers only saves it work."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}

    def run(self) -> int:
        """Do all that is due; the number of Studies and Series that were decided about.

        One that fails is logged and tried again later, and keeps no other back.

        Raises: StorageUnavailableError if the documents cannot be asked.
        """
        with self._lock:
            return self._attend_all() + self._attend_late()

    # ---- what is due -----------------------------------------------------------------------

    def _attend_all(self) -> int:
        now = self._ports.clock.now()
        due = [Filter("due_at", "<=", timestamp(now))]
        found = list(studies.all_documents(self._ports.documents, STUDIES, due, order_by="due_at"))
        known = {study.key for study in found}
        self._seen = {key: seen for key, seen in self._seen.items() if key in known}
        return sum(self._attend(study) for study in found)

    def _attend_late(self) -> int:
        """Instances that came after the decision about their Study."""
        waiting = [Filter("is_waiting_late", "==", True)]
        members = studies.all_documents(self._ports.documents, COLLECTED, waiting)
        done = 0
        for key in dict.fromkeys(member.data["study"] for member in members):
            study = self._ports.documents.get(STUDIES, key)
            if study is None or study.data["state"] == COLLECTING or study.data["due_at"]:
                continue  # it is being worked on, or will be
            claimed = self._claim(study, study.data)
            done += claimed is not None and self._attend(claimed)
        return done

    def _attend(self, study: Document) -> bool:
        """True if a decision was carried out."""
        seen = self._seen.get(study.key)
        if seen and seen.left_alone_until and self._ports.clock.now() < seen.left_alone_until:
            return False
        try:
            return self._work_on(study)
        except StorageUnavailableError:
            raise
        except Exception as error:
            # Not the error's text: one that we do not know may quote Values.
            known = isinstance(error, (TransientError, PermanentError))
            log.error(
                "a study cannot be decided about now",
                extra={
                    "study_instance_uid": study.data["study_instance_uid"],
                    "rule": study.data["rule"],
                    "error": str(error) if known else type(error).__name__,
                },
            )
            until = self._ports.clock.now() + timedelta(seconds=_LEFT_ALONE_S)
            self._seen[study.key] = _Seen(left_alone_until=until)
            return False

    def _work_on(self, study: Document) -> bool:
        rule = _rules_in_force(self._ports).get(study.data["rule"])
        if study.data["state"] != COLLECTING:
            # Somebody has decided and was not seen again; or this is for late Instances.
            claimed: Document | None = study
            if study.data["due_at"] <= timestamp(self._ports.clock.now()):
                claimed = self._claim(study, study.data)
        else:
            decision = self._decision(study, rule)
            if decision is None:
                return False
            claimed = self._claim(study, {**study.data, **decision})
        if claimed is None:
            return False
        crash_points.reached(crash_points.AFTER_COMPLETION)
        self._carry_out(claimed, rule)
        return True

    def _claim(self, study: Document, data: Data) -> Document | None:
        """Write `data` with nobody else to carry it out; None if somebody was quicker."""
        until = self._ports.clock.now() + timedelta(seconds=CLAIM_S)
        claimed = {**data, "due_at": timestamp(until)}
        try:
            return self._ports.documents.replace(STUDIES, study.key, claimed, study.version)
        except DocumentChangedError:
            return None

    # ---- deciding --------------------------------------------------------------------------

    def _decision(self, study: Document, rule: StudyRule | None) -> dict[str, Any] | None:
        """The fields that a decision changes; None while the Study is not complete."""
        now = self._ports.clock.now()
        if rule is None:
            gone = StudyDecision(State.COMPLETE, False, Verdict.ROUTE, reason=_RULE_IS_GONE)
            return _decided(study.data, gone, now)
        forced = bool(study.data["forced_by"])
        count = self._ports.documents.count(COLLECTED, [Filter("study", "==", study.key)])
        seen = self._seen.get(study.key)
        if seen and not forced and seen.is_still_so(count, rule, now):
            return None
        members = self._members(study.key)
        arrivals = [self._arrival(member.data, rule) for member in members]
        state, ask_at = rule.state_at(now, arrivals, forced=forced)
        if state is State.WAITING:
            self._seen[study.key] = _Seen(count, rule.fingerprint, ask_at)
            self._put_off(study, rule, arrivals)
            return None
        # Of one that was sent twice, the last counts.
        newest = {member.data["sop_instance_uid"]: member.data for member in members}
        read = [one for member in newest.values() if (one := self._read(member))]
        concluded = rule.conclude(state, [one for _, one in read])
        for (receipt, _), decision in zip(read, concluded.decisions, strict=False):
            record_failures(decision, receipt, self._ports)
        return _decided(study.data, concluded, now)

    def _put_off(self, study: Document, rule: StudyRule, arrivals: Sequence[Arrival]) -> None:
        """Have the timer look again when the Study can be complete at the earliest."""
        if not arrivals:
            return
        due_at = timestamp(rule.not_before(arrivals))
        if due_at > timestamp(self._ports.clock.now()):
            try:
                data = {**study.data, "due_at": due_at}
                self._ports.documents.replace(STUDIES, study.key, data, study.version)
            except DocumentChangedError:
                return  # a person wants it sooner, or another timer was quicker

    def _members(self, key: str, *more: Filter) -> list[Document]:
        where = [Filter("study", "==", key), *more]
        found = list(studies.all_documents(self._ports.documents, COLLECTED, where))
        return sorted(found, key=lambda member: str(member.data["arrived_at"]))

    def _arrival(self, member: Data, rule: StudyRule) -> Arrival:
        known = studies.arrival_of(member, rule)
        if known is not None:
            return known
        # The rule has changed since: its new wishes are asked of the header.
        at = datetime.fromisoformat(member["arrived_at"])
        read = self._read(member)
        if read is None:
            return Arrival(at, member["sop_instance_uid"], member["series_instance_uid"])
        return rule.arrival_of(read[1].header, read[1].facts, at=at)

    def _read(self, member: Data) -> tuple[Receipt, Collected] | None:
        """The Instance as it was received; None if it cannot be read any more."""
        known = self._ports.documents.get(instance_records.COLLECTION, member["receipt_id"])
        if known is None:
            return None
        receipt = receipt_of(known.data)
        try:
            return receipt, _received(receipt, known.data, self._ports)
        except PermanentError:
            return None  # `_outcome` says so where the Instance itself is concerned

    # ---- carrying out ----------------------------------------------------------------------

    def _carry_out(self, study: Document, rule: StudyRule | None) -> None:
        """Tell every Instance that has not heard of the decision, and have it delivered."""
        round_ = study.data["round"]
        members = self._members(study.key, Filter("round", "<", round_))
        since = self._ports.clock.now()
        for start in range(0, len(members), _CHUNK):
            chunk = members[start : start + _CHUNK]
            messages = []
            for member in chunk:
                messages += self._tell(study.data, member.data, rule)
            self._ports.bus.publish(messages)
            for member in chunk:
                _settle(member, round_, self._ports)
            now = self._ports.clock.now()
            if now - since > timedelta(seconds=CLAIM_S / 3):
                claimed = self._claim(study, study.data)
                if claimed is None:
                    return  # a person, or another timer that thought this one dead, goes on
                study, since = claimed, now
        late = [Filter("study", "==", study.key), Filter("late", "==", True)]
        data = {
            **study.data,
            "due_at": None,
            "instances": self._ports.documents.count(COLLECTED, late[:1]),
            "late": self._ports.documents.count(COLLECTED, late),
        }
        try:
            self._ports.documents.replace(STUDIES, study.key, data, study.version)
        except DocumentChangedError:
            return
        log.info(
            "a study was decided about",
            extra={
                name: data[name]
                for name in ("study_instance_uid", "rule", "state", "matched", "instances", "late")
            },
        )

    def _tell(self, study: Data, member: Data, rule: StudyRule | None) -> list[Any]:
        """Record the outcome in the Instance's document. Returns what asks for its Deliveries; the
        same if it was recorded before.
        """
        name, round_ = study["rule"], study["round"]
        outcome: Outcome | None = None
        while True:
            known = self._ports.documents.get(instance_records.COLLECTION, member["receipt_id"])
            if known is None or not is_awaited(known.data, name):
                return []
            receipt = receipt_of(known.data)
            data = known.data
            recorded = recorded_round(data, name)
            if recorded > round_:
                return []  # a person had it decided anew meanwhile
            if recorded < round_:
                outcome = outcome or self._outcome(study, member, rule, receipt, data)
                try:
                    data = self._ports.documents.replace(
                        instance_records.COLLECTION,
                        known.key,
                        with_outcome(data, outcome),
                        known.version,
                    ).data
                except DocumentChangedError:
                    continue
            return delivery_messages(receipt, data, destinations_of(data, name))

    def _outcome(
        self, study: Data, member: Data, rule: StudyRule | None, receipt: Receipt, instance: Data
    ) -> Outcome:
        said = {
            "rule": study["rule"],
            "round": study["round"],
            "late": member["late"],
            "decided_at": timestamp(self._ports.clock.now()),
        }
        verdict = Verdict(study["verdict"])
        # What a person has released goes, though the others of its Study are held.
        failed = f"rule {study['rule']} failed"
        is_held = verdict is Verdict.HOLD and not study["reason"].startswith(failed)
        goes = verdict is Verdict.ROUTE or (is_held and instance.get("released"))
        if not study["matched"] or not goes:
            return Outcome(
                **said, matched=study["matched"], verdict=verdict, reason=study["reason"]
            )
        if rule is None:
            return Outcome(**said, matched=False, verdict=verdict, reason=_RULE_IS_GONE)
        try:
            one = _received(receipt, instance, self._ports)
            decision = rule.decision_for(one)
        except PermanentError as error:
            raised = exception_from(
                error,
                stage=Stage.RULES,
                at=self._ports.clock.now(),
                receipt=receipt,
                key=study["rule"],
            )
            self._ports.exceptions.publish(raised)
            return Outcome(**said, matched=True, verdict=Verdict.HOLD, reason=str(error))
        record_failures(decision, receipt, self._ports)
        # As with an instance rule that names no destination.
        route = self._ports.configuration.get().settings.default_route
        plans = plans_of(decision, () if instance["deliveries"] else route)
        return Outcome(
            **said,
            matched=True,
            verdict=decision.verdict,
            reason=study["reason"] if decision.verdict is verdict else decision.reason,
            plans=told_in_the_instance(plans, one.header, receipt, self._ports)
            if decision.verdict is Verdict.ROUTE
            else (),
            high_priority=decision.high_priority,
        )


class _Seen(Struct, frozen=True):
    """What a Study was like when it was last looked at."""

    count: int = -1
    fingerprint: str = ""
    ask_at: datetime | None = None
    left_alone_until: datetime | None = None

    def is_still_so(self, count: int, rule: StudyRule, now: datetime) -> bool:
        if (self.count, self.fingerprint) != (count, rule.fingerprint):
            return False
        return self.ask_at is None or now < self.ask_at


@lru_cache(maxsize=4)
def _study_rules(program: Program) -> Mapping[str, StudyRule]:
    return study_rules_of(program)


def _rules_in_force(ports: Ports) -> Mapping[str, StudyRule]:
    return _study_rules(ports.rules.program()[1])


def _join(key: str, rule: StudyRule | None, data: Data, receipt: Receipt, ports: Ports) -> Arrival:
    """Create the Instance's `collected` document, or open it again if it was decided anew."""
    decision = decision_of(data)
    name = studies.member_key(key, receipt.receipt_id)
    now = ports.clock.now()
    arrival = Arrival(now, receipt.sop_instance_uid, receipt.series_instance_uid)
    known = ports.documents.get(COLLECTED, name)
    if known is None:
        if rule is not None:
            read = _received(receipt, data, ports)
            arrival = rule.arrival_of(read.header, read.facts, at=now)
        member = studies.member_of(
            key, receipt.receipt_id, decision, arrival, rule.fingerprint if rule else ""
        )
        try:
            ports.documents.create(COLLECTED, name, member)
        except DocumentExistsError:
            known = ports.documents.get(COLLECTED, name)
    while known is not None and known.data["decision"] < decision:
        again = {**known.data, "decision": decision, "round": 0}
        try:
            ports.documents.replace(COLLECTED, name, again, known.version)
            break
        except DocumentChangedError:
            known = ports.documents.get(COLLECTED, name)
    return arrival


def _have_told(name: str, study: Data, ports: Ports) -> None:
    """Have the timer see to an Instance that the decision about its Study may have missed."""
    while (known := ports.documents.get(COLLECTED, name)) is not None:
        if known.data["round"] or known.data["is_waiting_late"]:
            return
        is_late = known.data["arrived_at"] > study["decided_at"]
        data = {**known.data, "late": known.data["late"] or is_late, "is_waiting_late": True}
        try:
            ports.documents.replace(COLLECTED, name, data, known.version)
        except DocumentChangedError:
            continue
        return


def _settle(member: Document, round_: int, ports: Ports) -> None:
    """Note that the Instance has heard of the decision, unless it was decided anew meanwhile."""
    known: Document | None = member
    while (
        known is not None
        and known.data["decision"] == member.data["decision"]
        and known.data["round"] < round_
    ):
        data = {**known.data, "round": round_, "is_waiting_late": False}
        try:
            ports.documents.replace(COLLECTED, member.key, data, known.version)
        except DocumentChangedError:
            known = ports.documents.get(COLLECTED, member.key)
            continue
        return


def _received(receipt: Receipt, instance: Data, ports: Ports) -> Collected:
    facts = facts_of(
        receipt,
        returned=bool(instance.get("returned")),
        released=bool(instance.get("released")),
    )
    return Collected(header_in(receipt, ports.objects), facts)


def _decided(study: Data, decision: StudyDecision, now: datetime) -> dict[str, Any]:
    return {
        "state": TIMED_OUT if decision.state is State.TIMED_OUT else COMPLETE,
        "round": study["round"] + 1,
        "decided_at": timestamp(now),
        "matched": decision.matched,
        "verdict": decision.verdict.value,
        "reason": decision.reason,
    }
