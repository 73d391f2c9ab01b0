"""Attribute matching of C-FIND (PS3.4 C.2.2.2), over what a store shows as DICOM JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from shared.dicom.query import Found, Key, Query, items, texts

_WILD_CARD_VRS: Final = frozenset(["AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"])
_NUMBER_VRS: Final = frozenset(["DS", "IS", "US", "SS", "UL", "SL", "SV", "UV", "FL", "FD"])
_RANGE: Final = re.compile(r"([\d.:]*) *- *([\d.:]*)")
# Scheduled Procedure Step Start Date and Time.
_START_OF_STEP: Final = ("00400002", "00400003")
# Study, Series, Acquisition, Content, Performed Procedure Step Start.
_DATES_AND_TIMES: Final = (
    ("00080020", "00080030"),
    ("00080021", "00080031"),
    ("00080022", "00080032"),
    ("00080023", "00080033"),
    ("00400244", "00400245"),
)
# Lower and upper bounds are filled up to whole microseconds.
_LONGEST_DATE: Final = {"DA": 8, "TM": 12, "DT": 20}


def is_range(key: Key) -> bool:
    """True if the key asks for a span of dates or times."""
    return key.vr in _LONGEST_DATE and any(_RANGE.fullmatch(value) for value in key.values)


def takes_wild_cards(key: Key) -> bool:
    """True if `*` and `?` in a Value of the key would stand for anything."""
    return key.vr in _WILD_CARD_VRS


def is_wild_card(key: Key) -> bool:
    """True if they do in its own."""
    return takes_wild_cards(key) and any("*" in v or "?" in v for v in key.values)


def matches(key: Key, found: Found) -> bool | None:
    """Whether what a store shows fits the key; None if it does not show that Attribute.

    Case counts, but not in names. Where the key has several Values one of them has to fit, also if
    they are no UIDs.
    """
    if key.is_universal:
        return True
    attribute = found.get(key.tag)
    if attribute is None:
        return None
    if key.vr == "SQ":
        # One Item has to fit all keys (PS3.4 C.2.2.2.6).
        wanted = [inner for item in key.items for inner in item]
        return any(_item_fits(wanted, item) for item in items(attribute))
    shown = texts(attribute)
    return any(_fits(key.vr, value, one) for value in key.values for one in shown)


def are_one_span(date: Key, time: Key) -> bool:
    """True if both keys are ranges, which may be one together."""
    return is_range(date) and is_range(time)


def matches_span(date: Key, time: Key, found: Found) -> bool | None:
    """Whether what a store shows lies in the one span that a range of dates and a range of times
    are together (PS3.4 C.2.2.2.5.4): from the first time of the first day to the last of the last.
    """
    days, times = texts(found.get(date.tag)), texts(found.get(time.tag))
    if not days or not times:
        return matches(date, found)
    first, last = _RANGE.fullmatch(date.values[0]), _RANGE.fullmatch(time.values[0])
    if first is None or last is None:
        return bool(matches(date, found) and matches(time, found))
    moment = _digits(days[0]) + _digits(times[0]).ljust(12, "0")
    begin, end = _digits(first[1]), _digits(first[2])
    is_after = not begin or moment >= begin + _digits(last[1]).ljust(12, "0")
    return is_after and (not end or moment <= end + _digits(last[2]).ljust(12, "9"))


def spans(query: Query) -> list[tuple[Key, Key]]:
    """The dates and times of a query that are one span together."""
    if not query.has_spans:
        return []
    pairs = [(query.key(date), query.key(time)) for date, time in _DATES_AND_TIMES]
    return [(d, t) for d, t in pairs if d is not None and t is not None and are_one_span(d, t)]


def judged_alone(query: Query) -> list[Key]:
    """The keys that are matched each by itself: names that fit fuzzily are the store's to judge."""
    in_spans = [key for pair in spans(query) for key in pair]
    return [k for k in query.keys if k not in in_spans and not (query.is_fuzzy and k.vr == "PN")]


def _item_fits(keys: Iterable[Key], item: Found) -> bool:
    by_tag = {key.tag: key for key in keys}
    date, time = (by_tag.get(tag) for tag in _START_OF_STEP)
    if date is not None and time is not None and are_one_span(date, time):
        # In a worklist they are, whether that was negotiated or not (PS3.4 Table K.6-1).
        if not matches_span(date, time, item):
            return False
        del by_tag[date.tag], by_tag[time.tag]
    return all(matches(key, item) for key in by_tag.values())


def _fits(vr: str, wanted: str, shown: str) -> bool:
    if vr == "PN":
        return _name_fits(wanted, shown)
    if vr in _LONGEST_DATE:
        return _time_fits(vr, wanted, shown)
    if vr in _NUMBER_VRS:
        try:
            return float(wanted) == float(shown)
        except ValueError:
            return wanted.strip() == shown.strip()
    if vr in _WILD_CARD_VRS and ("*" in wanted or "?" in wanted):
        return _wild_card_fits(wanted.strip(), shown.strip())
    return wanted.strip() == shown.strip()


def _name_fits(wanted: str, shown: str) -> bool:
    groups = [group.rstrip("^ ").lower() for group in shown.split("=")]
    if "=" in wanted:
        asked = [group.rstrip("^ ").lower() for group in wanted.split("=")]
        groups += [""] * (len(asked) - len(groups))
        return all(not a or _wild_card_fits(a, g) for a, g in zip(asked, groups, strict=False))
    asked_for = wanted.rstrip("^ ").lower()
    return any(_wild_card_fits(asked_for, group) for group in groups)


def _wild_card_fits(wanted: str, shown: str) -> bool:
    """Whether `shown` fits a pattern, in time proportional to the product of their lengths."""
    at = star = 0
    pattern = re.sub(r"\*+", "*", wanted)
    position, marked = 0, -1
    while at < len(shown):
        if position < len(pattern) and pattern[position] == "*":
            star, marked = position, at
            position += 1
        elif position < len(pattern) and pattern[position] in ("?", shown[at]):
            at += 1
            position += 1
        elif marked >= 0:
            marked += 1
            at, position = marked, star + 1
        else:
            return False
    return pattern[position:].strip("*") == ""


def _time_fits(vr: str, wanted: str, shown: str) -> bool:
    found = _RANGE.fullmatch(wanted)
    length = _LONGEST_DATE[vr]
    moment = _digits(shown)
    if not moment:
        return False
    if found is None:
        # A time that is less precise than what is shown means all of that hour or minute.
        return moment.startswith(_digits(wanted)) if vr == "TM" else moment == _digits(wanted)
    lowest, highest = _digits(found[1]), _digits(found[2])
    return not (
        (lowest and moment.ljust(length, "0") < lowest.ljust(length, "0"))
        or (highest and moment.ljust(length, "0") > highest.ljust(length, "9"))
    )


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)
