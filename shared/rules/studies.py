"""Study and series rules, as functions over what was collected so far.

A collector keeps, for each Study (or Series) that a rule wants, the Instances that came, and asks
`state_of` and `decide_study` when one more came and when time has passed. Nothing is kept here.
A study rule sees and sends Instances as they were received: what instance rules changed in their
own deliveries is not in them, so a study rule says in its own actions what is to change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

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


@dataclass(frozen=True, slots=True)
class Collected:
    """One Instance that waits for its Study. `facts.received_at` is when it arrived."""

    header: Header
    facts: Facts


class State(StrEnum):
    """Whether a Study or Series can be acted on."""

    WAITING = "waiting"
    COMPLETE = "complete"
    TIMED_OUT = "timed out"


@dataclass(frozen=True, slots=True)
class StudyDecision:
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

    def state_of(
        self, collected: Sequence[Collected], *, now: datetime, forced: bool = False
    ) -> tuple[State, datetime | None]:
        """The state, and when to ask again if nothing more comes."""
        return self._state(collected, self._views(collected), now, forced)

    def decide(
        self, collected: Sequence[Collected], *, now: datetime, forced: bool = False
    ) -> StudyDecision:
        """Decide about what was collected of one Study or Series; `forced` counts as complete."""
        views = self._views(collected)
        state, ask_at = self._state(collected, views, now, forced)
        if state is State.WAITING:
            return StudyDecision(state, False, Verdict.ROUTE, ask_at=ask_at)
        if state is State.TIMED_OUT and self.completion.on_timeout is not OnTimeout.PROCESS:
            verdict = _TIMEOUT_VERDICTS[self.completion.on_timeout]
            return StudyDecision(state, True, verdict, reason="not complete in time")
        series = {view.attributes.values(_SERIES) for view in views}
        if not self._test(Collection(views, len(series))):
            return StudyDecision(state, False, Verdict.ROUTE, reason="the conditions do not hold")
        decisions = tuple(self._actions.evaluate(one.header, one.facts) for one in collected)
        return StudyDecision(
            state, True, _common_verdict(decisions), decisions, f"matched {self.full_name}"
        )

    def _views(self, collected: Iterable[Collected]) -> list[View]:
        return [View(self._plan, one.header, one.facts) for one in collected]

    def _state(
        self, collected: Sequence[Collected], views: Sequence[View], now: datetime, forced: bool
    ) -> tuple[State, datetime | None]:
        if not collected:
            return State.WAITING, None
        if forced:
            return State.COMPLETE, None
        completion = self.completion
        arrivals = [one.facts.received_at for one in collected]
        quiet_at = max(arrivals) + timedelta(seconds=completion.quiet_period_s or 0)
        is_all_there = self._has_expected_series(views) and self._has_expected_number(collected)
        if is_all_there and now >= quiet_at:
            return State.COMPLETE, None
        late_at = None
        if completion.timeout_s is not None:
            late_at = min(arrivals) + timedelta(seconds=completion.timeout_s)
            if now >= late_at and completion.on_timeout is not OnTimeout.WAIT:
                return State.TIMED_OUT, None
        times = [at for at in (quiet_at if is_all_there else None, late_at) if at and at > now]
        return State.WAITING, min(times, default=None)

    def _has_expected_series(self, views: Sequence[View]) -> bool:
        series: dict[str, list[View]] = {}
        for view in views:
            # Without a Series UID, an Instance counts as a Series of its own.
            values = view.attributes.values(_SERIES) or (f"#{len(series)}",)
            series.setdefault(str(values[0]), []).append(view)
        fulfilled_by = [
            [
                number
                for number, members in enumerate(series.values())
                if any(view.holds(expected) for view in members)
            ]
            for expected in self._expected
        ]
        return each_has_its_own(fulfilled_by)

    def _has_expected_number(self, collected: Sequence[Collected]) -> bool:
        expected = self.completion.expected_instances
        if expected is None:
            return True
        if isinstance(expected, int):
            return len(collected) >= expected
        said = [
            number_of(value) for one in collected for value in one.header.values(expected) or ()
        ]
        return any(len(collected) >= number for number in said)


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


_TIMEOUT_VERDICTS: Final = {OnTimeout.DISCARD: Verdict.DISCARD, OnTimeout.HOLD: Verdict.HOLD}
_SEVERITY: Final = (Verdict.REJECT, Verdict.DISCARD, Verdict.HOLD, Verdict.ROUTE)


def _common_verdict(decisions: Sequence[Decision]) -> Verdict:
    """The gravest verdict of any Instance: a Study is not torn apart."""
    return min((decision.verdict for decision in decisions), key=_SEVERITY.index)
