"""Conditions as frozen values, and how they become quick tests.

A Plan gives every distinct condition a number and every distinct reading of an Attribute a slot.
A View is one Instance seen through a Plan: it reads an Attribute on first use, judges a condition
on first use, and remembers both until an action changes the Instance.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol

from msgspec import Struct

from shared.dicom.changes import Change
from shared.dicom.header import Header, Value
from shared.dicom.paths import ANY_ITEM, AttributePath
from shared.rules.comparisons import (
    READING_OF_KIND,
    Fit,
    Kind,
    Reading,
    as_folded_texts,
    as_texts,
    equals_moment,
    name_parts,
    normal_name,
    number_of,
    orders_moment,
    orders_number,
    searcher,
    wildcard,
)
from shared.rules.decision import Facts
from shared.rules.moments import Moment, read_age_days, read_date, read_datetime, read_time

MAX_DEPTH = 16


class Attributes(Protocol):
    """What a Header and a HeaderEdit have in common."""

    def __contains__(self, path: AttributePath | str) -> bool: ...
    def values(self, path: AttributePath | str) -> tuple[Value, ...] | None: ...


class Fact(Struct, frozen=True):
    """A Fact as the subject of a condition, by its name in FACTS."""

    name: str

    def __str__(self) -> str:
        return self.name


FACTS: Final[Mapping[str, tuple[Kind, Callable[[Facts], Value]]]] = {
    "source_type": (Kind.TEXT, lambda facts: facts.source_type),
    "source_name": (Kind.TEXT, lambda facts: facts.source_name),
    "listener": (Kind.TEXT, lambda facts: facts.source_name),
    "calling_ae": (Kind.TEXT, lambda facts: facts.calling_ae_title),
    "called_ae": (Kind.TEXT, lambda facts: facts.called_ae_title),
    "peer_address": (Kind.TEXT, lambda facts: facts.peer_address),
    "transfer_syntax": (Kind.TEXT, lambda facts: facts.transfer_syntax_uid),
    "sop_class": (Kind.TEXT, lambda facts: facts.sop_class_uid),
    "size": (Kind.NUMBER, lambda facts: facts.size),
}

Subject = AttributePath | Fact
Operand = str | int | float | tuple[str | int | float, ...] | None
Fill = Callable[["View"], "tuple[Any, ...] | None"]
Test = Callable[["View"], bool]
_UNREAD: Final = object()


class Condition(Protocol):
    """A claim about an Instance. `str(condition)` is its textual form."""

    def test(self, plan: Plan) -> Test:
        """The claim as a function; whatever it reads or judges is numbered in `plan`."""

    def parts(self) -> Sequence[Condition]:
        """The conditions that this one combines; none for a single claim."""


class Plan:
    """The numbered conditions and slots of a Program. Complete before the first View is made."""

    def __init__(self) -> None:
        self.tests: list[Test] = []
        self.fills: list[Fill] = []
        self._numbers: dict[Condition, int] = {}
        self._slots: dict[object, int] = {}
        self._slow: set[int] = set()

    def number(self, condition: Condition) -> int:
        """The number of the condition; equal conditions have one number."""
        number = self._numbers.get(condition)
        if number is None:
            test = condition.test(self)
            number = self._numbers[condition] = len(self.tests)
            self.tests.append(test)
            if not isinstance(condition, (Comparison, Exists)) or condition.is_slow:
                self._slow.add(number)
        return number

    def is_slow(self, number: int) -> bool:
        """True if the condition takes longer to judge than most."""
        return number in self._slow

    def slot(self, subject: Subject, reading: Reading) -> int:
        """The slot that holds the Values of `subject` in comparable form, None if absent."""
        key = (subject, reading)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = len(self.fills)
            self.fills.append(_fill(subject, reading))
        return slot


class View:
    """One Instance as the conditions see it: `attributes` with the changes made so far."""

    __slots__ = ("_fills", "attributes", "cells", "changes", "facts", "results", "tests")

    def __init__(self, plan: Plan, header: Header, facts: Facts) -> None:
        self._fills, self.tests = plan.fills, plan.tests
        self.facts = facts
        self.see(header, ())

    def see(self, attributes: Attributes, changes: Sequence[Change]) -> None:
        """Look at another state of the Instance, and forget what was read and judged."""
        self.attributes, self.changes = attributes, changes
        self.cells: list[Any] = [_UNREAD] * len(self._fills)
        self.results: list[bool | None] = [None] * len(self.tests)

    def cell(self, slot: int) -> Any:
        values = self.cells[slot]
        if values is _UNREAD:
            values = self.cells[slot] = self._fills[slot](self)
        return values

    def holds(self, number: int) -> bool:
        result = self.results[number]
        if result is None:
            result = self.results[number] = self.tests[number](self)
        return result


# ---- combinations ---------------------------------------------------------------------------


class AllOf(Struct, frozen=True):
    """True if every condition is; true for none."""

    conditions: tuple[Condition, ...]

    def test(self, plan: Plan) -> Test:
        numbers = tuple(plan.number(condition) for condition in self.conditions)
        return lambda view: all(map(view.holds, numbers))

    def parts(self) -> Sequence[Condition]:
        return self.conditions

    def __str__(self) -> str:
        return " and ".join(map(_bracketed, self.conditions)) or "always"


class AnyOf(Struct, frozen=True):
    """True if one condition is; false for none."""

    conditions: tuple[Condition, ...]

    def test(self, plan: Plan) -> Test:
        numbers = tuple(plan.number(condition) for condition in self.conditions)
        return lambda view: any(map(view.holds, numbers))

    def parts(self) -> Sequence[Condition]:
        return self.conditions

    def __str__(self) -> str:
        return " or ".join(map(_bracketed, self.conditions)) or "never"


class Not(Struct, frozen=True):
    """The opposite, so true where an Attribute that `condition` needs is absent."""

    condition: Condition

    def test(self, plan: Plan) -> Test:
        number = plan.number(self.condition)
        return lambda view: not view.holds(number)

    def parts(self) -> Sequence[Condition]:
        return (self.condition,)

    def __str__(self) -> str:
        return f"not {_bracketed(self.condition)}"


# ---- single claims --------------------------------------------------------------------------


class Exists(Struct, frozen=True):
    """True if the Attribute is there, with or without a Value; in any Item for `[*]`."""

    path: AttributePath
    is_slow: ClassVar[bool] = False

    def test(self, plan: Plan) -> Test:
        path = self.path
        return lambda view: path in view.attributes

    def parts(self) -> Sequence[Condition]:
        return ()

    def __str__(self) -> str:
        return f"{self.path} exists"


class Empty(Struct, frozen=True):
    """True if the Attribute is absent or has no Value; a Sequence has one if it has an Item."""

    path: AttributePath

    def test(self, plan: Plan) -> Test:
        path = self.path
        return lambda view: not any(value != "" for value in shown(view.attributes, path) or ())

    def parts(self) -> Sequence[Condition]:
        return ()

    def __str__(self) -> str:
        return f"{self.path} empty"


class Changed(Struct, frozen=True):
    """True if an earlier rule changed the Attribute, something within it, or what holds it."""

    path: AttributePath

    def test(self, plan: Plan) -> Test:
        path = self.path
        return lambda view: any(
            _on_one_way(path, AttributePath.parse(change.path)) for change in view.changes
        )

    def parts(self) -> Sequence[Condition]:
        return ()

    def __str__(self) -> str:
        return f"{self.path} changed"


class Comparison(Struct, frozen=True):
    """True if any Value of the subject (with `every`: one at least, and all) fits the operand.

    An absent subject fits nothing. `group` and `component` choose parts of a Person Name; without
    `group`, any component group may fit.
    """

    subject: Subject
    operator: str  # equals, in, contains, starts, ends, wildcard, regex, lt, le, gt, ge, between
    operand: Operand
    kind: Kind
    ignore_case: bool = False
    every: bool = False
    group: str = ""
    component: str = ""
    named: tuple[str, ...] = ()  # how the operand was written, where names stand for UIDs

    def __post_init__(self) -> None:
        """Raises: ValueError if the operand is none for the operator and kind."""
        self._fit()

    @property
    def is_slow(self) -> bool:
        """True for a pattern."""
        return self.operator in ("regex", "wildcard")

    @property
    def exact_texts(self) -> tuple[str, ...]:
        """The texts one of which must be a Value for this to hold; none if it is not so simple."""
        if self.kind is not Kind.TEXT or self.ignore_case or self.every:
            return ()
        if self.operator == "equals" and isinstance(self.operand, str):
            return () if "\\" in self.operand else (self.operand,)
        if self.operator == "in" and isinstance(self.operand, tuple):
            return tuple(map(str, self.operand))
        return ()

    def test(self, plan: Plan) -> Test:
        slot = plan.slot(self.subject, self.reading())
        exact = frozenset(self.exact_texts)
        if len(exact) == 1:
            (operand,) = exact
            return lambda view: operand in (view.cell(slot) or ())
        if exact:
            return lambda view: not exact.isdisjoint(view.cell(slot) or ())
        fit = self._fit()
        if self._is_joined():
            return lambda view: bool(view.cell(slot)) and fit("\\".join(view.cell(slot)))
        if self.every:
            return lambda view: bool(view.cell(slot)) and all(map(fit, view.cell(slot)))

        def is_any(view: View) -> bool:
            # As `any(map(fit, view.cell(slot) or ()))`, in half the time.
            values = view.cells[slot]
            if values is _UNREAD:
                values = view.cell(slot)
            for value in values or ():  # noqa: SIM110
                if fit(value):
                    return True
            return False

        return is_any

    def parts(self) -> Sequence[Condition]:
        return ()

    def reading(self) -> Reading:
        """How Values are made comparable."""
        if self.kind is Kind.NAME:
            return _NameReading(self.group, self.component, self._folds())
        if self.kind is Kind.TEXT and self._folds():
            return as_folded_texts
        return READING_OF_KIND[self.kind]

    def __str__(self) -> str:
        written = {**SYMBOLS, "regex": "matches", "starts": "starts with", "ends": "ends with"}
        operator = written.get(self.operator, self.operator)
        if self.operator == "between" and isinstance(self.operand, tuple):
            operand = " and ".join(map(_written, self.operand))
        else:
            operand = _written(self.named or self.operand)
        words = [str(self.subject), operator, operand]
        words += [f"in {self.group} group"] if self.group else []
        words += [f"in {self.component} name"] if self.component else []
        words += ["ignoring case"] if self.ignore_case else []
        words += ["for every value"] if self.every else []
        return " ".join(words)

    def _folds(self) -> bool:
        # A regex and a wildcard ignore case by themselves; the others compare folded texts.
        return self.ignore_case and self.operator not in ("regex", "wildcard")

    def _is_joined(self) -> bool:
        """An operand with backslashes speaks of all Values at once."""
        return (
            self.kind is Kind.TEXT
            and self.operator == "equals"
            and isinstance(self.operand, str)
            and "\\" in self.operand
        )

    def _fit(self) -> Fit:
        if self.operator == "between":
            low, high = self._fit_one("ge", self._nth(0)), self._fit_one("le", self._nth(1))
            return lambda value: low(value) and high(value)
        if self.operator == "in":
            if not isinstance(self.operand, tuple) or not self.operand:
                raise ValueError("needs a list of at least one value")
            fits = [self._fit_one("equals", one) for one in self.operand]
            return lambda value: any(fit(value) for fit in fits)
        if isinstance(self.operand, tuple) or self.operand is None:
            raise ValueError("needs one value")
        return self._fit_one(self.operator, self.operand)

    def _nth(self, number: int) -> str | int | float:
        if not isinstance(self.operand, tuple) or len(self.operand) != 2:
            raise ValueError("needs a list of two values: the lowest and the highest")
        return self.operand[number]

    def _fit_one(self, operator: str, operand: str | int | float) -> Fit:
        if operator in ("contains", "starts", "ends", "wildcard", "regex"):
            return self._text_fit(operator, operand)
        if operator != "equals" and operator not in SYMBOLS:
            raise ValueError(f"has no operator {operator}")
        match self.kind:
            case Kind.NUMBER:
                number = number_of(operand)
                if number != number:
                    raise ValueError("needs a number")
                if operator == "equals":
                    return lambda value: bool(value == number)
                return orders_number(operator, number)
            case Kind.DATE | Kind.TIME | Kind.DATETIME:
                moment = _MOMENT_READERS[self.kind](str(operand))
                if moment is None:
                    raise ValueError(f"needs a {self.kind} such as {_EXAMPLES[self.kind]}")
                return (
                    equals_moment(moment)
                    if operator == "equals"
                    else orders_moment(operator, moment)
                )
            case Kind.AGE:
                days = read_age_days(str(operand))
                if days is None:
                    raise ValueError("needs an age such as 018Y, 6M, 2W or 3D")
                if operator == "equals":
                    return lambda value: bool(value == days)
                return orders_number(operator, days)
            case Kind.TEXT | Kind.NAME if operator == "equals":
                return self._text_fit("equals", operand)
            case Kind.TEXT | Kind.NAME:
                raise ValueError(
                    f"cannot order text; `{SYMBOLS[operator]}` needs a number, date, time or age"
                )
            case _:
                raise ValueError(f"cannot compare {self.kind} Values; use exists, empty, changed")

    def _text_fit(self, operator: str, operand: str | int | float) -> Fit:
        if self.kind in (Kind.BYTES, Kind.SEQUENCE):
            raise ValueError(f"cannot compare {self.kind} Values; use exists, empty, changed")
        if not isinstance(operand, str):
            raise ValueError("needs text; put it in quotes")  # noqa: TRY004
        fit = self._plain_text_fit(operator, operand)
        if self.kind is Kind.NAME:
            return lambda parts: any(map(fit, parts))
        if self.kind is Kind.TEXT:
            return fit
        raise ValueError(f"cannot use {operator} on {self.kind} Values without `as: text`")

    def _plain_text_fit(self, operator: str, operand: str) -> Fit:
        if operator == "regex":
            search = searcher(operand, ignore_case=self.ignore_case)
            return lambda value: search(value) is not None
        if operator == "wildcard":
            match = wildcard(operand, ignore_case=self.ignore_case).fullmatch
            return lambda value: match(value) is not None
        if self.ignore_case:
            operand = operand.casefold()
        match operator:
            case "contains":
                return lambda value: operand in value
            case "starts":
                return lambda value: value.startswith(operand)
            case "ends":
                return lambda value: value.endswith(operand)
            case _:
                wanted = normal_name(operand) if self.kind is Kind.NAME else operand
                return lambda value: value == wanted


class AttributeComparison(Struct, frozen=True):
    """True if any Value of one Attribute stands in this order to any Value of another."""

    subject: AttributePath
    operator: str  # equals, lt, le, gt, ge
    other: AttributePath
    kind: Kind
    ignore_case: bool = False

    def __post_init__(self) -> None:
        """Raises: ValueError if Values of this kind have no such order."""
        if self.kind in (Kind.BYTES, Kind.SEQUENCE):
            raise ValueError(f"cannot compare {self.kind} Values")
        if self.operator not in ("equals", *SYMBOLS):
            raise ValueError(f"cannot compare two Attributes by {self.operator}")
        if self.operator != "equals" and self.kind in (Kind.TEXT, Kind.NAME):
            raise ValueError("cannot order text")

    def test(self, plan: Plan) -> Test:
        reading = as_folded_texts if self.ignore_case else READING_OF_KIND[self.kind]
        left, right = plan.slot(self.subject, reading), plan.slot(self.other, reading)
        relation = _RELATIONS[self.operator]
        if self.kind in (Kind.DATE, Kind.TIME, Kind.DATETIME):
            relation = _MOMENT_RELATIONS[self.operator]
        return lambda view: any(
            relation(one, other)
            for one in (view.cell(left) or ())[:_MOST_COMPARED]
            for other in (view.cell(right) or ())[:_MOST_COMPARED]
        )

    def parts(self) -> Sequence[Condition]:
        return ()

    def __str__(self) -> str:
        symbol = SYMBOLS.get(self.operator, "==")
        return f"{self.subject} {symbol} {self.other}" + self.ignore_case * " ignoring case"


class PeerWithin(Struct, frozen=True):
    """True if the peer's address is in one of the networks; an IPv4-mapped one counts as IPv4."""

    networks: tuple[str, ...]

    def test(self, plan: Plan) -> Test:
        networks = [ipaddress.ip_network(network, strict=False) for network in self.networks]

        def is_within(view: View) -> bool:
            try:
                address = ipaddress.ip_address(view.facts.peer_address.partition("%")[0])
            except ValueError:
                return False
            if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
                address = address.ipv4_mapped
            return any(address in network for network in networks)

        return is_within

    def parts(self) -> Sequence[Condition]:
        return ()

    def __str__(self) -> str:
        return f"peer_address in {_written(self.networks)}"


