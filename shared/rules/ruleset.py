"""Rulesets as documents and as values.

`parse_ruleset` checks one document whole: keys it does not know, misspelt words, Values that
break their VR, patterns that are none. A RuleSet that exists is right.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from shared.rules.action_documents import Known, check_destination, read_actions
from shared.rules.actions import Action, Reject, Stop
from shared.rules.completion import Completion, read_completion
from shared.rules.condition_documents import read_conditions
from shared.rules.conditions import AllOf, Condition
from shared.rules.crosswalk import CrosswalkOutline
from shared.rules.decision import SOURCE_TYPES
from shared.rules.examples import Example, read_example
from shared.rules.reading import Faults, Fields, check_size, kind_of, nearest
from shared.rules.schedules import Schedule, read_schedule
from shared.rules.standardize import Standardize
from shared.rules.study_conditions import StudyCondition, read_study_conditions

MAX_RULES: Final = 5_000  # of one ruleset
MAX_TESTS: Final = 1_000
MAX_NAME_LENGTH: Final = 128
DEFAULT_PRIORITY: Final = 100
_SOURCE_TYPES: Final = {name: name for name in SOURCE_TYPES}


class ExecutionMode(StrEnum):
    """How many rules of a ruleset act on one Instance."""

    FIRST_MATCH = "FIRST_MATCH"
    ALL_MATCHES = "ALL_MATCHES"


class Stage(StrEnum):
    """When a ruleset is asked."""

    ROUTING = "routing"
    RECEPTION = "reception"  # before the sender gets an answer; it can only refuse


class Mode(StrEnum):
    """Whether a ruleset decides, or is only evaluated beside those that do."""

    LIVE = "live"
    SHADOW = "shadow"


class Level(StrEnum):
    """What a rule acts on."""

    INSTANCE = "instance"
    STUDY = "study"
    SERIES = "series"


class Target(Struct, frozen=True):
    """A destination that a rule sends to, with what is done for it alone."""

    name: str
    actions: tuple[Action, ...] = ()


class Rule(Struct, frozen=True):
    """If the condition holds, do the actions in order, then send to the targets."""

    name: str
    condition: Condition
    actions: tuple[Action, ...]
    targets: tuple[Target, ...]
    enabled: bool = True
    schedule: Schedule | None = None
    stops_on_failure: bool = False
    otherwise: bool = False  # only if no rule of the ruleset matched before
    level: Level = Level.INSTANCE
    study_condition: StudyCondition | None = None  # of a study or series rule
    completion: Completion | None = None  # of a study or series rule


class SourcePattern(Struct, frozen=True):
    """Where an Instance may come from: a type of source, a name, or both."""

    type: str = ""
    name: str = ""


class RuleSet(Struct, frozen=True):
    """Rules in the order of evaluation, and when they apply."""

    name: str
    rules: tuple[Rule, ...]
    execution_mode: ExecutionMode = ExecutionMode.FIRST_MATCH
    priority: int = DEFAULT_PRIORITY  # the lowest number goes first
    enabled: bool = True
    mode: Mode = Mode.LIVE
    replaces: str = ""  # of a shadow: the live ruleset that it would take the place of
    stage: Stage = Stage.ROUTING
    sources: tuple[SourcePattern, ...] = ()  # none: all
    schedule: Schedule | None = None
    processes_returned: bool = False
    tests: tuple[Example, ...] = ()


def parse_ruleset(
    document: Mapping[str, Any],
    *,
    destinations: Collection[str] | None = None,
    schedules: Mapping[str, Schedule] | None = None,
    crosswalks: Mapping[str, CrosswalkOutline | None] | None = None,
    standardizers: Collection[str] | None = None,
) -> RuleSet:
    """Read one document; `destinations`, `schedules`, `crosswalks` and `standardizers` are what it
    may name.

    Of a crosswalk map that is None only the name is known. A rule that leaves its `match` out
    takes the Attributes that the map names.

    Raises: InvalidConfigurationError with every fault, its path, and the nearest right name.
    """
    faults = Faults()
    check_size(document, faults)
    faults.raise_if_any()
    fields = Fields(document, "", faults)
    known_schedules = dict(schedules or {})
    for path, name, schedule in fields.pairs("schedules"):
        known_schedules[name] = read_schedule(schedule, path, faults)
    reader = _Reader(faults, Known(destinations, crosswalks, standardizers), known_schedules)
    ruleset = reader.ruleset(fields)
    faults.raise_if_any()
    return ruleset


class _Reader(Struct, frozen=True):
    faults: Faults
    known: Known
    schedules: Mapping[str, Schedule]

    def ruleset(self, fields: Fields) -> RuleSet:
        name = self._name(fields)
        fields.text("description", "", empty=True)
        modes = {mode.value: mode for mode in ExecutionMode}
        stage = fields.choice("stage", {stage.value: stage for stage in Stage}, "routing")
        returned = {"ignore": False, "process": True}
        ruleset = RuleSet(
            name=name,
            rules=self._rules(fields, stage),
            execution_mode=fields.choice("execution_mode", modes, "FIRST_MATCH"),
            priority=fields.integer("priority", DEFAULT_PRIORITY, 0, 1_000_000),
            enabled=fields.flag("enabled", True),
            mode=fields.choice("mode", {mode.value: mode for mode in Mode}, "live"),
            replaces=fields.text("replaces", ""),
            stage=stage,
            sources=self._sources(fields),
            schedule=self._schedule(fields),
            processes_returned=fields.choice("returned_instances", returned, "ignore"),
            tests=self._tests(fields),
        )
        if ruleset.replaces and ruleset.mode is not Mode.SHADOW:
            fields.fault("replaces", "is for `mode: shadow`")
        fields.close()
        return ruleset

    def _name(self, fields: Fields) -> str:
        name = fields.text("name")
        if len(name) > MAX_NAME_LENGTH or "/" in name or not name.isprintable():
            fields.fault(
                "name", f"must be printable, without /, of up to {MAX_NAME_LENGTH} characters"
            )
        return name

    def _rules(self, fields: Fields, stage: Stage) -> tuple[Rule, ...]:
        if not fields.has("rules"):
            fields.fault("rules", "is missing")
        rules: list[Rule] = []
        places: dict[str, str] = {}
        for path, document in fields.items("rules", MAX_RULES):
            rule = self._rule(Fields(document, path, self.faults), stage)
            if rule.name and rule.name in places:
                self.faults.add(f"{path}.name", f"is the name of {places[rule.name]} too")
            places.setdefault(rule.name, path)
            rules.append(rule)
        return tuple(rules)

    def _rule(self, fields: Fields, stage: Stage) -> Rule:
        name = self._name(fields)
        fields.text("description", "", empty=True)
        level = fields.choice("level", {level.value: level for level in Level}, "instance")
        condition: Condition = AllOf(())
        study_condition = None
        completion = None
        conditions = fields.raw("conditions", [])
        if level is Level.INSTANCE:
            condition = read_conditions(conditions, fields.at("conditions"), self.faults)
        else:
            study_condition = read_study_conditions(
                conditions, fields.at("conditions"), self.faults
            )
            completion = read_completion(fields, self.faults)
        actions = (
            read_actions(fields.raw("actions"), fields.at("actions"), self.faults, self.known)
            if fields.has("actions")
            else ()
        )
        rule = Rule(
            name=name,
            condition=condition,
            actions=actions,
            targets=self._targets(fields),
            enabled=fields.flag("enabled", True),
            schedule=self._schedule(fields),
            stops_on_failure=fields.choice(
                "on_failure", {"continue": False, "stop": True}, "continue"
            ),
            otherwise=fields.flag("otherwise", False),
            level=level,
            study_condition=study_condition,
            completion=completion,
        )
        fields.close()
        if stage is Stage.RECEPTION:
            self._check_reception(rule, fields)
        if rule.level is not Level.INSTANCE and rule.otherwise:
            hint = "conditions that are the opposite say it"
            fields.fault("otherwise", f"a {rule.level} rule is decided about by itself", hint)
        if rule.level is Level.SERIES and completion and len(completion.expected_series) > 1:
            path = "completion.expected_series"
            fields.fault(path, "no Series is several of them", "say `level: study`")
        if rule.level is not Level.INSTANCE and _standardizes(rule):
            hint = "put it into a rule of level instance"
            fields.fault("actions", f"a {rule.level} rule cannot `standardize`", hint)
        return rule

    def _check_reception(self, rule: Rule, fields: Fields) -> None:
        if rule.targets or not all(isinstance(action, (Reject, Stop)) for action in rule.actions):
            fields.fault("actions", "at reception a rule can only `reject` or `stop`")
        if rule.level is not Level.INSTANCE:
            fields.fault("level", "at reception there are only Instances")

    def _targets(self, fields: Fields) -> tuple[Target, ...]:
        """`destinations` and `storage_backends` mean the same; an Instance goes to both."""
        targets = []
        for key in ("destinations", "storage_backends"):
            for path, item in fields.items(key) if fields.has(key) else ():
                targets.append(self._target(path, item))
        return tuple(targets)

    def _target(self, path: str, item: Any) -> Target:
        if isinstance(item, str):
            if not item:
                self.faults.add(path, "must not be empty")
            check_destination(item, path, self.faults, self.known)
            return Target(item)
        if not isinstance(item, Mapping):
            self.faults.add(path, f"must be a destination's name, not {kind_of(item)}")
            return Target("")
        fields = Fields(item, path, self.faults)
        name = fields.text("name")
        check_destination(name, fields.at("name"), self.faults, self.known)
        actions = read_actions(
            fields.raw("actions", []), fields.at("actions"), self.faults, self.known, for_one=True
        )
        fields.close()
        return Target(name, actions)

    def _sources(self, fields: Fields) -> tuple[SourcePattern, ...]:
        patterns = []
        for path, item in fields.items("sources"):
            if isinstance(item, str):
                patterns.append(SourcePattern(name=item))
                continue
            source = Fields(item, path, self.faults)
            kind = source.choice("type", _SOURCE_TYPES) if source.has("type") else ""
            patterns.append(SourcePattern(kind, source.text("name", "")))
            source.close()
            if patterns[-1] == SourcePattern():
                self.faults.add(path, "needs a type, a name or both")
        return tuple(patterns)

    def _schedule(self, fields: Fields) -> Schedule | None:
        value = fields.raw("schedule")
        if value is None:
            return None
        if not isinstance(value, str):
            return read_schedule(value, fields.at("schedule"), self.faults)
        if value not in self.schedules:
            hint = nearest(value, self.schedules)
            fields.fault("schedule", f"there is no schedule {value[:100]!r}", hint)
        return self.schedules.get(value)

    def _tests(self, fields: Fields) -> tuple[Example, ...]:
        return tuple(
            read_example(item, path, self.faults) for path, item in fields.items("tests", MAX_TESTS)
        )


def _standardizes(rule: Rule) -> bool:
    actions = [*rule.actions, *(one for target in rule.targets for one in target.actions)]
    return any(isinstance(one, Standardize) for one in actions)
