"""Try rules out: what they would decide, and what that changes. Nothing is changed or sent.

The answers hold patients' Values; they are for the person who asked, never for a log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from shared.dicom.changes import Change
from shared.dicom.header import Header
from shared.dicom.standardized import Standardized
from shared.errors import AxiomError
from shared.messages import Receipt
from shared.pipeline.instance_records import COLLECTION, receipt_of
from shared.pipeline.plans import facts_of
from shared.pipeline.ports import Ports
from shared.pipeline.validate import header_of
from shared.rules import Facts, Program, RuleSet
from shared.rules.dump import read_dump
from shared.rules.examples import read_facts
from shared.rules.reading import Faults, Fields

MAX_INSTANCES: Final = 1_000
_MAX_SHOWN: Final = 50  # Instances that a report shows each by itself
_PAGE: Final = 100


class Trial(Struct, frozen=True):
    """One Instance to try rules on; or, without header and facts, why it cannot be tried."""

    name: str  # its receipt, or what the person called it
    header: Header | None
    facts: Facts | None
    error: str = ""
    sop_instance_uid: str = ""
    warnings: tuple[str, ...] = ()  # what of it could not be taken over


def past_trials(ports: Ports, last: int) -> Iterator[Trial]:
    """The last Instances that rules decided about, newest first."""
    left, cursor = min(last, MAX_INSTANCES), None
    while left > 0:
        page = ports.documents.query(
            COLLECTION,
            order_by="received_at",
            descending=True,
            limit=min(left, _PAGE),
            cursor=cursor,
        )
        for document in page.documents:
            yield trial_of(document.data, ports)
        left, cursor = left - len(page.documents), page.cursor
        if cursor is None:
            return


def trial_of(instance: Mapping[str, Any], ports: Ports) -> Trial:
    """An Instance as it was received, by its document."""
    answers = msgspec.convert(instance.get("answers", ()), tuple[Standardized, ...])
    return trial_of_receipt(
        receipt_of(instance),
        ports,
        returned=bool(instance.get("returned")),
        released=bool(instance.get("released")),
        answers=answers,
    )


def trial_of_receipt(
    receipt: Receipt,
    ports: Ports,
    *,
    returned: bool = False,
    released: bool = False,
    answers: tuple[Standardized, ...] = (),
) -> Trial:
    """An Instance as it was received."""
    uid = receipt.sop_instance_uid
    try:
        with ports.objects.open(receipt.file.object_name) as reader:
            header = header_of(receipt, reader)
    except AxiomError as error:
        return Trial(receipt.receipt_id, None, None, str(error), uid)
    facts = replace(
        facts_of(receipt, returned=returned, released=released),
        standardized={answer.standardizer: answer for answer in answers},
    )
    return Trial(receipt.receipt_id, header, facts, sop_instance_uid=uid)


def trial_of_file(
    name: str, data: bytes, facts: Mapping[str, Any], *, size: int | None = None
) -> Trial:
    """A DICOM file of `size` bytes, or the start of it with all of its header. `facts` are those of
    a rule's test.

    Raises: PermanentError if it is none; InvalidConfigurationError for facts that are none.
    """
    size = len(data) if size is None else size
    header = Header.parse(data, file_size=size)
    return _trial(name, header, {"size": size, **facts})


def trial_of_dump(name: str, dump: str | Mapping[str, Any] | list[Any], facts: Any) -> Trial:
    """A tag dump: text of dcmdump or JSON. Raises: DumpError; InvalidConfigurationError."""
    dumped = read_dump(dump)
    known = {"transfer_syntax": dumped.transfer_syntax_uid} if dumped.transfer_syntax_uid else {}
    return _trial(name, dumped.header, {**known, **facts}, dumped.warnings)


def _trial(
    name: str, header: Header, facts: Mapping[str, Any], warnings: tuple[str, ...] = ()
) -> Trial:
    faults = Faults()
    read = read_facts(Fields(facts, "facts", faults), header)
    faults.raise_if_any()
    uid = header.text("SOPInstanceUID") or ""
    return Trial(name, header, read, sop_instance_uid=uid, warnings=warnings)


def decision_of(program: Program, header: Header, facts: Facts) -> dict[str, Any]:
    """What the rules decide, as JSON values."""
    try:
        refusal = program.refusal(header, facts)
        decision = program.evaluate(header, facts)
    except AxiomError as error:  # a crosswalk that does not answer, a header that cannot be read
        return {"error": str(error)}
    return {
        "matched_rules": list(decision.matched_rules),
        "verdict": decision.verdict.value,
        "reason": decision.reason,
        "destinations": [planned.destination for planned in decision.deliveries],
        "changes": shown_changes(decision.changes),
        "changes_for": {
            planned.destination: shown_changes(planned.changes)
            for planned in decision.deliveries
            if planned.changes != decision.changes
        },
        "failures": [
            {"rule": failure.rule, "reason": failure.reason} for failure in decision.failures
        ],
        "waits_for": list(decision.collect_for),
        "refused": None if refusal is None else {"rule": refusal.rule, "reason": refusal.reason},
        "high_priority": decision.high_priority,
        "transfer_syntaxes": {
            planned.destination: planned.transcoding.transfer_syntax_uid
            for planned in decision.deliveries
            if planned.transcoding
        },
    }


def shown_changes(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Changes without their encoded Data Elements."""
    return [{"path": one.path, "old": one.old, "new": one.new, "by": one.by} for one in changes]


