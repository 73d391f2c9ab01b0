"""Conditions of study and series rules: about all Instances collected so far.

{"any_instance": [...]}, {"every_instance": [...]}, {"instance_count": {">=": 3}},
{"series_count": 2}, combined by all, any and not. An ordinary condition stands for
`any_instance`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from msgspec import Struct

from shared.rules.claims import OPERATORS
from shared.rules.comparisons import orders_number
from shared.rules.condition_documents import MAX_CONDITIONS, read_conditions
from shared.rules.conditions import MAX_DEPTH, SYMBOLS, Condition, Plan, View
from shared.rules.reading import Faults, kind_of, nearest

_COUNTS: Final = ("instance_count", "series_count")
_QUANTIFIERS: Final = ("any_instance", "every_instance")
_COMBINATIONS: Final = ("all", "any", "not")
_KEYS: Final = (*_COUNTS, *_QUANTIFIERS, *_COMBINATIONS)


class Collection(Struct, frozen=True):
    """What was collected of one Study or Series."""

    views: Sequence[View]
    series_count: int

    def count(self, what: str) -> int:
        """`instance_count` or `series_count`."""
        return self.series_count if what == "series_count" else len(self.views)


StudyTest = Callable[[Collection], bool]


class StudyCondition(Protocol):
    """A claim about a Collection."""

    def test(self, plan: Plan) -> StudyTest:
        """The claim as a function over views that were made with `plan`."""


class OfInstances(Struct, frozen=True):
    """True if the condition holds for one Instance; with `every`, for all of at least one."""

    condition: Condition
    every: bool = False

    def test(self, plan: Plan) -> StudyTest:
        number = plan.number(self.condition)
        if self.every:
            return lambda found: (
                bool(found.views) and all(view.holds(number) for view in found.views)
            )
        return lambda found: any(view.holds(number) for view in found.views)

    def __str__(self) -> str:
        return f"{'every' if self.every else 'any'} instance: {self.condition}"


class Count(Struct, frozen=True):
    """True if as many Instances or Series as this were collected."""

    what: str  # instance_count, series_count
    operator: str  # equals, lt, le, gt, ge
    number: int

    def test(self, plan: Plan) -> StudyTest:
        wanted = self.number
        if self.operator == "equals":
            fits: Callable[[Any], bool] = lambda value: bool(value == wanted)  # noqa: E731
        else:
            fits = orders_number(self.operator, wanted)
        return lambda found: fits(found.count(self.what))

    def __str__(self) -> str:
        return f"{self.what} {SYMBOLS[self.operator]} {self.number}"


class Combination(Struct, frozen=True):
    """All, any, or none of the conditions."""

    how: str  # all, any, not
    conditions: tuple[StudyCondition, ...]

    def test(self, plan: Plan) -> StudyTest:
        tests = [condition.test(plan) for condition in self.conditions]
        if self.how == "any":
            return lambda found: any(test(found) for test in tests)
        if self.how == "not":
            return lambda found: not any(test(found) for test in tests)
        return lambda found: all(test(found) for test in tests)

    def __str__(self) -> str:
        inner = [
            f"({one})" if isinstance(one, Combination) else str(one) for one in self.conditions
        ]
        if self.how == "not":
            return f"not ({' or '.join(inner)})"
        return (" or " if self.how == "any" else " and ").join(inner)


def read_study_conditions(
    document: Any, path: str, faults: Faults, depth: int = 0
) -> StudyCondition:
    """One condition, or a list of which all must hold."""
    if depth > MAX_DEPTH:
        faults.add(path, f"is nested deeper than {MAX_DEPTH} levels")
        return Combination("all", ())
    if isinstance(document, (list, tuple)):
        if len(document) > MAX_CONDITIONS:
            faults.add(path, f"has more than {MAX_CONDITIONS} conditions")
            return Combination("all", ())
        return Combination(
            "all",
            tuple(
                read_study_conditions(one, f"{path}[{number}]", faults, depth + 1)
                for number, one in enumerate(document)
            ),
        )
    if isinstance(document, Mapping) and any(key in _KEYS for key in document):
        return _read_mapping(document, path, faults, depth)
    return OfInstances(read_conditions(document, path, faults, depth))


def _read_mapping(
    document: Mapping[Any, Any], path: str, faults: Faults, depth: int
) -> StudyCondition:
    found: list[StudyCondition] = []
    for key, value in document.items():
        at = f"{path}.{str(key)[:100]}"
        if key in _QUANTIFIERS:
            inner = read_conditions(value, at, faults, depth + 1)
            found.append(OfInstances(inner, every=key == "every_instance"))
        elif key in _COUNTS:
            found += _read_counts(key, value, at, faults)
        elif key in _COMBINATIONS:
            inner_condition = read_study_conditions(value, at, faults, depth + 1)
            parts: tuple[StudyCondition, ...] = (inner_condition,)
            if key == "any" and isinstance(inner_condition, Combination):
                parts = inner_condition.conditions
            found.append(Combination(key, parts))
        else:
            faults.add(at, f"{str(key)[:100]!r} does not go with these", nearest(str(key), _KEYS))
    return found[0] if len(found) == 1 else Combination("all", tuple(found))


def _read_counts(what: str, value: Any, path: str, faults: Faults) -> list[StudyCondition]:
    wanted = value if isinstance(value, Mapping) else {"equals": value}
    found: list[StudyCondition] = []
    for word, number in wanted.items():
        operator, turned = OPERATORS.get(word, ("", False))
        if turned or operator not in ("equals", "lt", "le", "gt", "ge"):
            faults.add(f"{path}.{str(word)[:50]}", "is none of ==, <, <=, >, >=")
        elif isinstance(number, bool) or not isinstance(number, int) or number < 0:
            faults.add(path, f"must be a whole number, not {kind_of(number)}")
        else:
            found.append(Count(what, operator, number))
    return found
