"""Make a single claim from a subject, an operator's word and an operand, whatever the form.

The long, the short and the textual form of conditions all end here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from shared.dicom.paths import AttributePath
from shared.rules.comparisons import (
    COMPONENT_GROUPS,
    COMPONENTS,
    KIND_OF_VR,
    ORDERED,
    Kind,
    linear_regex,
)
from shared.rules.conditions import (
    FACTS,
    AnyOf,
    AttributeComparison,
    Changed,
    Comparison,
    Condition,
    Empty,
    Exists,
    Fact,
    Not,
    Operand,
    PeerWithin,
    Subject,
)
from shared.rules.decision import SOURCE_TYPES
from shared.rules.reading import MAX_LIST_LENGTH, NO_ATTRIBUTE, Faults, Fields, kind_of, nearest
from shared.rules.uids import sop_class_uids, transfer_syntax_uids

# Every word for an operator: its name in a Comparison, and whether the word turns it round.
OPERATORS: Final[Mapping[str, tuple[str, bool]]] = {
    **dict.fromkeys(("equals", "eq", "==", "=", "is"), ("equals", False)),
    **dict.fromkeys(("not_equals", "ne", "neq", "!=", "is not"), ("equals", True)),
    **dict.fromkeys(("exists", "present"), ("exists", False)),
    **dict.fromkeys(("not_exists", "not exists", "absent", "missing"), ("exists", True)),
    **dict.fromkeys(("empty", "is_empty", "is empty"), ("empty", False)),
    **dict.fromkeys(("not_empty", "not empty", "is not empty"), ("empty", True)),
    "contains": ("contains", False),
    **dict.fromkeys(("not_contains", "not contains"), ("contains", True)),
    **dict.fromkeys(("starts", "starts_with", "starts with", "startswith"), ("starts", False)),
    **dict.fromkeys(("not_starts_with", "not starts with"), ("starts", True)),
    **dict.fromkeys(("ends", "ends_with", "ends with", "endswith"), ("ends", False)),
    **dict.fromkeys(("not_ends_with", "not ends with"), ("ends", True)),
    **dict.fromkeys(("wildcard", "like"), ("wildcard", False)),
    **dict.fromkeys(("not_wildcard", "not like"), ("wildcard", True)),
    **dict.fromkeys(("regex", "matches"), ("regex", False)),
    **dict.fromkeys(("not_regex", "not_matches", "not matches"), ("regex", True)),
    "in": ("in", False),
    **dict.fromkeys(("not_in", "not in"), ("in", True)),
    **dict.fromkeys(("lt", "less_than", "<"), ("lt", False)),
    **dict.fromkeys(("le", "lte", "<=", "≤"), ("le", False)),
    **dict.fromkeys(("gt", "greater_than", ">"), ("gt", False)),
    **dict.fromkeys(("ge", "gte", ">=", "≥"), ("ge", False)),
    "between": ("between", False),
    **dict.fromkeys(("not_between", "not between"), ("between", True)),
    "changed": ("changed", False),
    **dict.fromkeys(("not_changed", "unchanged", "not changed"), ("changed", True)),
}
WITHOUT_OPERAND: Final = frozenset({"exists", "empty", "changed"})
WITH_LIST: Final = frozenset({"in", "between"})
TEXT_OPERATORS: Final = frozenset({"contains", "starts", "ends", "wildcard", "regex"})
FACT_NAMES: Final[Mapping[str, str]] = {
    **{name: name for name in FACTS},
    "source": "source_name",
    "calling_ae_title": "calling_ae",
    "called_ae_title": "called_ae",
    "transfer_syntax_uid": "transfer_syntax",
    "sop_class_uid": "sop_class",
}
OPTION_NAMES: Final = ("ignore_case", "case_sensitive", "every_value", "group", "component", "as")
_KINDS: Final = {kind.value: kind for kind in Kind if kind not in (Kind.BYTES, Kind.SEQUENCE)}
_STAND_IN: Final = AnyOf(())


class Options(Struct, frozen=True):
    """What a claim says beside subject, operator and operand."""

    ignore_case: bool = False
    every: bool = False
    group: str = ""
    component: str = ""
    kind: Kind | None = None


def read_options(fields: Fields) -> Options:
    """The options of a condition in the long or the short form."""
    return Options(
        ignore_case=fields.flag("ignore_case", False) or not fields.flag("case_sensitive", True),
        every=fields.flag("every_value", False),
        group=fields.choice("group", {"": "", **{name: name for name in COMPONENT_GROUPS}}, ""),
        component=fields.choice("component", {"": "", **{name: name for name in COMPONENTS}}, ""),
        kind=fields.choice("as", {"": None, **_KINDS}, ""),
    )


def kind_of_attribute(path: AttributePath) -> Kind | None:
    """The kind by the dictionary; None for an Attribute it does not have."""
    vr = path.dictionary_vr
    return None if vr in (None, "UN") else KIND_OF_VR.get(str(vr), Kind.BYTES)


def make_claim(
    subject: Subject,
    word: str,
    operand: Any,
    options: Options,
    path: str,
    faults: Faults,
) -> Condition:
    """The claim; `operand` is a JSON value, or an AttributePath to compare with, or None.

    What is wrong with it is noted at `path`.
    """
    if subject is NO_ATTRIBUTE or operand is NO_ATTRIBUTE:
        return _STAND_IN  # that was noted where it stands
    operator, turned = OPERATORS[word]
    is_pattern = operator == "regex"
    if is_pattern and not faults.can_take_patterns:
        return _STAND_IN
    try:
        claim = _claim(subject, operator, operand, options)
    except ValueError as error:
        faults.add(path, f"{subject}: {error}")
        return _STAND_IN
    if is_pattern:
        regex = linear_regex(operand, ignore_case=options.ignore_case)
        faults.count_pattern(path, regex.programsize)
    return Not(claim) if turned else claim


def _claim(subject: Subject, operator: str, operand: Any, options: Options) -> Condition:
    if operator in WITHOUT_OPERAND:
        if isinstance(subject, Fact):
            raise ValueError(f"is always known; `{operator}` asks for an Attribute")
        if options != Options():
            raise ValueError(f"`{operator}` takes no options")
        if operator == "exists":
            return Exists(subject)
        return Empty(subject) if operator == "empty" else Changed(subject)
    if isinstance(operand, AttributePath):
        return _attribute_comparison(subject, operator, operand, options)
    value = _operand(operator, operand)
    if isinstance(subject, Fact):
        special = _fact_claim(subject, operator, value)
        if special is not None:
            return special
    kind = options.kind or _kind(subject, value)
    if operator in TEXT_OPERATORS and kind in ORDERED:
        kind = Kind.TEXT  # the text of a date or number as it stands in the file
    if (options.group or options.component) and kind is not Kind.NAME:
        raise ValueError("`group` and `component` are for Person Names")
    if options.ignore_case and kind not in (Kind.TEXT, Kind.NAME):
        raise ValueError(f"`ignore_case` is for text, the Values are of the kind {kind}")
    return Comparison(
        subject,
        operator,
        value,
        kind,
        options.ignore_case,
        options.every,
        options.group,
        options.component,
    )


def _attribute_comparison(
    subject: Subject, operator: str, other: AttributePath, options: Options
) -> Condition:
    if isinstance(subject, Fact):
        raise ValueError("only an Attribute can be compared with an Attribute")  # noqa: TRY004
    if options.every or options.group or options.component:
        raise ValueError("`every_value`, `group`, `component` do not go with two Attributes")
    kind = options.kind or kind_of_attribute(subject) or Kind.TEXT
    other_kind = options.kind or kind_of_attribute(other) or kind
    texts = {Kind.TEXT, Kind.NAME}
    if kind != other_kind:
        if not {kind, other_kind} <= texts:
            raise ValueError(f"is of the kind {kind}, {other} of the kind {other_kind}")
        kind = Kind.TEXT
    if options.ignore_case and kind not in texts:
        raise ValueError("`ignore_case` is for text")
    return AttributeComparison(subject, operator, other, kind, options.ignore_case)


def _operand(operator: str, operand: Any) -> Operand:
    if isinstance(operand, (list, tuple)):
        if operator not in WITH_LIST:
            raise ValueError(f"`{operator}` needs one value, not a list; use `in`")
        if len(operand) > MAX_LIST_LENGTH:
            raise ValueError(f"has more than {MAX_LIST_LENGTH} values")
        return tuple(_scalar(one) for one in operand)
    if operator in WITH_LIST:
        raise ValueError(f"`{operator}` needs a list of values")
    return _scalar(operand)


def _scalar(value: Any) -> str | int | float:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        what = kind_of(value)
        raise ValueError(f"needs text or a number, not {what}; quote text")  # noqa: TRY004
    if value == "":
        raise ValueError("the value must not be empty; use `empty`")
    if isinstance(value, str) and len(value) > 10_000:
        raise ValueError("the value is longer than 10000 characters")
    if isinstance(value, int) and abs(value) >= 1 << 64:
        raise ValueError("the number is too large")
    return value


def _kind(subject: Subject, operand: Operand) -> Kind:
    if isinstance(subject, Fact):
        return FACTS[subject.name][0]
    known = kind_of_attribute(subject)
    if known is not None:
        return known
    first = operand[0] if isinstance(operand, tuple) and operand else operand
    return Kind.NUMBER if isinstance(first, (int, float)) else Kind.TEXT


def _fact_claim(subject: Fact, operator: str, value: Operand) -> Condition | None:
    """A claim about an address or a UID that may be named; None for any other."""
    if operator not in ("equals", "in"):
        if subject.name == "peer_address":
            raise ValueError("takes `equals` or `in` with addresses or networks (10.0.0.0/8)")
        return None
    given = tuple(map(str, value if isinstance(value, tuple) else (value,)))
    if subject.name == "peer_address":
        for network in given:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                raise ValueError(f"{network} is no IPv4 or IPv6 address or network") from None
        return PeerWithin(given)
    if subject.name == "source_type":
        unknown = next((name for name in given if name not in SOURCE_TYPES), None)
        if unknown is not None:
            raise ValueError(f"{unknown[:100]!r} is none of {', '.join(SOURCE_TYPES)}")
    tables = {"sop_class": sop_class_uids, "transfer_syntax": transfer_syntax_uids}
    resolve = tables.get(subject.name)
    if resolve is None:
        return None
    uids: dict[str, None] = {}
    for name in given:
        uids.update(dict.fromkeys(resolve(name)))
    return Comparison(subject, "in", tuple(uids), Kind.TEXT, named=given)


def operator_fault(word: str, path: str, faults: Faults) -> None:
    """Note that `word` is no operator, with the nearest that is one."""
    names = [name for name in OPERATORS if name[0].isalpha()]
    faults.add(path, f"{word!r} is no operator", nearest(word, names))
