"""What a study or series rule decided about an Instance, and what that makes of its document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from shared.pipeline.instance_records import (
    COLLECTING,
    DISCARDED,
    HELD,
    QUARANTINED,
    ROUTED,
)
from shared.pipeline.plans import Plan
from shared.rules import Verdict

Data = Mapping[str, Any]


class Outcome(Struct, frozen=True):
    """One rule's decision about one Instance of a Study or Series."""

    rule: str  # "ruleset/rule"
    round: int  # which decision about the Study it belongs to
    matched: bool
    verdict: Verdict
    reason: str
    late: bool
    decided_at: str
    plans: Sequence[Plan] = ()
    high_priority: bool = False


def is_awaited(data: Data, rule: str) -> bool:
    """True if the Instance is one for the rule to decide about, or to decide about again."""
    return rule in data.get("collecting_for", ()) or rule in data.get("studies", ())


def recorded_round(data: Data, rule: str) -> int:
    """Which decision of the rule the Instance's document has; 0 for none."""
    return int(data["studies"].get(rule, {}).get("round", 0))


def destinations_of(data: Data, rule: str) -> Sequence[str]:
    """Where the recorded outcome of the rule has the Instance go."""
    found: Sequence[str] = data["studies"][rule]["destinations"]
    return found


def with_outcome(data: Data, outcome: Outcome) -> dict[str, Any]:
    """The Instance's document with the outcome in it.

    A destination that another rule chose before gets the Instance once, as that rule said. When the
    last study rule has decided and none has sent the Instance anywhere, it is held or discarded if
    one of them says so, or else goes the way that the instance rules left open (`otherwise`). What
    a person ordered while it was collected goes besides.
    """
    planned = list(data["deliveries"])
    taken = {plan["destination"] for plan in planned}
    studies = {name: entry for name, entry in data["studies"].items() if name != outcome.rule}
    studies[outcome.rule] = _entry(outcome)
    waiting_for = [rule for rule in data["collecting_for"] if rule != outcome.rule]
    state, reason = data["state"], data["reason"]
    ordered = [plan for plan in planned if plan.get("by_hand")] if state == COLLECTING else []
    planned = [plan for plan in planned if plan not in ordered]
    # A person who discarded it meanwhile meant it.
    if not (state == DISCARDED and outcome.rule in data["collecting_for"]):
        planned += msgspec.to_builtins(
            [plan for plan in outcome.plans if plan.destination not in taken]
        )
        if not planned and waiting_for:
            state, reason = COLLECTING, ""
        elif not planned:
            state, reason, last = _last_word(studies, data, is_sent_on=bool(ordered))
            planned = [plan for plan in last if plan["destination"] not in taken]
        elif state not in (ROUTED, QUARANTINED):
            state, reason = ROUTED, outcome.reason
    planned = [*ordered, *planned]
    studies[outcome.rule]["destinations"] = [
        plan["destination"] for plan in planned if plan["destination"] not in taken
    ]
    matched = [outcome.rule] if outcome.matched else []
    return {
        **data,
        "state": state,
        "reason": reason,
        "high_priority": data["high_priority"] or outcome.high_priority,
        "matched_rules": list(dict.fromkeys([*data["matched_rules"], *matched])),
        "deliveries": planned,
        "collecting_for": waiting_for,
        "studies": studies,
    }


def _entry(outcome: Outcome) -> dict[str, Any]:
    return {
        "round": outcome.round,
        "matched": outcome.matched,
        "verdict": outcome.verdict.value,
        "reason": outcome.reason,
        "late": outcome.late,
        "decided_at": outcome.decided_at,
    }


def _last_word(studies: Data, data: Data, *, is_sent_on: bool) -> tuple[str, str, list[Any]]:
    """State, reason and deliveries of an Instance that no rule has sent anywhere; whether a person
    has.
    """
    matched = [entry for entry in studies.values() if entry["matched"]]
    for state, verdicts in (
        (HELD, (Verdict.HOLD, Verdict.REJECT)),
        (DISCARDED, (Verdict.DISCARD,)),
    ):
        for entry in matched:
            if entry["verdict"] in verdicts:
                return state, entry["reason"], []
    otherwise = data["otherwise"]
    if otherwise is None:
        return data["state"], data["reason"], []
    if is_sent_on and otherwise["state"] == HELD:
        return ROUTED, "", []
    return otherwise["state"], otherwise["reason"], list(otherwise["deliveries"])
