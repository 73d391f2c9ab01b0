"""Rulesets compiled into a Program, once for each version of the configuration.

All rules are judged together: each Attribute is read once, each distinct condition judged at most
once, and what it says counts for every rule that needs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from shared.dicom.changes import Change
from shared.dicom.edit import HeaderEdit, apply_changes
from shared.dicom.header import Header
from shared.errors import Fault, InvalidConfigurationError, PermanentError
from shared.rules.actions import (
    Action,
    ActionError,
    Crosswalk,
    Effects,
    PerDestination,
    Transform,
    TransformSelected,
    ValueChange,
    Work,
)
from shared.rules.comparisons import as_texts
from shared.rules.conditions import AllOf, Comparison, Condition, Plan, Subject, View
from shared.rules.crosswalk import CrosswalkLookup
from shared.rules.decision import (
    Ask,
    Decision,
    Facts,
    PlannedDelivery,
    Refusal,
    RuleFailure,
    Verdict,
)
from shared.rules.ruleset import ExecutionMode, Level, Rule, RuleSet, Stage
from shared.rules.standardize import AnswerNeeded
from shared.rules.value_changes import Hash, NewUid, Shift

LOOP_REASON: Final = "this Instance left from here before and has come back"
MIN_KEY_BYTES: Final = 16
_FEW_RULES: Final = 200  # so few are judged one by one, with what is slow last


def compile_rulesets(
    rulesets: Sequence[RuleSet],
    *,
    key: bytes = b"",
    crosswalk: CrosswalkLookup | None = None,
    study_rules: bool = False,
) -> Program:
    """Make a Program of the rulesets, in the order of their priority, then of their name.

    `key` is the secret of the keyed actions (hash, new_uid, shift per patient), at least 16 bytes.
    `study_rules` says that the caller collects Studies for the rules that need it.

    Raises: InvalidConfigurationError if two rulesets have one name, or if a rule needs a key, a
    crosswalk or the collector, and there is none.
    """
    ordered = sorted(rulesets, key=lambda ruleset: (ruleset.priority, ruleset.name))
    faults = [
        *_repeated_names(ordered),
        *_missing_means(ordered, bool(len(key) >= MIN_KEY_BYTES), crosswalk, study_rules),
    ]
    if faults:
        raise InvalidConfigurationError(*faults)
    return Program(ordered, key, crosswalk)


class Program:
    """Compiled rulesets. Immutable and thread-safe."""

    def __init__(
        self, rulesets: Sequence[RuleSet], key: bytes, crosswalk: CrosswalkLookup | None
    ) -> None:
        self.key, self.crosswalk = key, crosswalk
        self.rulesets = tuple(rulesets)
        self._routing = _Stage([one for one in rulesets if one.stage is Stage.ROUTING])
        self._reception = _Stage([one for one in rulesets if one.stage is Stage.RECEPTION])

    def evaluate(self, header: Header, facts: Facts) -> Decision:
        """Decide about one Instance. The same header and facts give the same Decision.

        Raises: TransientError if a crosswalk cannot answer now; MalformedHeaderError if the header
        cannot be read where a rule looks.
        """
        return _Evaluation(self._routing, header, facts, self.key, self.crosswalk).decision()

    def refusal(self, header: Header, facts: Facts) -> Refusal | None:
        """What the rulesets of the stage `reception` say before the sender gets an answer."""
        return self.at_reception(header, facts).refusal if self._reception.rules else None

    def at_reception(self, header: Header, facts: Facts) -> Decision:
        """All that the rulesets of the stage `reception` decide."""
        return _Evaluation(self._reception, header, facts, self.key, self.crosswalk).decision()


class _CompiledRule(Struct, frozen=True):
    rule: Rule
    full_name: str  # "ruleset/rule"
    ruleset: int


class _Stage:
    """The enabled rules of one stage as a flat list, in the order of evaluation."""

    def __init__(self, rulesets: Sequence[RuleSet]) -> None:
        self.rulesets = [ruleset for ruleset in rulesets if ruleset.enabled]
        self.plan = Plan()
        self.rules: list[_CompiledRule] = []
        self.ends: list[int] = []  # for each ruleset the position after its last rule
        self.collecting: list[tuple[int, Rule, str]] = []
        for number, ruleset in enumerate(self.rulesets):
            for rule in ruleset.rules:
                full_name = f"{ruleset.name}/{rule.name}"
                if not rule.enabled:
                    continue
                if rule.level is not Level.INSTANCE:
                    self.collecting.append((number, rule, full_name))
                    continue
                self.rules.append(_CompiledRule(rule, full_name, number))
            self.ends.append(len(self.rules))
        self.sieve = _Sieve([compiled.rule.condition for compiled in self.rules], self.plan)


class _Sieve:
    """Which rules match, as the bits of one number: bit n is the rule at position n.

    Every distinct condition has the mask of the rules that need it, so one that fails rules all
    of them out at once. The exact texts that rules need of one subject (Modality is CT) are a
    table: the Value itself says which rules stay.
    """

    def __init__(self, conditions: Sequence[Condition], plan: Plan) -> None:
        self._all = (1 << len(conditions)) - 1
        tables: dict[Subject, dict[str, int]] = {}
        needing: dict[Subject, int] = {}
        masks: Counter[int] = Counter()
        self._numbers: list[list[int]] = []  # for each rule the conditions beside the tables
        for position, condition in enumerate(conditions):
            bit = 1 << position
            numbers: list[int] = []
            self._numbers.append(numbers)
            for part in conjunction(condition):
                exact = part.exact_texts if isinstance(part, Comparison) else ()
                # One such claim for each rule and subject: of several Values, each claim may be
                # fulfilled by another.
                if isinstance(part, Comparison) and exact and not _has(needing, part.subject, bit):
                    needing[part.subject] = needing.get(part.subject, 0) | bit
                    table = tables.setdefault(part.subject, {})
                    for text in set(exact):
                        table[text] = table.get(text, 0) | bit
                else:
                    number = plan.number(part)
                    masks[number] = masks.get(number, 0) | bit
                    numbers.append(number)
        for numbers in self._numbers:
            # What most rules need comes first, for it is judged already; a pattern comes last.
            numbers.sort(key=lambda number: (plan.is_slow(number), -masks[number].bit_count()))
        self._tables = [
            (plan.slot(subject, as_texts), table, self._all & ~needing[subject])
            for subject, table in tables.items()
        ]
        self._masks = dict(masks)
        # Those that rule out the most come first.
        self._conditions = sorted(
            ((mask, number) for number, mask in masks.items()),
            key=lambda entry: -entry[0].bit_count(),
        )

    def matching(self, view: View, start: int) -> tuple[list[int], set[int]]:
        """The positions, from `start`, of the rules that match, ascending; and which of them do so
        but for a condition that cannot be judged.
        """
        left = self._all >> start << start
        broken = 0
        for slot, table, indifferent in self._tables:
            try:
                texts = view.cell(slot)
            except ValueError:
                broken |= self._all & ~indifferent
                continue
            stay = indifferent
            for text in texts or ():
                stay |= table.get(text, 0)
            left &= stay
        for mask, number in self._conditions:
            if left.bit_count() <= _FEW_RULES:
                break
            try:
                if left & mask and not view.holds(number):
                    left &= ~mask
            except ValueError:
                broken |= mask
        return self._judge_each(view, left, broken)

    def _judge_each(self, view: View, left: int, broken: int) -> tuple[list[int], set[int]]:
        """Judge the rules that are left one by one."""
        results, tests, masks = view.results, view.tests, self._masks
        matching: list[int] = []
        unsure: set[int] = set()
        while left:
            position = (left & -left).bit_length() - 1
            is_broken = broken >> position & 1 if broken else 0
            for number in self._numbers[position]:
                result = results[number]
                if result is None:
                    try:
                        result = results[number] = tests[number](view)
                    except ValueError:
                        is_broken = 1
                        continue
                if not result:
                    left &= ~masks[number]  # it rules out others too
                    break
            else:
                matching.append(position)
                if is_broken:
                    unsure.add(position)
                left &= left - 1
        return matching, unsure


class _Evaluation:
    """One Instance on its way through the rules of one stage."""

    def __init__(
        self,
        stage: _Stage,
        header: Header,
        facts: Facts,
        key: bytes,
        crosswalk: CrosswalkLookup | None,
    ) -> None:
        self._stage, self._header, self._facts = stage, header, facts
        self._key, self._crosswalk = key, crosswalk
        self._view = View(stage.plan, header, facts)
        self._effects = Effects()
        self._matched: list[str] = []
        self._failures: list[RuleFailure] = []
        self._failed_closed = ""
        # The edits: those of `_edit` follow `_earlier`. No rule edits most Instances.
        self._edit: HeaderEdit | None = None
        self._earlier: tuple[Change, ...] = ()
        self._applies: list[bool | None] = [None] * len(stage.rulesets)
        self._matched_in = [False] * len(stage.rulesets)

    def decision(self) -> Decision:
        try:
            self._run()
            return self._decide()
        except AnswerNeeded as needed:
            return self._asking(needed)

    # ---- which rules match ------------------------------------------------------------------

    def _run(self) -> None:
        """Go through the rules that match; after a change of the Instance, find them anew."""
        position = 0
        while position >= 0:
            position = self._run_from(position)

    def _run_from(self, position: int) -> int:
        """Go on from a position. Returns where to sieve again, or -1 at the end."""
        rules, view = self._stage.rules, self._view
        results = view.results
        matching, unsure = self._stage.sieve.matching(view, position)
        for candidate in matching:
            if candidate < position:  # skipped by a rule before
                continue
            compiled = rules[candidate]
            position = candidate + 1
            if not self._is_in_force(compiled):
                continue
            if candidate in unsure:
                # A private Attribute may turn out to be a Sequence, which has no Values.
                if not self._fail(compiled, "a condition compares a Sequence"):
                    return -1
                continue
            position = self._act(compiled, candidate)
            if position < 0 or view.results is not results:
                return position
        return -1

    def _is_in_force(self, compiled: _CompiledRule) -> bool:
        rule, number = compiled.rule, compiled.ruleset
        if rule.otherwise and self._matched_in[number]:
            return False
        if rule.schedule and not rule.schedule.is_active(self._facts.received_at):
            return False
        return self._ruleset_applies(number)

    def _ruleset_applies(self, number: int) -> bool:
        applies = self._applies[number]
        if applies is None:
            applies = self._applies[number] = ruleset_applies(
                self._stage.rulesets[number], self._facts
            )
        return applies

    def _act(self, compiled: _CompiledRule, position: int) -> int:
        """Carry out a rule that matches. Returns the next position, -1 for the end."""
        stage, number = self._stage, compiled.ruleset
        effects = self._carry_out(compiled)
        if effects is None:
            return -1 if self._failed_closed else position + 1
        self._matched.append(compiled.full_name)
        self._matched_in[number] = True
        self._effects.add(effects)
        if effects.stops == "all":
            return -1
        is_first_only = stage.rulesets[number].execution_mode is ExecutionMode.FIRST_MATCH
        return stage.ends[number] if is_first_only or effects.stops else position + 1

    # ---- what they do -----------------------------------------------------------------------

    def _carry_out(self, compiled: _CompiledRule) -> Effects | None:
        """The effects of the rule; None if it failed, and then nothing of it was done."""
        rule = compiled.rule
        effects = Effects()
        if rule.actions:
            edit = self._edit or HeaderEdit(self._header)
            before = edit.changes()
            work = Work(self._header, edit, self._facts, effects, self._key, self._crosswalk)
            reason = perform(rule.actions, work, compiled.full_name)
            if reason:
                self._undo(before, edit)
                self._fail(compiled, reason)
                return None
            if len(edit.changes()) > len(before):
                self._edit = edit
                self._view.see(edit, self._earlier + edit.changes())
        for target in rule.targets:
            own = PerDestination(compiled.full_name, target.actions) if target.actions else None
            effects.send(target.name, own)
        return effects

    def _undo(self, before: tuple[Change, ...], edit: HeaderEdit) -> None:
        """Go back to the state before a rule that failed half-way."""
        if len(edit.changes()) == len(before):
            return
        self._earlier += before
        self._edit = HeaderEdit(apply_changes(self._header, self._earlier))
        self._view.see(self._edit, self._earlier)

    def _fail(self, compiled: _CompiledRule, reason: str) -> bool:
        """Note that a rule failed. Returns whether the others go on."""
        self._failures.append(RuleFailure(compiled.full_name, reason))
        if compiled.rule.stops_on_failure:
            self._failed_closed = f"rule {compiled.full_name} failed: {reason}"
        return not self._failed_closed

    # ---- what it comes to -------------------------------------------------------------------

    def _decide(self) -> Decision:
        effects = self._effects
        changes = self._earlier + (self._edit.changes() if self._edit else ())
        matched = tuple(self._matched)
        if effects.refusal:
            return self._final(Verdict.REJECT, changes, effects.refusal.reason)
        if effects.discard is not None:
            return self._final(Verdict.DISCARD, changes, effects.discard)
        if self._failed_closed:
            return self._final(Verdict.HOLD, changes, self._failed_closed)
        deliveries = self._deliveries(changes)
        # What a rule holds waits for a person before it waits for its Study.
        collect_for = self._collect_for() if effects.hold is None else ()
        verdict, reason = Verdict.ROUTE, f"matched {', '.join(matched)}" if matched else ""
        if effects.hold is not None:
            verdict, reason = Verdict.HOLD, effects.hold
        elif self._failures and not deliveries:
            # The default route is for what no rule wants, not for what a rule could not do.
            verdict = Verdict.HOLD
            reason = f"rule {self._failures[0].rule} failed: {self._failures[0].reason}"
        elif self._is_unwanted_return(deliveries, collect_for):
            verdict, reason = Verdict.DISCARD, LOOP_REASON
        return Decision(
            matched_rules=matched,
            changes=changes,
            deliveries=deliveries,
            verdict=verdict,
            failures=tuple(self._failures),
            reason=reason,
            high_priority=bool(effects.high_priority),
            transcoding=effects.transcoding,
            collect_for=collect_for,
        )

    def _asking(self, needed: AnswerNeeded) -> Decision:
        ask = Ask(needed.standardizer, self._earlier + needed.changes)
        return Decision(tuple(self._matched), ask.changes, (), Verdict.HOLD, ask=ask)

    def _final(self, verdict: Verdict, changes: tuple[Change, ...], reason: str) -> Decision:
        return Decision(
            matched_rules=tuple(self._matched),
            changes=changes,
            deliveries=(),
            verdict=verdict,
            failures=tuple(self._failures),
            reason=reason,
            high_priority=bool(self._effects.high_priority),
            refusal=self._effects.refusal if verdict is Verdict.REJECT else None,
        )

    def _deliveries(self, changes: tuple[Change, ...]) -> tuple[PlannedDelivery, ...]:
        """One for each destination, in the order chosen; one whose own actions fail is left out."""
        planned = []
        header: Header | None = None
        for name, own in self._effects.destinations.items():
            effects = Effects(transcoding=self._effects.transcoding)
            extra: tuple[Change, ...] = ()
            if own:
                header = header or (self._edit.header() if self._edit else self._header)
                edit = HeaderEdit(header)
                work = Work(self._header, edit, self._facts, effects, self._key, self._crosswalk)
                try:
                    if not self._perform_own(name, own, work):
                        continue
                except AnswerNeeded as needed:
                    common = changes[len(self._earlier) :]
                    raise AnswerNeeded(needed.standardizer, common + needed.changes) from None
                extra = edit.changes()
                if self._effects.hold is None:
                    self._effects.hold = effects.hold  # a crosswalk may ask for it
            planned.append(PlannedDelivery(name, changes + extra, effects.transcoding))
        return tuple(planned)

    def _perform_own(self, destination: str, own: list[PerDestination], work: Work) -> bool:
        for part in own:
            reason = perform(part.actions, work, f"{part.rule}/{destination}")
            if reason:
                self._failures.append(RuleFailure(part.rule, f"for {destination}: {reason}"))
                return False
        return True

    def _collect_for(self) -> tuple[str, ...]:
        return tuple(
            full_name
            for number, rule, full_name in self._stage.collecting
            if self._ruleset_applies(number)
            and (rule.schedule is None or rule.schedule.is_active(self._facts.received_at))
        )

    def _is_unwanted_return(self, *wanted: tuple[object, ...]) -> bool:
        """True if the Instance has come back, and only rulesets that ignore that would want it."""
        if any(wanted) or self._matched or not self._facts.returned:
            return False
        return any(not ruleset.processes_returned for ruleset in self._stage.rulesets)


def ruleset_applies(ruleset: RuleSet, facts: Facts) -> bool:
    """True if the ruleset is for this source, this time, and for what came back."""
    if facts.returned and not ruleset.processes_returned:
        return False
    if ruleset.sources and not any(
        source.type in ("", facts.source_type) and source.name in ("", facts.source_name)
        for source in ruleset.sources
    ):
        return False
    return ruleset.schedule is None or ruleset.schedule.is_active(facts.received_at)


def perform(actions: Sequence[Action], work: Work, by: str) -> str:
    """Do the actions in order. Returns "" or, at the first that fails, why, without Values.

    Raises: TransientError.
    """
    for number, action in enumerate(actions):
        work.by = f"{by}/{number}"
        try:
            action.apply(work)
        except (ActionError, PermanentError) as error:
            return f"actions[{number}]: {error}"
    return ""


def conjunction(condition: Condition) -> tuple[Condition, ...]:
    """The conditions that must all hold for this one to hold."""
    if isinstance(condition, AllOf):
        return tuple(part for inner in condition.conditions for part in conjunction(inner))
    return (condition,)


def _has(masks: Mapping[Subject, int], subject: Subject, bit: int) -> bool:
    return bool(masks.get(subject, 0) & bit)


def _repeated_names(rulesets: Sequence[RuleSet]) -> Iterator[Fault]:
    for name, count in Counter(ruleset.name for ruleset in rulesets).items():
        if count > 1:
            yield Fault("rulesets", f"{count} rulesets have the name {name}")


def _missing_means(
    rulesets: Sequence[RuleSet], has_key: bool, crosswalk: CrosswalkLookup | None, studies: bool
) -> Iterator[Fault]:
    for ruleset in rulesets:
        for number, rule in enumerate(ruleset.rules):
            path = f"{ruleset.name}: rules[{number}]"
            if rule.level is not Level.INSTANCE and not studies:
                yield Fault(f"{path}.level", f"{rule.level} rules need the study collector")
            actions = [*rule.actions, *(one for target in rule.targets for one in target.actions)]
            if not has_key and any(map(_is_keyed, actions)):
                yield Fault(f"{path}.actions", f"needs a key of at least {MIN_KEY_BYTES} bytes")
            if crosswalk is None and any(isinstance(one, Crosswalk) for one in actions):
                yield Fault(f"{path}.actions", "there are no crosswalk maps here")


def _is_keyed(action: Action) -> bool:
    if not isinstance(action, (Transform, TransformSelected)):
        return False
    change: ValueChange = action.change
    return isinstance(change, (Hash, NewUid)) or (
        isinstance(change, Shift) and change.per is not None
    )
