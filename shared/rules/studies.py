"""Study and series rules, as functions over what was collected so far.

A collector keeps an Arrival of each Instance that came, for each Study (or Series) that a rule
wants. It asks `state_at` when one more came and when time has passed, then `conclude` once, and
`decision_for` about each Instance. Nothing is kept here.
A study rule sees and sends Instances as they were received: what instance rules changed in their
own deliveries is not in them, so a study rule says in its own actions what is to change.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from shared.dicom.header import Header
from shared.rules.comparisons import number_of
from shared.rules.completion import Completion, OnTimeout, each_has_its_own
from shared.rules.conditions import AllOf, Plan, View
from shared.rules.crosswalk import CrosswalkLookup
from shared.rules.decision import Decision, Facts, Verdict
from shared.rules.program import Program
from shared.rules.ruleset import Level, Rule, RuleSet
from shared.rules.study_conditions import Collection

_STUDY: Final = "StudyInstanceUID"
_SERIES: Final = "SeriesInstanceUID"


class Collected(Struct, frozen=True):
    """One Instance that waits for its Study. `facts.received_at` is when it arrived."""

    header: Header
    facts: Facts


class Arrival(Struct, frozen=True):
    """All that completion needs to know of one Instance: small, and taken from its header once."""

    at: datetime
    sop_instance_uid: str
    series_instance_uid: str
    fulfils: tuple[int, ...] = ()  # which of `expected_series`, by position
    expects: tuple[float, ...] = ()  # the numbers of Instances that the header says


class State(StrEnum):
    """Whether a Study or Series can be acted on."""

    WAITING = "waiting"
    COMPLETE = "complete"
    TIMED_OUT = "timed out"


class StudyDecision(Struct, frozen=True):
    """What a study rule says about what was collected.

    WAITING: ask again, at the latest at `ask_at`. Else the collection is done with: `matched` says
    whether the rule's conditions hold, and `decisions` has one Decision for each Instance, in
    their order; with `matched` False they are empty, and the Instances are none of this rule's.
    """

    state: State
    matched: bool
    verdict: Verdict
    decisions: tuple[Decision, ...] = ()
    reason: str = ""
    ask_at: datetime | None = None


class StudyRule:
    """One study or series rule, compiled. Immutable and thread-safe."""

    def __init__(
        self,
        ruleset: RuleSet,
        rule: Rule,
        *,
        key: bytes = b"",
        crosswalk: CrosswalkLookup | None = None,
    ) -> None:
        """Raises: ValueError for an instance rule."""
        if rule.completion is None or rule.study_condition is None:
            raise ValueError(f"{rule.name} is no study rule")
        self.full_name = f"{ruleset.name}/{rule.name}"
        self.level = rule.level
        self.completion: Completion = rule.completion
        # Arrivals are for the rule that made them, and for any that has the same fingerprint.
        self.fingerprint = hashlib.sha256(repr(rule.completion).encode()).hexdigest()[:16]
        self._plan = Plan()
        self._test = rule.study_condition.test(self._plan)
        self._expected = tuple(map(self._plan.number, rule.completion.expected_series))
        # Once the Study is complete, the actions are those of a rule that every Instance matches.
        action_rule = replace(rule, level=Level.INSTANCE, condition=AllOf(()), schedule=None)
        alone = replace(ruleset, rules=(action_rule,), schedule=None, sources=())
        self._actions = Program([alone], key, crosswalk)

    def group_of(self, header: Header) -> tuple[str, str]:
        """The key under which an Instance is collected: its Study UID and, for a series rule, its
        Series UID.
        """
        series = header.text(_SERIES) or "" if self.level is Level.SERIES else ""
        return header.text(_STUDY) or "", series

    def arrival_of(self, header: Header, facts: Facts, *, at: datetime) -> Arrival:
        """What to keep of an Instance that arrived; `at` is what time-outs and quiet count from."""
        view = View(self._plan, header, facts)
        expected = self.completion.expected_instances
        said = () if expected is None or isinstance(expected, int) else header.values(expected)
        return Arrival(
            at=at,
            sop_instance_uid=header.text("SOPInstanceUID") or "",
            series_instance_uid=header.text(_SERIES) or "",
            fulfils=tuple(n for n, wish in enumerate(self._expected) if _holds(view, wish)),
            expects=tuple(filter(math.isfinite, map(number_of, said or ()))),
        )

    def state_at(
        self, now: datetime, arrivals: Sequence[Arrival], *, forced: bool = False
    ) -> tuple[State, datetime | None]:
        """The state, and when to ask again if nothing more comes. `forced` counts as complete."""
        if not arrivals:
            return State.WAITING, None
        if forced:
            return State.COMPLETE, None
        completion = self.completion
        quiet_at = max(one.at for one in arrivals) + timedelta(
            seconds=completion.quiet_period_s or 0
        )
        is_all_there = self._has_expected_series(arrivals) and self._has_expected_number(arrivals)
        if is_all_there and now >= quiet_at:
            return State.COMPLETE, None
        late_at = None
        if completion.timeout_s is not None:
            late_at = min(one.at for one in arrivals) + timedelta(seconds=completion.timeout_s)
            if now >= late_at and completion.on_timeout is not OnTimeout.WAIT:
                return State.TIMED_OUT, None
        times = [at for at in (quiet_at if is_all_there else None, late_at) if at and at > now]
        return State.WAITING, min(times, default=None)

    def not_before(self, arrivals: Sequence[Arrival]) -> datetime:
        """The Study cannot be complete before this, whatever else comes; of at least one."""
        completion = self.completion
        at = max(one.at for one in arrivals) + timedelta(seconds=completion.quiet_period_s or 0)
        if completion.timeout_s is None or completion.on_timeout is OnTimeout.WAIT:
            return at
        first = min(one.at for one in arrivals)
        return min(at, first + timedelta(seconds=completion.timeout_s))

    def conclude(self, state: State, collected: Sequence[Collected]) -> StudyDecision:
        """Decide about a Study that is complete or timed out."""
        try:
            matched = self._test(collection_of(self._plan, collected))
        except ValueError:
            # A private Attribute may turn out to be a Sequence, which has no Values.
            reason = f"rule {self.full_name} failed: a condition compares a Sequence"
            return StudyDecision(state, True, Verdict.HOLD, reason=reason)
        if not matched:
            return StudyDecision(state, False, Verdict.ROUTE, reason="the conditions do not hold")
        if state is State.TIMED_OUT and self.completion.on_timeout is not OnTimeout.PROCESS:
            verdict = _TIMEOUT_VERDICTS[self.completion.on_timeout]
            return StudyDecision(state, True, verdict, reason="not complete in time")
        decisions = tuple(self.decision_for(one) for one in collected)
        # The gravest verdict of any Instance is everyone's: a Study is not torn apart.
        gravest = min(decisions, key=lambda one: _SEVERITY.index(one.verdict), default=None)
        if gravest is None or gravest.verdict is Verdict.ROUTE:
            reason = f"matched {self.full_name}"
            return StudyDecision(state, True, Verdict.ROUTE, decisions, reason)
        return StudyDecision(state, True, gravest.verdict, decisions, gravest.reason)

    def decision_for(self, one: Collected) -> Decision:
        """What the rule's actions and destinations make of one Instance of a Study that matched."""
        return self._actions.evaluate(one.header, one.facts)

    def decide(
        self, collected: Sequence[Collected], *, now: datetime, forced: bool = False
    ) -> StudyDecision:
        """`state_at` and `conclude` at once, over all Instances and as if each had just come."""
        arrivals = [
            self.arrival_of(one.header, one.facts, at=one.facts.received_at) for one in collected
        ]
        state, ask_at = self.state_at(now, arrivals, forced=forced)
        if state is State.WAITING:
            return StudyDecision(state, False, Verdict.ROUTE, ask_at=ask_at)
        return self.conclude(state, collected)

    def _has_expected_series(self, arrivals: Sequence[Arrival]) -> bool:
        series: dict[str, set[int]] = {}
        for number, one in enumerate(arrivals):
            # Without a Series UID, an Instance counts as a Series of its own.
            series.setdefault(one.series_instance_uid or f"#{number}", set()).update(one.fulfils)
        return each_has_its_own(
            [
                [number for number, fulfilled in enumerate(series.values()) if wish in fulfilled]
                for wish in range(len(self._expected))
            ]
        )

    def _has_expected_number(self, arrivals: Sequence[Arrival]) -> bool:
        expected = self.completion.expected_instances
        if expected is None:
            return True
        # An Instance that was sent twice is still one.
        uids = [one.sop_instance_uid for one in arrivals]
        count = len(set(filter(None, uids))) + uids.count("")
        if isinstance(expected, int):
            return count >= expected
        return any(count >= number for one in arrivals for number in one.expects)