class Returned(Struct, frozen=True):
    """True if the loop guard knows the Instance: it left from here before."""

    def test(self, plan: Plan) -> Test:
        return lambda view: view.facts.returned

    def parts(self) -> Sequence[Condition]:
        return ()

    def __str__(self) -> str:
        return "returned"


def single_claims(condition: Condition) -> Iterator[Condition]:
    """The conditions within that combine no others, from left to right."""
    parts = condition.parts()
    if not parts and not isinstance(condition, (AllOf, AnyOf)):
        yield condition
    for part in parts:
        yield from single_claims(part)


def subjects(condition: Condition) -> tuple[Subject, ...]:
    """What a single claim looks at."""
    match condition:
        case Comparison(subject=subject):
            return (subject,)
        case AttributeComparison(subject=subject, other=other):
            return (subject, other)
        case Exists(path=path) | Empty(path=path) | Changed(path=path):
            return (path,)
        case PeerWithin():
            return (Fact("peer_address"),)
        case _:
            return ()


def shown(attributes: Attributes, path: AttributePath) -> tuple[Value, ...] | None:
    """The Values; for a Sequence one text for each Item; None if absent."""
    try:
        return attributes.values(path)
    except ValueError:
        header = attributes if isinstance(attributes, Header) else attributes.header()  # type: ignore[attr-defined]
        element = header.element(path)
        return tuple("(Item)" for _ in (element.items or ())) if element else None


