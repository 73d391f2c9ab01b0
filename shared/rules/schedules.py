"""When a rule is in force: days and hours in a time zone, dates on and dates off.

A window belongs to the day it starts on: with days "fri" and 22:00 to 06:00, Saturday at 05:00 is
within. The ends of a window are instants, so a change of clocks inside it shortens or lengthens
it; an end that the clocks skip is the moment of the change, one that comes twice is the first.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

from msgspec import Struct

from shared.rules.reading import Faults, Fields, nearest

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_NAMES: Final = {
    **{day: (number,) for number, day in enumerate(DAYS)},
    **{
        name: (number,)
        for number, name in enumerate(
            ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
        )
    },
    "weekdays": (0, 1, 2, 3, 4),
    "weekends": (5, 6),
    "all": tuple(range(7)),
}
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")
_MIDNIGHT: Final = time(0)


class Schedule(Struct, frozen=True):
    """The windows of time in which something is in force.

    `dates_on` are days beside the weekdays, `dates_off` days never; both are days on which a
    window starts. `end` not after `start` means the next day; equal ones mean 24 hours.
    """

    days: frozenset[int]  # 0 is Monday
    start: time
    end: time
    zone: str
    dates_on: frozenset[date] = frozenset()
    dates_off: frozenset[date] = frozenset()

    def is_active(self, at: datetime) -> bool:
        """`at` is timezone-aware."""
        zone = ZoneInfo(self.zone)
        today = at.astimezone(zone).date()
        return any(
            self._starts_on(day) and self._opening(day, zone) <= at < self._closing(day, zone)
            for day in (today, today - timedelta(days=1))
        )

    def _starts_on(self, day: date) -> bool:
        return day not in self.dates_off and (day.weekday() in self.days or day in self.dates_on)

    def _opening(self, day: date, zone: ZoneInfo) -> datetime:
        return _instant(day, self.start, zone)

    def _closing(self, day: date, zone: ZoneInfo) -> datetime:
        if self.end <= self.start:
            day += timedelta(days=1)
        return _instant(day, self.end, zone)


def read_schedule(document: Any, path: str, faults: Faults) -> Schedule:
    """{"days": ["mon", ...] | "weekdays", "start": "22:00", "end": "06:00", "timezone":
    "Europe/Berlin", "dates_on": ["2026-12-24"], "dates_off": [...]}; only the zone is required.
    """
    fields = Fields(document, path, faults)
    schedule = Schedule(
        days=_read_days(fields),
        start=_read_clock(fields, "start"),
        end=_read_clock(fields, "end"),
        zone=_read_zone(fields),
        dates_on=_read_dates(fields, "dates_on"),
        dates_off=_read_dates(fields, "dates_off"),
    )
    fields.close()
    return schedule


def _instant(day: date, clock: time, zone: ZoneInfo) -> datetime:
    local = datetime.combine(day, clock, zone)  # fold=0: the first of two
    instant = local.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
        return instant
    # The clocks skip this time: look for the moment at which the offset changes.
    earlier, later = local.replace(fold=1).astimezone(UTC), instant
    offset = later.astimezone(zone).utcoffset()
    while later - earlier > timedelta(seconds=1):
        middle = earlier + (later - earlier) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            later = middle
        else:
            earlier = middle
    return later.replace(microsecond=0)


def _read_days(fields: Fields) -> frozenset[int]:
    if not fields.has("days"):
        return frozenset() if fields.has("dates_on") else frozenset(range(7))
    found: set[int] = set()
    for day in fields.texts("days"):
        if day.lower() in _DAY_NAMES:
            found.update(_DAY_NAMES[day.lower()])
        else:
            fields.fault("days", f"{day[:50]!r} is no day", nearest(day, _DAY_NAMES))
    return frozenset(found)


def _read_clock(fields: Fields, key: str) -> time:
    text = fields.text(key, "00:00")
    if text == "24:00" and key == "end":
        return _MIDNIGHT
    found = _CLOCK.fullmatch(text)
    if found is None:
        fields.fault(key, "must be a time such as 22:00")
        return _MIDNIGHT
    return time(int(found[1]), int(found[2]), int(found[3] or 0))


def _read_zone(fields: Fields) -> str:
    name = fields.text("timezone")
    if name and name not in available_timezones():
        fields.fault(
            "timezone",
            f"{name[:100]!r} is no IANA time zone such as Europe/Berlin",
            nearest(name, available_timezones()),
        )
        return "UTC"
    return name or "UTC"


def _read_dates(fields: Fields, key: str) -> frozenset[date]:
    found = set()
    for text in fields.texts(key, required=False):
        try:
            found.add(date.fromisoformat(text))
        except ValueError:
            fields.fault(key, f"{text[:50]!r} is no date such as 2026-12-24")
    return frozenset(found)
