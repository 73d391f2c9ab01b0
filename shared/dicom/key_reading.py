"""Keys of a search as people write them: PS3.6 keywords, with what C-FIND and QIDO-RS can match.

`*` and `?` are wild cards, `20250101-20250131` is a range, `-7d` a date counted back from now, and
a list fits where one of its Values does (PS3.4 C.2.2.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from shared.dicom.dictionary import (
    entry_for_tag,
    keyword_for_tag,
    nearest_keyword,
    tag_for_keyword,
)
from shared.dicom.levels import level_of
from shared.dicom.query import (
    PATIENT_ID,
    SERIES_INSTANCE_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    Key,
    Level,
    Query,
)
from shared.dicom.relative_dates import absolute
from shared.errors import Fault

MAX_VALUES: Final = 200
_LONGEST: Final = 256
_MOST_GUESSES: Final = 5
_ORDER: Final = tuple(Level)
_DATE: Final = re.compile(r"\d{4}\.?\d{2}\.?\d{2}")
_MOMENT: Final = re.compile(r"[\d.:]*")
_UID: Final = re.compile(r"[0-9.]{1,64}")
_BYTES: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT", "NONE"})

# What a search shows unless it says what it wants.
SHOWN: Final[Mapping[Level, Sequence[str]]] = {
    Level.PATIENT: ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    Level.STUDY: (
        "PatientID", "PatientName", "StudyDate", "StudyTime", "AccessionNumber",
        "StudyDescription", "ModalitiesInStudy", "NumberOfStudyRelatedInstances",
    ),
    Level.SERIES: ("Modality", "SeriesNumber", "SeriesDescription"),
    Level.IMAGE: ("SOPClassUID", "InstanceNumber"),
}  # fmt: skip
_NAMED_BY: Final = {
    Level.PATIENT: (PATIENT_ID,),
    Level.STUDY: (STUDY_INSTANCE_UID,),
    Level.SERIES: (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID),
    Level.IMAGE: (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID),
}


def read_query(
    level: Level,
    filters: Mapping[str, Any],
    wanted: Sequence[str] | None,
    now: datetime,
    faults: list[Fault],
) -> Query:
    """The query that these words mean; whatever is wrong with them is added to `faults`.

    `wanted` is what is to be shown besides what is matched; by default what people look at.
    """
    keys: dict[str, Key] = {}
    for name, given in filters.items():
        path = f"filters.{name[:64]}"
        key = _filter(name, given, level, now, path, faults)
        if key is not None and key.tag in keys:
            faults.append(Fault(path, "the Attribute is there twice, by keyword and by tag"))
        elif key is not None:
            keys[key.tag] = key
    for index, name in enumerate(SHOWN[level] if wanted is None else wanted):
        shown = _attribute(name, f"return[{index}]", faults)
        if shown is not None:
            keys.setdefault(shown.tag, shown)
    for tag in _NAMED_BY[level]:
        keys.setdefault(tag, Key(tag, "LO" if tag == PATIENT_ID else "UI"))
    return Query(level, tuple(keys[tag] for tag in sorted(keys)))


def name_of(tag: str) -> str:
    """How an Attribute is called: by its keyword, or its tag if it has none."""
    return keyword_for_tag(int(tag, 16)) or tag


# ---- inside


def _attribute(name: str, path: str, faults: list[Fault]) -> Key | None:
    """A key that fits everything."""
    tag = int(name, 16) if re.fullmatch("[0-9A-Fa-f]{8}", name) else tag_for_keyword(name)
    entry = entry_for_tag(tag) if tag is not None else None
    if entry is None or tag is None:
        # To look through all keywords takes a while.
        near = nearest_keyword(name[:64]) if len(faults) < _MOST_GUESSES else None
        hint = f"{near}?" if near else "A PS3.6 keyword, or a tag of eight hexadecimal digits."
        faults.append(Fault(path, "no Attribute is called this", hint))
        return None
    if entry.vr in _BYTES or tag <= 0x0008_0005 or " or O" in entry.vr:
        faults.append(Fault(path, "the Attribute can be no key of a search"))
        return None
    return Key(f"{tag:08X}", entry.vr[:2])


def _filter(
    name: str, given: Any, level: Level, now: datetime, path: str, faults: list[Fault]
) -> Key | None:
    key = _attribute(name, path, faults)
    if key is None:
        return None
    if key.vr == "SQ":
        faults.append(Fault(path, "a Sequence cannot be matched", "Name it in `return`."))
        return None
    known = level_of(name_of(key.tag))
    if known is not None and _ORDER.index(known) > _ORDER.index(level):
        hint = "ModalitiesInStudy is of the Study." if name_of(key.tag) == "Modality" else ""
        words = f"the Attribute is of a level below; it is matched where level is {_WORDS[known]}"
        faults.append(Fault(path, words, hint))
        return None
    several = list(given) if isinstance(given, list | tuple) else [given]
    if len(several) > MAX_VALUES:
        faults.append(Fault(path, f"has more than {MAX_VALUES} Values"))
        return None
    values = []
    for index, one in enumerate(several):
        where = f"{path}[{index}]" if isinstance(given, list | tuple) else path
        value = _value(one, key.vr, now, where, faults)
        if value:
            values.append(value)
    return Key(key.tag, key.vr, tuple(values))


def _value(given: Any, vr: str, now: datetime, path: str, faults: list[Fault]) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        faults.append(Fault(path, "is neither a text nor a number, nor a list of these"))
        return ""
    text = str(given).strip()
    problem = ""
    if len(text) > _LONGEST or not text.isprintable():
        problem = f"is longer than {_LONGEST} characters, or has some that cannot be printed"
    elif "\\" in text:
        problem = "has a backslash; several Values are a list"
    elif vr == "DA":
        text = absolute(text, now).replace(".", "")
        parts = text.split("-")
        if len(parts) > 2 or not all(not p or _DATE.fullmatch(p) for p in parts) or text == "-":
            problem = "is no date, range of dates or span such as -7d"
    elif vr in ("TM", "DT") and not all(_MOMENT.fullmatch(p) for p in text.split("-")):
        problem = "is no time or range of times"
    elif vr == "UI" and text and not _UID.fullmatch(text):
        problem = "is no UID; UIDs take no wild cards"
    if problem:
        hint = "20250131, 20250101-20250131, -7d" if vr == "DA" else ""
        faults.append(Fault(path, problem, hint))
        return ""
    return text


_WORDS: Final = {
    Level.PATIENT: "patient",
    Level.STUDY: "study",
    Level.SERIES: "series",
    Level.IMAGE: "instance",
}