class _NameReading(Struct, frozen=True):
    """For each name the parts that a condition may fit: one tuple for each Value."""

    group: str
    component: str
    folds: bool

    def __call__(self, values: tuple[Value, ...]) -> tuple[tuple[str, ...], ...]:
        return tuple(map(self._parts, as_texts(values)))

    def _parts(self, name: str) -> tuple[str, ...]:
        if self.folds:
            name = name.casefold()
        parts = name_parts(name, self.group, self.component)
        return parts if self.group or self.component else (*parts, normal_name(name))


SYMBOLS: Final = {"equals": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_MOST_COMPARED: Final = 100  # Values of each side, so that a long list costs no square of time
_MOMENT_READERS: Final = {
    Kind.DATE: read_date,
    Kind.TIME: read_time,
    Kind.DATETIME: read_datetime,
}
_EXAMPLES: Final = {
    Kind.DATE: "20240203, 202402 or 2024",
    Kind.TIME: "1330 or 133000.5",
    Kind.DATETIME: "20240203133000",
}
_RELATIONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "equals": lambda one, other: one == other,
    "lt": lambda one, other: one < other,
    "le": lambda one, other: one <= other,
    "gt": lambda one, other: one > other,
    "ge": lambda one, other: one >= other,
}


def _both(relation: Callable[[Moment, Moment], bool]) -> Callable[[Any, Any], bool]:
    return lambda one, other: one is not None and other is not None and relation(one, other)