def collection_of(plan: Plan, collected: Sequence[Collected]) -> Collection:
    """What was collected, as conditions that are numbered in `plan` see it."""
    views = [View(plan, one.header, one.facts) for one in collected]
    return Collection(views, len({view.attributes.values(_SERIES) for view in views}))


def compile_study_rules(
    rulesets: Iterable[RuleSet], *, key: bytes = b"", crosswalk: CrosswalkLookup | None = None
) -> Mapping[str, StudyRule]:
    """The study and series rules of the rulesets by "ruleset/rule", as Decision.collect_for names
    them.
    """
    compiled = (
        StudyRule(ruleset, rule, key=key, crosswalk=crosswalk)
        for ruleset in rulesets
        for rule in ruleset.rules
        if rule.level is not Level.INSTANCE
    )
    return {rule.full_name: rule for rule in compiled}


def study_rules_of(program: Program) -> Mapping[str, StudyRule]:
    """As `compile_study_rules`, of the rules of a Program that are enabled."""
    enabled = [
        replace(ruleset, rules=tuple(rule for rule in ruleset.rules if rule.enabled))
        for ruleset in program.rulesets
        if ruleset.enabled
    ]
    return compile_study_rules(enabled, key=program.key, crosswalk=program.crosswalk)


_TIMEOUT_VERDICTS: Final = {OnTimeout.DISCARD: Verdict.DISCARD, OnTimeout.HOLD: Verdict.HOLD}
_SEVERITY: Final = (Verdict.REJECT, Verdict.DISCARD, Verdict.HOLD, Verdict.ROUTE)


def _holds(view: View, condition: int) -> bool:
    try:
        return view.holds(condition)
    except ValueError:
        return False