def differences(live: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[str]:
    """What differs between two decisions, in words that hold no patient's Values."""
    told = [
        f"{what}: {live.get(what)} -> {candidate.get(what)}"
        for what in ("error", "verdict", "high_priority")
        if live.get(what) != candidate.get(what)
    ]
    for name, one in (("live", live), ("candidate", candidate)):
        if one.get("refused") and not (live.get("refused") and candidate.get("refused")):
            told.append(f"refused at reception by the {name} rules alone")
    for what in ("matched_rules", "destinations", "waits_for"):
        told += _of_lists(what, live.get(what, []), candidate.get(what, []))
    told += _of_lists("failures", _rules(live), _rules(candidate))
    told += _of_changes("", live.get("changes", []), candidate.get("changes", []))
    before, after = live.get("transfer_syntaxes", {}), candidate.get("transfer_syntaxes", {})
    told += [
        f"transfer syntax for {name}: {before.get(name, 'as received')} -> "
        f"{after.get(name, 'as received')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    both = set(live.get("destinations", [])) & set(candidate.get("destinations", []))
    for name in sorted(both):
        told += _of_changes(
            f" for {name}",
            live["changes_for"].get(name, live["changes"]),
            candidate["changes_for"].get(name, candidate["changes"]),
        )
    return list(dict.fromkeys(told))


def report(trials: Iterable[Trial], candidate: Program, live: Program | None) -> dict[str, Any]:
    """What the candidate decides about each Instance, and where that is not what `live` does.

    Counts are of all Instances; each by itself are shown those that differ, first, and then others,
    50 in all.
    """
    differing: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    rules: dict[str, dict[str, int]] = {}
    tried = different = failed = 0
    for trial in trials:
        if trial.header is None or trial.facts is None:
            failed += 1
            continue
        tried += 1
        shown: dict[str, Any] = {
            "instance": trial.name,
            "sop_instance_uid": trial.sop_instance_uid,
            "candidate": decision_of(candidate, trial.header, trial.facts),
        }
        if trial.warnings:
            shown["warnings"] = list(trial.warnings)
        if live is not None:
            shown["live"] = decision_of(live, trial.header, trial.facts)
            shown["differences"] = differences(shown["live"], shown["candidate"])
        for side in ("live", "candidate"):
            for rule in shown.get(side, {}).get("matched_rules", ()):
                rules.setdefault(rule, {"live": 0, "candidate": 0})[side] += 1
        kept = differing if shown.get("differences") else others
        different += kept is differing
        if len(kept) < _MAX_SHOWN:
            kept.append(shown)
    return {
        "instances": tried,
        "different": different,
        "unreadable": failed,
        "rules": rules,
        "results": [*differing, *others][:_MAX_SHOWN],
    }


def programs(ports: Ports, candidate: RuleSet | None) -> tuple[Program, Program | None]:
    """The candidate among the other rulesets, and those that are live; the live ones alone if there
    is no candidate. Raises: InvalidConfigurationError.
    """
    rulesets = ports.rules.read(ports.configuration.get())
    live = ports.rules.compile(rulesets)
    if candidate is None:
        return live, None
    return ports.rules.with_candidate(rulesets, candidate), live


def _rules(decision: Mapping[str, Any]) -> list[str]:
    return [failure["rule"] for failure in decision.get("failures", ())]


def _of_lists(what: str, live: Sequence[str], candidate: Sequence[str]) -> Iterator[str]:
    label = what.replace("_", " ")
    for name in candidate:
        if name not in live:
            yield f"{label}: + {name}"
    for name in live:
        if name not in candidate:
            yield f"{label}: - {name}"
    if live != candidate and sorted(live) == sorted(candidate):
        yield f"{label}: in another order"


def _of_changes(
    where: str, live: Sequence[Mapping[str, Any]], candidate: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    before = {change["path"]: change["new"] for change in live}
    after = {change["path"]: change["new"] for change in candidate}
    for path in dict.fromkeys([*before, *after]):
        if path not in before:
            yield f"changes{where}: + {path}"
        elif path not in after:
            yield f"changes{where}: - {path}"
        elif before[path] != after[path]:
            yield f"changes{where}: {path} gets another value"