_MOMENT_RELATIONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "equals": _both(lambda one, other: one == other),
    "lt": _both(lambda one, other: one.before(other)),
    "le": _both(lambda one, other: one.high <= other.high),
    "gt": _both(lambda one, other: other.before(one)),
    "ge": _both(lambda one, other: one.low >= other.low),
}


def _fill(subject: Subject, reading: Reading) -> Fill:
    if isinstance(subject, Fact):
        _, get = FACTS[subject.name]
        return lambda view: reading((get(view.facts),))

    def read(view: View) -> tuple[Any, ...] | None:
        values = view.attributes.values(subject)
        return None if values is None else reading(values)

    return read


def _written(operand: Operand) -> str:
    """The operand as the textual form of conditions reads it."""
    if isinstance(operand, tuple):
        return f"[{', '.join(map(_written, operand))}]"
    if isinstance(operand, str):
        return '"' + operand.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(operand)


def _bracketed(condition: Condition) -> str:
    return f"({condition})" if isinstance(condition, (AllOf, AnyOf)) else str(condition)


def _on_one_way(one: AttributePath, other: AttributePath) -> bool:
    """True if the paths are equal or one leads through the other; `[*]` equals any Item."""
    return all(
        (a.tag, a.creator) == (b.tag, b.creator)
        and (a.item == b.item or None in (a.item, b.item) or ANY_ITEM in (a.item, b.item))
        for a, b in zip(one.steps, other.steps, strict=False)
    )
