"""What can be done to one Value: text changes, mapping, dates, and keyed pseudonyms.

Keyed changes use HMAC-SHA-256 with the key that `compile_rulesets` got, so that the same Value
always becomes the same pseudonym, and nobody without the key can find the Value by trying.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct

from shared.dicom.paths import AttributePath
from shared.dicom.values import as_text
from shared.rules.actions import ActionError, Work
from shared.rules.claims import kind_of_attribute
from shared.rules.comparisons import Kind, linear_regex
from shared.rules.moments import read_date

MAX_RESULT_LENGTH: Final = 1 << 20
MAX_REGEX_INPUT: Final = 1 << 16


class RegexReplace(Struct, frozen=True):
    r"""Replace what RE2 finds; `\1` to `\9` and `\g<name>` in the replacement are groups."""

    pattern: str
    replacement: str
    ignore_case: bool = False
    only_first: bool = False

    def __post_init__(self) -> None:
        """Raises: ValueError if pattern or replacement is wrong."""
        self._pieces(linear_regex(self.pattern, ignore_case=self.ignore_case))

    def of_values(self, work: Work, path: AttributePath) -> Callable[[str], str]:
        regex = linear_regex(self.pattern, ignore_case=self.ignore_case)
        pieces = self._pieces(regex)

        def expand(match: Any) -> str:
            return "".join(
                piece if isinstance(piece, str) else match[piece] or "" for piece in pieces
            )

        def replace(text: str) -> str:
            if len(text) > MAX_REGEX_INPUT:
                raise ActionError(f"a Value is longer than {MAX_REGEX_INPUT} characters")
            out, at, length = [], 0, 0
            for match in regex.finditer(text):
                out += [text[at : match.start()], expand(match)]
                at = match.end()
                length += len(out[-1])
                if length > MAX_RESULT_LENGTH:
                    raise ActionError(f"the result is longer than {MAX_RESULT_LENGTH} characters")
                if self.only_first:
                    break
            return "".join(out) + text[at:]

        return replace

    def _pieces(self, regex: Any) -> tuple[str | int, ...]:
        """Texts and group numbers, in turn."""
        pieces: list[str | int] = []
        at = 0
        for found in _REFERENCE.finditer(self.replacement):
            pieces.append(self.replacement[at : found.start()])
            at = found.end()
            if found["escaped"]:
                pieces.append(found["escaped"])
                continue
            name = found["number"] or found["name"]
            if name is None:
                raise ValueError("a backslash in the replacement begins \\1, \\g<name> or \\\\")
            number = int(name) if name.isdigit() else regex.groupindex.get(name, -1)
            if not 0 <= number <= regex.groups:
                raise ValueError(f"the pattern has no group {name}")
            pieces.append(number)
        return (*pieces, self.replacement[at:])


class MapValues(Struct, frozen=True):
    """Replace a Value by the one that the table has for it."""

    table: tuple[tuple[str, str], ...]
    ignore_case: bool = False
    default: str | None = None  # for a Value that the table lacks; None keeps it
    fails: bool = False  # instead of keeping it

    def of_values(self, work: Work, path: AttributePath) -> Callable[[str], str]:
        table = {self._key(old): new for old, new in self.table}

        def change(text: str) -> str:
            new = table.get(self._key(text), self.default)
            if new is None and self.fails:
                raise ActionError("the table lacks the Value")
            return text if new is None else new

        return change

    def _key(self, text: str) -> str:
        return text.casefold() if self.ignore_case else text


class Plain(Struct, frozen=True):
    """One of the changes in PLAIN_CHANGES."""

    name: str

    def of_values(self, work: Work, path: AttributePath) -> Callable[[str], str]:
        return PLAIN_CHANGES[self.name]


PLAIN_CHANGES: Final[Mapping[str, Callable[[str], str]]] = {
    "upper": str.upper,
    "lower": str.lower,
    "title": str.title,
    "trim": str.strip,
    "squeeze": lambda text: " ".join(text.split()),
}


class Pad(Struct, frozen=True):
    """Make a Value at least `width` characters long."""

    width: int
    character: str
    at_end: bool

    def of_values(self, work: Work, path: AttributePath) -> Callable[[str], str]:
        if self.at_end:
            return lambda text: text.ljust(self.width, self.character)
        return lambda text: text.rjust(self.width, self.character)


class Truncate(Struct, frozen=True):
    """Keep the first characters of a Value."""

    length: int

    def of_values(self, work: Work, path: AttributePath) -> Callable[[str], str]:
        return lambda text: text[: self.length]


class Hash(Struct, frozen=True):
    """Replace a Value by the first hexadecimal digits of its HMAC-SHA-256."""

    length: int

    def of_values(self, work: Work, path: AttributePath) -> Callable[[str], str]:
        return lambda text: _digest(work.key, "hash", text).hex()[: self.length]


class NewUid(Struct, frozen=True):
    """Replace a UID by one below 2.25 (PS3.5 B.2) that only the key and the old UID decide."""

    def of_values(self, work: Work, path: AttributePath) -> Callable[[str], str]:
        def change(uid: str) -> str:
            octets = bytearray(_digest(work.key, "uid", uid)[:16])
            octets[6] = octets[6] & 0x0F | 0x80  # UUID version 8: made in a way of our own
            octets[8] = octets[8] & 0x3F | 0x80
            return f"2.25.{int.from_bytes(octets, 'big')}"

        return change


class Shift(Struct, frozen=True):
    """Move dates and times: by a fixed span, or by one that the patient's key decides.

    A DA moves by days; a TM by seconds, round midnight; a DT by both. With `per`, every Instance
    with the same received Value of it moves by the same 1 to `max_days` days into the past.
    """

    days: int = 0
    seconds: int = 0
    per: AttributePath | None = None
    max_days: int = 0

    def of_values(self, work: Work, path: AttributePath) -> Callable[[str], str]:
        days = self.days
        if self.per is not None:
            owner = "\\".join(map(as_text, work.received.values(self.per) or ()))
            if not owner:
                raise ActionError(f"{self.per} has no Value to decide the shift")
            number = int.from_bytes(_digest(work.key, "shift", owner)[:8], "big")
            days = -(1 + number % self.max_days)
        seconds = self.seconds
        if kind_of_attribute(path) is Kind.TIME:
            return lambda text: _shifted_time(text, seconds)
        return lambda text: _shifted_date(text, days, seconds)


def _digest(key: bytes, purpose: str, text: str) -> bytes:
    return hmac.new(key, f"{purpose}\0{text}".encode(), hashlib.sha256).digest()


def _shifted_time(text: str, seconds: int) -> str:
    """A TM moved round midnight, as precise as it was."""
    clock = _TIME.fullmatch(text)
    if clock is None:
        raise ActionError("a Value is no time")
    try:
        present = datetime(2000, 1, 2, int(clock[1]), int(clock[2] or 0), _second(clock[3]))  # noqa: DTZ001
    except ValueError:
        raise ActionError("a time is impossible") from None
    moved = present + timedelta(seconds=seconds)
    return moved.strftime("%H%M%S")[: len(clock[0]) - len(clock[4])] + clock[4]


def _shifted_date(text: str, days: int, seconds: int) -> str:
    """A DA or DT moved, as precise as it was; a DA takes the form of PS3.5 6.2."""
    stamp = _DATETIME.fullmatch(text)
    day = read_date(text)
    if stamp is None and (day is None or day.low != day.high):
        raise ActionError("a Value is no whole date")
    digits = stamp[1] if stamp else day.low if day else ""
    clock = digits[8:].ljust(6, "0")
    try:
        present = datetime.strptime(  # noqa: DTZ007 - the offset from UTC stays as it is
            f"{digits[:8]}{clock[:4]}{_second(clock[4:]):02}", "%Y%m%d%H%M%S"
        )
        # Without a time of day, only whole days have a meaning.
        moved = present + timedelta(days=days, seconds=seconds if len(digits) > 8 else 0)
    except (ValueError, OverflowError):
        raise ActionError("a date is impossible or moves out of years 1 to 9999") from None
    return _digits(moved)[: len(digits)] + (stamp[2] if stamp else "")


def _second(text: str | None) -> int:
    return min(int(text or 0), 59)  # a leap second becomes the one before


def _digits(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%S").rjust(14, "0")


_REFERENCE: Final = re.compile(
    r"\\(?:(?P<escaped>\\)|(?P<number>[0-9])|g<(?P<name>[A-Za-z_]\w*|\d{1,2})>|)", re.ASCII
)
_DATETIME: Final = re.compile(r"(\d{8}(?:\d{2}){0,3})((?:\.\d{1,6})?(?:[+-]\d{4})?)", re.ASCII)
_TIME: Final = re.compile(r"(\d{2})(?:(\d{2})(?:(\d{2}))?)?((?:\.\d{1,6})?)", re.ASCII)
