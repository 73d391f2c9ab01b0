"""Dates counted back from now, as people write them where DICOM wants a range (PS3.4 C.2.2.2.5)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

# -1d, -7d-, -2w--1w.
_RELATIVE: Final = re.compile(r"-(\d{1,5})([hdw])(-(?:(?:-(\d{1,5})([hdw]))?))?")
_UNITS_H: Final = {"h": 1, "d": 24, "w": 7 * 24}
# There is nothing older, and no calendar goes back for ever.
_LONGEST_H: Final = 200 * 366 * 24


def absolute(value: str, now: datetime) -> str:
    """A relative date as what it means now: `-1d` is the range from yesterday on, `-2w--1w` one
    with an end. Another value stays as it is.
    """
    found = _RELATIVE.fullmatch(value)
    if found is None:
        return value
    start = _before(now, found[1], found[2])
    end = _before(now, found[4], found[5]) if found[4] else ""
    return f"{start}-{end}"


def _before(now: datetime, count: str, unit: str) -> str:
    return f"{now - timedelta(hours=min(int(count) * _UNITS_H[unit], _LONGEST_H)):%Y%m%d}"
