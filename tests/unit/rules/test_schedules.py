"""When a schedule is in force, also on the days on which the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rules.reading import Faults
from shared.rules.schedules import Schedule, read_schedule

BERLIN = ZoneInfo("Europe/Berlin")


def schedule(**document: Any) -> Schedule:
    faults = Faults()
    read = read_schedule({"timezone": "Europe/Berlin", **document}, "schedule", faults)
    assert list(map(str, faults)) == []
    return read


def faults_of(document: Any) -> str:
    faults = Faults()
    read_schedule(document, "schedule", faults)
    return "; ".join(map(str, faults))


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-11-20T21:59:59", False),  # a Friday
        ("2026-11-20T22:00", True),
        ("2026-11-21T05:59:59", True),  # still Friday's window
        ("2026-11-21T06:00", False),
        ("2026-11-21T23:00", False),  # Saturday has none
        ("2026-11-20T03:00", False),  # Thursday has none
    ],
)
def test_an_overnight_window_belongs_to_the_day_it_starts(at: str, expected: bool) -> None:
    assert schedule(days=["fri"], start="22:00", end="06:00").is_active(berlin(at)) is expected


def test_dates_on_and_off() -> None:
    holidays = schedule(days="weekdays", dates_off=["2026-12-25"], dates_on=["2026-12-26"])
    assert holidays.is_active(berlin("2026-12-24T12:00"))
    assert not holidays.is_active(berlin("2026-12-25T12:00"))
    assert holidays.is_active(berlin("2026-12-26T12:00"))  # a Saturday
    only = schedule(dates_on=["2026-12-26"])
    assert not only.is_active(berlin("2026-12-24T12:00"))


def test_a_whole_day_has_its_own_length() -> None:
    """The days of the changes have 23 and 25 hours."""
    for day, hours in (("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)):
        whole = schedule(dates_on=[day])
        start = berlin(day).astimezone(UTC)
        minutes = range(-120, 30 * 60, 30)
        active = [m for m in minutes if whole.is_active(start + timedelta(minutes=m))]
        assert active == list(range(0, hours * 60, 30))


def test_a_start_that_the_clocks_skip_is_the_moment_of_the_change() -> None:
    skipped = schedule(start="02:30", end="04:00")
    assert not skipped.is_active(berlin("2026-03-29T01:59:59"))
    assert skipped.is_active(berlin("2026-03-29T03:00"))


def test_an_hour_that_comes_twice_is_one_window() -> None:
    window = schedule(start="02:15", end="02:45")
    assert window.is_active(berlin("2026-10-25T02:30", fold=0))
    assert not window.is_active(berlin("2026-10-25T02:30", fold=1))
    evening = schedule(start="22:00", end="06:00")
    assert evening.is_active(berlin("2026-10-25T02:30", fold=0))
    assert evening.is_active(berlin("2026-10-25T02:30", fold=1))


@given(
    at=st.integers(1_577_836_800, 1_893_456_000).map(lambda s: datetime.fromtimestamp(s, UTC)),
    start=st.times().map(lambda clock: f"{clock:%H:%M}"),
    end=st.times().map(lambda clock: f"{clock:%H:%M}"),
)
def test_a_window_and_the_rest_of_the_day_make_a_whole(at: datetime, start: str, end: str) -> None:
    """At every moment exactly one of the two is open, whatever the clocks do."""
    if start == end:
        return
    inside = schedule(start=start, end=end).is_active(at)
    outside = schedule(start=end, end=start).is_active(at)
    local = at.astimezone(BERLIN)
    changes = local.utcoffset() != (local - timedelta(hours=26)).utcoffset() or (
        local.utcoffset() != (local + timedelta(hours=26)).utcoffset()
    )
    assert changes or inside != outside


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({}, "timezone: is missing"),
        ({"timezone": "Europe/Berln"}, "did you mean Europe/Berlin?"),
        ({"timezone": "UTC", "start": "25:00"}, "must be a time"),
        ({"timezone": "UTC", "days": ["fryday"]}, "did you mean friday?"),
        ({"timezone": "UTC", "dates_on": ["24.12.2026"]}, "is no date"),
        ({"timezone": "UTC", "day": "fri"}, "did you mean days?"),
        ("always", "must be an object"),
    ],
)
def test_wrong_schedules_are_refused(document: Any, fault: str) -> None:
    assert fault in faults_of(document)
