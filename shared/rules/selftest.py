"""Run the `tests:` that stand beside the rules."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from shared.dicom.changes import Change
from shared.dicom.edit import apply_changes
from shared.dicom.header import Header
from shared.dicom.paths import AttributePath
from shared.errors import AxiomError, Fault, InvalidConfigurationError
from shared.rules.crosswalk import CrosswalkOutline
from shared.rules.decision import Decision
from shared.rules.examples import Example, ExampleInstance, Expected, Rows
from shared.rules.program import Program, compile_rulesets
from shared.rules.ruleset import ExecutionMode, Level, RuleSet, parse_ruleset
from shared.rules.schedules import Schedule
from shared.rules.studies import Collected, StudyDecision, StudyRule, compile_study_rules

# Pseudonyms in tests are made with this key, so that a test may name them.
TEST_KEY: Final = b"the key of the tests beside rules"
_ITEM: Final = re.compile(r"\[\d+\]")


class Result(Struct, frozen=True):
    """How one test went; `differences` is empty if it passed."""

    ruleset: str
    test: str
    differences: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.differences


def check_ruleset(
    document: Mapping[str, Any],
    *,
    destinations: Collection[str] | None = None,
    crosswalks: Mapping[str, CrosswalkOutline | None] | None = None,
    standardizers: Collection[str] | None = None,
    schedules: Mapping[str, Schedule] | None = None,
    study_rules: bool = False,
) -> RuleSet:
    """Read a ruleset that is about to go live: as `parse_ruleset`, and then it must be possible to
    carry it out here, and its own tests must pass.

    `study_rules` says that Studies are collected here. Raises: InvalidConfigurationError with
    every fault; a failed test is one, at `tests[n]`.
    """
    ruleset = parse_ruleset(
        document,
        destinations=destinations,
        schedules=schedules,
        crosswalks=crosswalks,
        standardizers=standardizers,
    )
    faults = [
        *_impossible(ruleset, study_rules),
        *(
            Fault(f"tests[{number}]", f"{result.test}: {difference}")
            for number, result in enumerate(run_tests(ruleset))
            for difference in result.differences
        ),
    ]
    if faults:
        raise InvalidConfigurationError(*faults)
    return ruleset


def _impossible(ruleset: RuleSet, study_rules: bool) -> Iterator[Fault]:
    """What the ruleset asks for that cannot be done here."""
    for number, rule in enumerate(ruleset.rules):
        if rule.level is not Level.INSTANCE and not study_rules:
            yield Fault(f"rules[{number}].level", f"{rule.level} rules need the study collector")


def run_tests(ruleset: RuleSet) -> tuple[Result, ...]:
    """Run the tests of one ruleset, in their order. Nothing else is asked: no other ruleset, no
    crosswalk but the test's own, no clock.
    """
    return tuple(
        Result(ruleset.name, example.name, tuple(_differences(ruleset, example)))
        for example in ruleset.tests
    )


def _differences(ruleset: RuleSet, example: Example) -> Iterator[str]:
    if example.execution_mode:
        ruleset = replace(ruleset, execution_mode=ExecutionMode(example.execution_mode))
    crosswalk = _Rows(example.crosswalk or {})
    try:
        program = compile_rulesets([ruleset], key=TEST_KEY, crosswalk=crosswalk, study_rules=True)
        several = len(example.instances) > 1
        for number, instance in enumerate(example.instances):
            where = f"instance {number + 1}: " if several else ""
            for difference in _of_instance(program, instance):
                yield where + difference
        rules = compile_study_rules([ruleset], key=TEST_KEY, crosswalk=crosswalk)
        for name, expected in example.studies.items():
            rule = rules.get(f"{ruleset.name}/{name}")
            if rule is None:
                yield f"there is no study rule {name}"
                continue
            for difference in _of_study(rule, example, expected):
                yield f"study rule {name}: {difference}"
    except AxiomError as error:
        yield f"cannot be run: {error}"


def _of_instance(program: Program, instance: ExampleInstance) -> Iterator[str]:
    header, facts, expected = instance.header, instance.facts, instance.expected
    yield from _compare_decision(program.evaluate(header, facts), header, expected)
    if expected.refused is not None:
        refused = program.refusal(header, facts) is not None
        yield from _compare("refused", expected.refused, refused)


def _compare_decision(decision: Decision, header: Header, expected: Expected) -> Iterator[str]:
    matched = [name.partition("/")[2] for name in decision.matched_rules]
    failed = [failure.rule.partition("/")[2] for failure in decision.failures]
    sent = [planned.destination for planned in decision.deliveries]
    yield from _compare_names("matched", expected.matched, matched)
    yield from _compare_names("destinations", expected.destinations, sent)
    yield from _compare_names("failures", expected.failures, failed)
    if expected.verdict is not None:
        yield from _compare("verdict", expected.verdict.value, decision.verdict.value)
    if expected.high_priority is not None:
        yield from _compare("high_priority", expected.high_priority, decision.high_priority)
    if expected.changes is not None:
        yield from _compare_changes("changes", expected.changes, decision.changes, header)
    syntaxes = {
        planned.destination: planned.transcoding.transfer_syntax_uid if planned.transcoding else ""
        for planned in decision.deliveries
    }
    for destination, uid in (expected.transfer_syntaxes or {}).items():
        yield from _compare(f"transfer_syntax of {destination}", uid, syntaxes.get(destination))
    changes = {planned.destination: planned.changes for planned in decision.deliveries}
    for destination, wanted in (expected.changes_for or {}).items():
        name = f"changes_for {destination}"
        if destination not in changes:
            yield f"{name}: it is not sent there"
        else:
            yield from _compare_changes(name, wanted, changes[destination], header)


def _of_study(rule: StudyRule, example: Example, expected: Expected) -> Iterator[str]:
    last = max(instance.facts.received_at for instance in example.instances)
    groups: dict[tuple[str, str], list[Collected]] = {}
    for instance in example.instances:
        group = groups.setdefault(rule.group_of(instance.header), [])
        group.append(Collected(instance.header, instance.facts))
    now = last + timedelta(seconds=example.after_s)
    decided = [rule.decide(group, now=now, forced=example.forced) for group in groups.values()]
    if expected.state is not None:
        states = sorted({decision.state.value for decision in decided})
        yield from _compare("state", [expected.state], states)
    if expected.verdict is not None:
        verdicts = sorted({decision.verdict.value for decision in decided})
        yield from _compare("verdict", [expected.verdict.value], verdicts)
    yield from _compare_names("destinations", expected.destinations, _sent_by(decided))
    headers = [one.header for group in groups.values() for one in group]
    decisions = [one for decision in decided for one in decision.decisions]
    if expected.changes is not None:
        for header, decision in zip(headers, decisions, strict=False):
            yield from _compare_changes("changes", expected.changes, decision.changes, header)


def _sent_by(decided: Sequence[StudyDecision]) -> list[str]:
    """Each destination once, in the order chosen."""
    sent = dict.fromkeys(
        planned.destination
        for study in decided
        for decision in study.decisions
        for planned in decision.deliveries
    )
    return list(sent)


def _compare_changes(
    name: str,
    expected: Mapping[str, str | None],
    changes: Sequence[Change],
    header: Header,
) -> Iterator[str]:
    delivered = apply_changes(header, changes)
    wanted = {str(AttributePath.parse(path)): text for path, text in expected.items()}
    for path, text in wanted.items():
        yield from _compare(f"{name}: {path}", text, _text(delivered, path))
    named = {_tags(delivered, path) or _tags(header, path) for path in wanted}
    touched = (_within(change.path, wanted, header, delivered) for change in changes)
    for path in dict.fromkeys(chain.from_iterable(touched)):
        # A Change names a private Attribute by its tag, a test may name it by its creator.
        if {path, _ITEM.sub("[*]", path)} & wanted.keys():
            continue
        if (_tags(delivered, path) or _tags(header, path)) in named:
            continue
        if _is_by_the_way(path) or _text(header, path) == _text(delivered, path):
            continue
        yield f"{name}: {path} is changed too, to {_text(delivered, path)!r}"


def _within(path: str, wanted: Collection[str], *headers: Header) -> Iterator[str]:
    """For a Sequence that the test does not name the Attributes in its Items, before and after: a
    Change may be of several at once, and make their Sequence.
    """
    inner = (
        []
        if path in wanted
        else [
            str(below)
            for header in headers
            for below, element in header.walk()
            if element.vr != "SQ" and str(below).startswith(f"{path}[")
        ]
    )
    yield from inner or [path]


def _text(header: Header, path: str) -> str | None:
    try:
        return header.text(path)
    except ValueError:
        return "(Sequence)"


def _tags(header: Header, path: str) -> tuple[int, int] | None:
    """Where the Data Element is; None if it is absent."""
    element = header.element(path)
    return (element.tag, element.start) if element else None


def _is_by_the_way(path: str) -> bool:
    """True for what follows another change: File Meta Information and private creators."""
    steps = AttributePath.parse(path).steps
    tag = steps[-1].tag
    is_creator = bool(tag >> 16 & 1) and 0x10 <= tag & 0xFFFF <= 0xFF
    return is_creator or steps[0].tag >> 16 == 0x0002


def _compare_names(
    name: str, expected: tuple[str, ...] | None, found: Sequence[str]
) -> Iterator[str]:
    if expected is not None:
        yield from _compare(name, list(expected), list(found))


def _compare(name: str, expected: object, found: object) -> Iterator[str]:
    if expected != found:
        yield f"{name}: expected {expected!r}, found {found!r}"


class _Rows(Struct, frozen=True):
    """The crosswalk that a test brings along."""

    maps: Mapping[str, Rows]

    def lookup(self, map_name: str, keys: Mapping[str, str]) -> Mapping[str, str] | None:
        rows = self.maps.get(map_name, ())
        return next((row for match, row in rows if dict(match) == dict(keys)), None)
