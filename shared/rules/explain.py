"""Why rules matched or not: for each rule the first condition that failed, and what it saw.

The answer holds patients' Values; it is for the person who asked, never for a log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from shared.dicom.changes import Change
from shared.dicom.edit import HeaderEdit, apply_changes
from shared.dicom.header import Header, Value
from shared.dicom.paths import AttributePath
from shared.rules.conditions import (
    FACTS,
    Condition,
    Fact,
    Plan,
    Subject,
    View,
    shown,
    single_claims,
    subjects,
)
from shared.rules.decision import Decision, Facts
from shared.rules.program import Program, conjunction, ruleset_applies
from shared.rules.ruleset import Level, Rule, RuleSet, Stage
from shared.rules.studies import Collected, collection_of
from shared.rules.study_conditions import (
    Collection,
    Combination,
    Count,
    OfInstances,
    StudyCondition,
    StudyTest,
)

_MAX_SHOWN_VALUES = 20
_MAX_SHOWN_LENGTH = 200


class Seen(Struct, frozen=True):
    """What a condition looked at: None if the Attribute is absent, () if it is empty."""

    subject: str
    values: tuple[Value, ...] | None


class ConditionResult(Struct, frozen=True):
    """One of the conditions that must all hold."""

    condition: str  # in textual form
    holds: bool
    seen: tuple[Seen, ...]


class RuleExplanation(Struct, frozen=True):
    """Why a rule matched, or why it did not."""

    rule: str  # "ruleset/rule"
    matched: bool
    reason: str
    conditions: tuple[ConditionResult, ...]


class Explanation(Struct, frozen=True):
    """The Decision, and the account of every rule in the order of evaluation."""

    decision: Decision
    rules: tuple[RuleExplanation, ...]


def explain(program: Program, header: Header, facts: Facts) -> Explanation:
    """Decide as `Program.evaluate` does, and account for it."""
    decision = program.evaluate(header, facts)
    # Before the sender gets an answer, nobody knows yet what has come back.
    facts_then = replace(facts, returned=False)
    at_reception = program.at_reception(header, facts_then)
    accounts = [
        *_accounts(program, Stage.RECEPTION, at_reception, header, facts_then),
        *_accounts(program, Stage.ROUTING, decision, header, facts),
    ]
    return Explanation(decision, tuple(accounts))


def _accounts(
    program: Program, stage: Stage, decision: Decision, header: Header, facts: Facts
) -> Iterator[RuleExplanation]:
    matched = set(decision.matched_rules)
    failed = {failure.rule: failure.reason for failure in decision.failures}
    # The state that a rule saw: as received, with the changes of the rules before it.
    changes: tuple[Change, ...] = ()
    for ruleset in program.rulesets:
        if ruleset.stage is not stage:
            continue
        for rule in ruleset.rules:
            name = f"{ruleset.name}/{rule.name}"
            conditions = _judge(rule.condition, header, facts, changes)
            reason = _reason(ruleset, rule, facts, conditions, name in matched, failed.get(name))
            yield RuleExplanation(name, name in matched, reason, conditions)
            changes += tuple(
                change for change in decision.changes if change.by.rpartition("/")[0] == name
            )


def explain_study(rule: Rule, collected: Sequence[Collected]) -> tuple[ConditionResult, ...]:
    """Each condition of a study or series rule, over what was collected of a Study or Series."""
    if rule.study_condition is None:
        raise ValueError(f"{rule.name} is no study rule")
    plan = Plan()
    judged = [(part, part.test(plan)) for part in _study_conjunction(rule.study_condition)]
    found = collection_of(plan, collected)
    return tuple(
        ConditionResult(str(part), _is_so(test, found), tuple(_seen_in(part, found)))
        for part, test in judged
    )


def _judge(
    condition: Condition, header: Header, facts: Facts, changes: Sequence[Change]
) -> tuple[ConditionResult, ...]:
    plan = Plan()
    parts = conjunction(condition)
    numbers = [plan.number(part) for part in parts]
    view = View(plan, header, facts)
    if changes:
        view.see(HeaderEdit(apply_changes(header, changes)), changes)
    return tuple(
        ConditionResult(str(part), _holds(view, number), _seen(part, view))
        for part, number in zip(parts, numbers, strict=True)
    )


def _holds(view: View, number: int) -> bool:
    try:
        return view.holds(number)
    except ValueError:
        return False


def _seen(condition: Condition, view: View) -> tuple[Seen, ...]:
    found: dict[Subject, Seen] = {}
    for claim in single_claims(condition):
        for subject in subjects(claim):
            found.setdefault(subject, Seen(str(subject), _values(subject, view)))
    return tuple(found.values())


def _study_conjunction(condition: StudyCondition) -> tuple[StudyCondition, ...]:
    if isinstance(condition, Combination) and condition.how == "all":
        return tuple(part for one in condition.conditions for part in _study_conjunction(one))
    return (condition,)


def _is_so(test: StudyTest, found: Collection) -> bool:
    try:
        return test(found)
    except ValueError:
        return False


def _seen_in(condition: StudyCondition, found: Collection) -> Iterator[Seen]:
    """What the condition looked at, a Value that several Instances have once."""
    match condition:
        case Count(what=what):
            yield Seen(what, (found.count(what),))
        case Combination(conditions=conditions):
            for one in conditions:
                yield from _seen_in(one, found)
        case OfInstances(condition=claims):
            for subject in dict.fromkeys(s for one in single_claims(claims) for s in subjects(one)):
                each = [
                    values for one in found.views if (values := _values(subject, one)) is not None
                ]
                values = tuple(dict.fromkeys(value for values in each for value in values))
                yield Seen(str(subject), values[:_MAX_SHOWN_VALUES] if each else None)


def _values(subject: Subject, view: View) -> tuple[Value, ...] | None:
    if isinstance(subject, Fact):
        return (FACTS[subject.name][1](view.facts),)
    assert isinstance(subject, AttributePath)
    values = shown(view.attributes, subject)
    return None if values is None else tuple(map(_shortened, values[:_MAX_SHOWN_VALUES]))


def _shortened(value: Value) -> Value:
    return value[:_MAX_SHOWN_LENGTH] if isinstance(value, (str, bytes)) else value


def _reason(
    ruleset: RuleSet,
    rule: Rule,
    facts: Facts,
    conditions: tuple[ConditionResult, ...],
    matched: bool,
    failure: str | None,
) -> str:
    if failure is not None:
        return f"failed: {failure}"
    if matched:
        return "matched"
    if not ruleset.enabled or not rule.enabled:
        return "is disabled"
    if rule.level is not Level.INSTANCE:
        return f"waits for the {rule.level} to be complete"
    if not ruleset_applies(ruleset, facts):
        return "the ruleset is not for this source, this time, or what came back"
    at = facts.received_at.astimezone(UTC)
    if rule.schedule is not None and not rule.schedule.is_active(at):
        return "is out of its schedule"
    wrong = next((one.condition for one in conditions if not one.holds), None)
    if wrong is not None:
        return f"does not hold: {wrong}"
    return "was not reached: an earlier rule ended the evaluation"


def as_document(explanation: Explanation) -> dict[str, Any]:
    """The accounts as JSON values; bytes as hexadecimal digits."""
    return {
        "matched_rules": list(explanation.decision.matched_rules),
        "verdict": explanation.decision.verdict.value,
        "rules": [
            {
                "rule": one.rule,
                "matched": one.matched,
                "reason": one.reason,
                "conditions": [condition_document(result) for result in one.conditions],
            }
            for one in explanation.rules
        ],
    }


def condition_document(result: ConditionResult) -> dict[str, Any]:
    """One condition's account as JSON values."""
    return {
        "condition": result.condition,
        "holds": result.holds,
        "seen": {seen.subject: _plain(seen.values) for seen in result.seen},
    }


def _plain(values: tuple[Value, ...] | None) -> list[str | int | float] | None:
    if values is None:
        return None
    return [value.hex() if isinstance(value, bytes) else value for value in values]
