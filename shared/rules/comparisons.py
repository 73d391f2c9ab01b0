"""How Values are read and compared, by kind: text, number, date, time, date and time, age, name.

A reading turns the Values of an Attribute into comparable ones; what cannot be read becomes
something that fits nothing, so a wrong Value is never an error of the rule. A fit judges one
comparable Value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any

import re2

from shared.dicom.header import Value
from shared.rules.moments import Moment, read_age_days, read_date, read_datetime, read_time

MAX_PATTERN_LENGTH = 1_000
_MAX_PATTERN_MEMORY = 8 << 20  # `\p{L}{1,64}\^\p{L}{1,64}` takes nearly 3
_PATTERNS_KEPT = 64
# Letters, digits and the like, \d, ^, $ and |, nothing else.
_SIMPLE_PATTERN = re.compile(r"(?:[A-Za-z0-9 _,:;=/@%&^$|-]|\\d|\\[.+*()\[\]])+", re.ASCII)


class Kind(StrEnum):
    """What the Values of an Attribute are."""

    TEXT = "text"
    NUMBER = "number"
    DATE = "date"
    TIME = "time"
    DATETIME = "datetime"
    AGE = "age"
    NAME = "name"
    BYTES = "bytes"
    SEQUENCE = "sequence"


KIND_OF_VR: Mapping[str, Kind] = {
    **dict.fromkeys(("AE", "AT", "CS", "LO", "LT", "SH", "ST", "UC", "UI", "UR", "UT"), Kind.TEXT),
    **dict.fromkeys(
        ("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV", "US or SS"), Kind.NUMBER
    ),
    "DA": Kind.DATE,
    "TM": Kind.TIME,
    "DT": Kind.DATETIME,
    "AS": Kind.AGE,
    "PN": Kind.NAME,
    "SQ": Kind.SEQUENCE,
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "OB or OW"), Kind.BYTES),
}
ORDERED = frozenset({Kind.NUMBER, Kind.DATE, Kind.TIME, Kind.DATETIME, Kind.AGE})

Comparable = Any  # str, float, Moment or None: what a Reading gives for one Value
Reading = Callable[[tuple[Value, ...]], tuple[Comparable, ...]]
Fit = Callable[[Comparable], bool]

COMPONENT_GROUPS = {"alphabetic": 0, "ideographic": 1, "phonetic": 2}  # PS3.5 6.2.1.1
COMPONENTS = {"family": 0, "given": 1, "middle": 2, "prefix": 3, "suffix": 4}  # PS3.5 6.2.1


# ---- readings -------------------------------------------------------------------------------


def as_texts(values: tuple[Value, ...]) -> tuple[str, ...]:
    """Text as it stands; bytes (an unknown VR) as Latin-1 without padding, split at backslashes."""
    for value in values:
        if not isinstance(value, str):
            return tuple(text for value in values for text in _texts_of(value))
    return values  # type: ignore[return-value]  # every one of them is a str


def as_folded_texts(values: tuple[Value, ...]) -> tuple[str, ...]:
    """Text in which case does not count, beyond ASCII too (Unicode case folding)."""
    return tuple(text.casefold() for text in as_texts(values))


def as_numbers(values: tuple[Value, ...]) -> tuple[float, ...]:
    """Numbers; NaN, which equals and exceeds nothing, for what is none."""
    return tuple(map(number_of, values))


def as_dates(values: tuple[Value, ...]) -> tuple[Moment | None, ...]:
    """Days, as `moments.read_date` reads them; None for what is none."""
    return tuple(map(read_date, as_texts(values)))


def as_times(values: tuple[Value, ...]) -> tuple[Moment | None, ...]:
    """Times of day, as `moments.read_time` reads them; None for what is none."""
    return tuple(map(read_time, as_texts(values)))


def as_datetimes(values: tuple[Value, ...]) -> tuple[Moment | None, ...]:
    """Stretches of time as precise as DT has them; None for what is none."""
    return tuple(map(read_datetime, as_texts(values)))


def as_ages(values: tuple[Value, ...]) -> tuple[float, ...]:
    """Ages in days (PS3.5 6.2, AS); NaN for what is none."""
    return tuple(
        math.nan if days is None else days for days in map(read_age_days, as_texts(values))
    )


READING_OF_KIND: Mapping[Kind, Reading] = {
    Kind.TEXT: as_texts,
    Kind.NUMBER: as_numbers,
    Kind.DATE: as_dates,
    Kind.TIME: as_times,
    Kind.DATETIME: as_datetimes,
    Kind.AGE: as_ages,
    Kind.NAME: as_texts,
}


def number_of(value: Value | bool) -> float:
    """A number as it stands or as DS and IS write it; NaN for anything else."""
    if isinstance(value, (int, float)):
        return value
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    text = text.strip(" \0")
    try:
        # int() and float() also take underscores and "nan", which DS and IS do not.
        if "_" in text or text[-1:].isalpha():
            return math.nan
        return int(text) if len(text) <= 20 and text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return math.nan


def normal_name(name: str) -> str:
    """A Person Name without the trailing delimiters that mean nothing (PS3.5 6.2.1)."""
    return "=".join(group.rstrip("^ ") for group in name.split("=")).rstrip("=")


def name_parts(name: str, group: str, component: str) -> tuple[str, ...]:
    """The wanted component group(s) of a name, or one component of each; empty ones left out."""
    groups = name.split("=")
    if group:
        groups = groups[COMPONENT_GROUPS[group] : COMPONENT_GROUPS[group] + 1]
    if component:
        at = COMPONENTS[component]
        groups = [part for whole in groups for part in whole.split("^")[at : at + 1]]
    return tuple(part for part in (whole.rstrip("^ ") for whole in groups) if part)


# ---- fits -----------------------------------------------------------------------------------


def equals_moment(operand: Moment) -> Fit:
    """Within that stretch of time: any day of 2024 equals 2024."""
    return lambda value: value is not None and value.within(operand)


def orders_moment(operator: str, operand: Moment) -> Fit:
    """`lt`, `le`, `gt`, `ge` between stretches of time: `gt 2024` begins with 2025."""
    low, high = operand.low, operand.high
    fits: dict[str, Fit] = {
        "lt": lambda value: value is not None and value.high < low,
        "le": lambda value: value is not None and value.high <= high,
        "gt": lambda value: value is not None and value.low > high,
        "ge": lambda value: value is not None and value.low >= low,
    }
    return fits[operator]


def orders_number(operator: str, operand: float) -> Fit:
    """`lt`, `le`, `gt`, `ge`; NaN fits none of them."""
    fits: dict[str, Fit] = {
        "lt": lambda value: value < operand,
        "le": lambda value: value <= operand,
        "gt": lambda value: value > operand,
        "ge": lambda value: value >= operand,
    }
    return fits[operator]


def wildcard(pattern: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    """The pattern of PS3.4 C.2.2.2.4: `*` any characters, none too; `?` exactly one.

    Only these two wild cards, and no two `*` in a row, so the search takes time in proportion to
    the product of both lengths at worst. Raises: ValueError if the pattern is too long.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ValueError(f"is longer than {MAX_PATTERN_LENGTH} characters")
    pieces = [re.escape(piece).replace(r"\?", ".") for piece in re.split(r"\*+", pattern)]
    # Possessive matching is not needed: each `.*?` is followed by a literal or the end, and an
    # atomic group keeps the first place where the literal fits, which is as good as any later.
    if len(pieces) == 1:
        text = pieces[0]
    else:
        middle = "".join(f"(?>.*?{piece})" for piece in pieces[1:-1])
        text = f"{pieces[0]}{middle}.*{pieces[-1]}"
    return re.compile(text, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def searcher(pattern: str, *, ignore_case: bool = False) -> Callable[[str], object]:
    """The search of `linear_regex`; None from it means that the pattern is nowhere in the text."""
    regex = linear_regex(pattern, ignore_case=ignore_case)
    if ignore_case or not _SIMPLE_PATTERN.fullmatch(pattern):
        return regex.search  # type: ignore[no-any-return]
    # Without repetition and groups there is nothing to backtrack into, and both engines agree: the
    # one that comes with Python answers in a tenth of the time, the way into RE2 being long.
    return re.compile(pattern.replace("$", r"\Z"), re.ASCII | re.DOTALL).search


@lru_cache(maxsize=_PATTERNS_KEPT)
def linear_regex(pattern: str, *, ignore_case: bool = False) -> Any:
    """A compiled RE2 pattern: time linear in the text, no back-references or look-around.

    Raises: ValueError with RE2's own words.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ValueError(f"is longer than {MAX_PATTERN_LENGTH} characters")
    options = re2.Options()
    options.max_mem = _MAX_PATTERN_MEMORY
    options.case_sensitive = not ignore_case
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(text) from None


def _texts_of(value: Value) -> list[str]:
    if isinstance(value, bytes):
        return [part.strip(" \0") for part in value.decode("latin-1").split("\\")]
    return [value if isinstance(value, str) else str(value)]
