"""Dates, times and ages as the VRs DA, TM, DT and AS write them (PS3.5 6.2), partial ones too.

A partial value stands for the whole stretch of time it names: `202402` is February 2024. Bounds
are strings of digits, year to microsecond, that compare as text.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from msgspec import Struct

_DATE = re.compile(r"(\d{4})(?:([-.]?)(\d{2})(?:\2(\d{2}))?)?", re.ASCII)
_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?)?", re.ASCII)
_DATETIME = re.compile(
    r"(\d{4})(?:-?(\d{2})(?:-?(\d{2})"
    r"(?:[T ]?(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?)?)?)?)?"
    r"([+-]\d{2}:?\d{2})?",
    re.ASCII,
)
_AGE = re.compile(r"(\d{1,3})([DWMY])", re.ASCII)
_DAYS = {"D": 1.0, "W": 7.0, "M": 365.25 / 12, "Y": 365.25}
_HIGHEST = ("9999", "12", "31", "23", "59", "60", "999999")
_LOWEST = ("0000", "01", "01", "00", "00", "00", "000000")


class Moment(Struct, frozen=True):
    """A stretch of time from `low` to `high`, both included."""

    low: str
    high: str

    def within(self, other: Moment) -> bool:
        return other.low <= self.low and self.high <= other.high

    def before(self, other: Moment) -> bool:
        return self.high < other.low


def read_date(text: str) -> Moment | None:
    """A DA, also as 2024-02-03, and as 2024.02.03 of ACR-NEMA times; None if it is none."""
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    return _moment((found[1], found[3], found[4]), first=0, fields=3)


def read_time(text: str) -> Moment | None:
    """A TM, also with colons; None if it is none."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    return _moment((found[1], found[2], found[3], found[4]), first=3, fields=4)


def read_datetime(text: str) -> Moment | None:
    """A DT. One with an offset from UTC is compared in UTC, one without as it stands."""
    found = _DATETIME.fullmatch(text)
    if found is None:
        return None
    moment = _moment(found.groups()[:7], first=0, fields=7)
    if moment is None or found[8] is None or found[4] is None:
        return moment
    offset = found[8].replace(":", "")
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    shift = timedelta(minutes=minutes if offset[0] == "-" else -minutes)
    try:
        return Moment(_shifted(moment.low, shift), _shifted(moment.high, shift))
    except (ValueError, OverflowError):
        return None


def read_age_days(text: str) -> float | None:
    """An AS in days, a month being a twelfth of 365.25 days; None if it is none."""
    found = _AGE.fullmatch(text)
    return None if found is None else int(found[1]) * _DAYS[found[2]]


def _moment(parts: tuple[str | None, ...], first: int, fields: int) -> Moment | None:
    low = list(_LOWEST[first : first + fields])
    high = list(_HIGHEST[first : first + fields])
    for number, part in enumerate(parts):
        if part is None:
            break
        if first + number == 6:
            low[number], high[number] = part.ljust(6, "0"), part.ljust(6, "9")
        elif not _LOWEST[first + number] <= part <= _HIGHEST[first + number]:
            return None
        else:
            low[number] = high[number] = part
    return Moment("".join(low), "".join(high))


def _shifted(digits: str, by: timedelta) -> str:
    # A leap second (60) has no place in datetime; the next best is the second before.
    second = min(int(digits[12:14]), 59)
    text = f"{digits[:12]}{second:02}{digits[14:]}"
    stamp = datetime.strptime(text, "%Y%m%d%H%M%S%f")  # noqa: DTZ007 - a shift needs no zone
    moved = stamp + by
    return moved.strftime("%Y%m%d%H%M%S%f").rjust(20, "0")
