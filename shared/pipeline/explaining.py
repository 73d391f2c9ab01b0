"""Why the rules decided about an Instance as they did.

The answers hold patients' Values; they are for the person who asked, never for a log.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final

from shared.audit import AuditLog
from shared.config.entities import Configuration
from shared.errors import DocumentMissingError, ObjectMissingError, PermanentError
from shared.messages import InstanceAccepted, decode
from shared.pipeline import dry_run, exceptions, studies
from shared.pipeline.dry_run import Trial
from shared.pipeline.instance_records import COLLECTION
from shared.pipeline.ports import Ports
from shared.pipeline.rules import RejectedByRuleError
from shared.ports import Filter
from shared.rules import Program, Verdict
from shared.rules.explain import as_document, condition_document, explain, explain_study
from shared.rules.ruleset import Level
from shared.rules.studies import Collected

_MOST_ENTRIES: Final = 20
_MOST_COLLECTED: Final = 1_000  # Instances of a Study that are read again


def explain_instance(
    receipt_id: str, ports: Ports, decided_by: Configuration | None, *, by: str
) -> dict[str, Any]:
    """The account of every rule about an Instance that was received: with the rules of
    `decided_by`, or those that are live now. It is noted in the audit log.

    Of one that never got as far as a decision, or that a rule rejected, it says what happened
    instead. Raises:
    DocumentMissingError if there is none, or nothing is known of it yet; ObjectMissingError if the
    received file is gone; InvalidConfigurationError.
    """
    known = ports.documents.get(COLLECTION, receipt_id)
    if known is None:
        return _undecided(receipt_id, ports, by=by)
    if decided_by is None:
        version, program = ports.rules.program()
    else:
        version = int(known.data["configuration_version"])
        program = ports.rules.compile(ports.rules.read(decided_by))
    trial = dry_run.trial_of(known.data, ports)
    if trial.header is None:
        raise ObjectMissingError(known.data["file"]["object_name"])
    AuditLog(ports.documents, ports.clock).add(
        who=by,
        what="instances.explain",
        id=receipt_id,
        study_instance_uid=known.data["study_instance_uid"],
    )
    told = explain_trial(trial, program)
    _add_studies(told["rules"], known.data, program, ports, as_recorded=decided_by is not None)
    return {"receipt_id": receipt_id, "configuration_version": version, **told}


def _add_studies(
    accounts: Iterable[dict[str, Any]],
    instance: Mapping[str, Any],
    program: Program,
    ports: Ports,
    *,
    as_recorded: bool,
) -> None:
    """Put into the accounts of study and series rules what they say of the Instance's Study.

    `as_recorded` says that a decision about the Study is told as it was made.
    """
    rules = {
        f"{ruleset.name}/{rule.name}": rule
        for ruleset in program.rulesets
        for rule in ruleset.rules
        if rule.level is not Level.INSTANCE
    }
    for account in accounts:
        rule = rules.get(account["rule"])
        if rule is None:
            continue
        by_series = rule.level is Level.SERIES
        series_uid = instance["series_instance_uid"] if by_series else ""
        key = studies.group_key(account["rule"], instance["study_instance_uid"], series_uid)
        study = ports.documents.get(studies.STUDIES, key)
        recorded = instance["studies"].get(account["rule"])
        wrong = None
        if study is not None:
            conditions = explain_study(rule, _collected(study.data, ports))
            account["conditions"] = list(map(condition_document, conditions))
            wrong = next((one.condition for one in conditions if not one.holds), None)
        if recorded is None or (study and study.data["state"] == studies.COLLECTING):
            continue
        account["matched"] = wrong is None if study and not as_recorded else recorded["matched"]
        if not account["matched"]:
            account["reason"] = f"does not hold: {wrong}" if wrong else recorded["reason"]
        elif recorded["verdict"] == Verdict.ROUTE:
            account["reason"] = "matched, late" if recorded["late"] else "matched"
        else:
            account["reason"] = f"{recorded['verdict']}: {recorded['reason']}"


def _collected(study: Mapping[str, Any], ports: Ports) -> list[Collected]:
    """What the decision about a Study was made on, as far as it can still be read."""
    of_study = [Filter("study", "==", study["id"])]
    members = ports.documents.query(studies.COLLECTED, of_study, limit=_MOST_COLLECTED)
    found = []
    for member in members.documents:
        if member.data["late"]:
            continue
        instance = ports.documents.get(COLLECTION, member.data["receipt_id"])
        trial = dry_run.trial_of(instance.data, ports) if instance else None
        if trial and trial.header and trial.facts:
            found.append(Collected(trial.header, trial.facts))
    return found


def _undecided(receipt_id: str, ports: Ports, *, by: str) -> dict[str, Any]:
    """What the exception log has about an Instance that no rule has decided about; of one that a
    rule rejected, the account of the current rules, which a retry would ask.
    """
    page = ports.documents.query(
        exceptions.COLLECTION, [Filter("receipt_id", "==", receipt_id)], limit=_MOST_ENTRIES
    )
    entries = sorted((one.data for one in page.documents), key=lambda one: str(one["last_at"]))
    if not entries:
        raise DocumentMissingError(COLLECTION, receipt_id)
    AuditLog(ports.documents, ports.clock).add(who=by, what="instances.explain", id=receipt_id)
    last = entries[-1]
    is_rejected = last["code"] == RejectedByRuleError.code
    ended = "rejected the Instance" if is_rejected else "ended before a decision"
    shown = ("id", "status", "stage", "code", "message", "hint", "last_at")
    return {
        "receipt_id": receipt_id,
        **(_of_rejected(last, ports) if is_rejected else {"rules": []}),
        "decision": {"error": f"{last['stage']} {ended}: {last['message']}"},
        "exceptions": [{name: entry.get(name, "") for name in shown} for entry in entries],
    }


def _of_rejected(entry: Mapping[str, Any], ports: Ports) -> dict[str, Any]:
    accepted = decode(base64.b64decode(entry["retry_message"]), InstanceAccepted)
    trial = dry_run.trial_of_receipt(
        accepted.receipt, ports, released=accepted.released, answers=accepted.standardized
    )
    if trial.header is None:
        raise ObjectMissingError(accepted.receipt.file.object_name)
    version, program = ports.rules.program()
    return {"configuration_version": version, **explain_trial(trial, program)}


def explain_trial(trial: Trial, program: Program) -> dict[str, Any]:
    """The account of every rule about an Instance. Raises: PermanentError, TransientError."""
    if trial.header is None or trial.facts is None:
        raise PermanentError(trial.error)
    decision = dry_run.decision_of(program, trial.header, trial.facts)
    account = as_document(explain(program, trial.header, trial.facts))
    return {"decision": decision, "rules": account["rules"]}
