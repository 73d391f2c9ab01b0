"""Identifiers of Query/Retrieve (PS3.4 Annex C): read from requests, written into responses.

What a store shows is DICOM JSON (PS3.18 Annex F), here as plain mappings by tag: "00100010".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from shared.dicom.commitment import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement, RawDataElement
    from pydicom.dataset import Dataset

Found = Mapping[str, Any]

# What identifiers are encoded in, the preferred first.
TRANSFER_SYNTAXES: Final = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)

PATIENT_ID, STUDY_INSTANCE_UID = "00100020", "0020000D"
SERIES_INSTANCE_UID, SOP_INSTANCE_UID = "0020000E", "00080018"

_SPECIFIC_CHARACTER_SET, _LEVEL = 0x00080005, 0x00080052
_RETRIEVE_AE_TITLE = 0x00080054
_FAILED_SOP_INSTANCE_UIDS = 0x00080058
# Not keys: what they are is said by other means (PS3.4 C.4.1.1.3, C.2.2.2).
_NO_KEYS: Final = frozenset({_SPECIFIC_CHARACTER_SET, _LEVEL, _RETRIEVE_AE_TITLE, 0x00080201})

_TEXT_VRS: Final = frozenset(
    [
        "AE",
        "AS",
        "CS",
        "DA",
        "DS",
        "DT",
        "IS",
        "LO",
        "LT",
        "PN",
        "SH",
        "ST",
        "TM",
        "UC",
        "UI",
        "UR",
        "UT",
    ]
)
# Whose backslash is no delimiter of Values (PS3.5 6.2).
_SINGLE_VRS: Final = frozenset({"LT", "ST", "UR", "UT"})
_INTEGER_VRS: Final = frozenset({"US", "SS", "UL", "SL", "SV", "UV"})
_MOST_KEYS: Final = 1000
_DEEPEST: Final = 8
_MOST_ITEMS: Final = 1000
# One date or time of a key, with the dots and colons of ACR-NEMA. Bounds as 99999999 and 240000
# are no days and times, but what lies within them is clear.
_MOMENTS: Final = {
    "DA": r"\d{4}\.?\d\d\.?\d\d",
    "TM": r"\d\d(:?\d\d(:?\d\d(\.\d{1,6})?)?)?",
}
_MOMENT_KEYS: Final = {
    vr: re.compile(rf"({one})?( *- *({one})?)?", re.ASCII) for vr, one in _MOMENTS.items()
}


class MalformedIdentifierError(ValueError):
    """The bytes are no identifier, or not one of this model; the text has no Values."""


class Level(StrEnum):
    """Query/Retrieve Level (0008,0052)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"

    @property
    def unique_key(self) -> str:
        """The tag that names one entity of this level."""
        return _UNIQUE_KEYS[self]


_UNIQUE_KEYS: Final = {
    Level.PATIENT: PATIENT_ID,
    Level.STUDY: STUDY_INSTANCE_UID,
    Level.SERIES: SERIES_INSTANCE_UID,
    Level.IMAGE: SOP_INSTANCE_UID,
}


@dataclass(frozen=True, slots=True)
class Key:
    """A key of an identifier: to match if it has Values, to return in any case."""

    tag: str  # "00100010"
    vr: str
    values: tuple[str, ...] = ()
    items: tuple[tuple[Key, ...], ...] = ()  # of a Sequence

    @property
    def is_universal(self) -> bool:
        """It fits everything (PS3.4 C.2.2.2.3)."""
        if self.vr == "SQ":
            return all(key.is_universal for item in self.items for key in item)
        return all(value.strip("*") == "" for value in self.values)


@dataclass(frozen=True, slots=True)
class Query:
    """The identifier of a C-FIND, C-MOVE or C-GET request."""

    level: Level
    keys: tuple[Key, ...]
    # Names fit if they are alike, as far as the store can tell.
    is_fuzzy: bool = False
    # Ranges of a date and of its time are one span together (PS3.4 C.2.2.2.5.4).
    has_spans: bool = False

    @classmethod
    def parse(cls, data: bytes, transfer_syntax_uid: str, levels: Sequence[Level]) -> Query:
        """Read an identifier of a model with these levels. Raises: MalformedIdentifierError."""
        found = _all_keys(data, transfer_syntax_uid)
        level = found.get(_LEVEL)
        named = level.values[0] if level is not None and level.values else ""
        if named not in levels:
            raise MalformedIdentifierError(f"Query/Retrieve Level is none of {', '.join(levels)}")
        return cls(Level(named), tuple(found[tag] for tag in found if tag not in _NO_KEYS))

    def key(self, tag: str) -> Key | None:
        """The key of that tag."""
        return next((key for key in self.keys if key.tag == tag), None)

    def uids(self, tag: str) -> tuple[str, ...]:
        """The Values of a unique key; none if it fits everything."""
        key = self.key(tag)
        return () if key is None or key.is_universal else tuple(filter(None, key.values))


@dataclass(frozen=True, slots=True)
class Match:
    """One entity that fits; `is_certain` unless a key had to be left out of matching."""

    found: Found
    is_certain: bool = True


def identifier_of(query: Query) -> Dataset:
    """The identifier of a C-FIND request: its keys with what they are to match."""
    dataset = dataset_of(query.keys)
    dataset.QueryRetrieveLevel = str(query.level)
    if not all(value.isascii() for key in query.keys for value in key.values):
        dataset.SpecificCharacterSet = "ISO_IR 192"
    return dataset


def found_of(dataset: Dataset, depth: int = 0) -> Found:
    """What an identifier of a response shows; what cannot be decoded is left out."""
    found: dict[str, Any] = {}
    for tag in dataset.keys():  # noqa: SIM118 (iterating decodes, and may raise)
        try:
            element = dataset[tag]
            value: Any = element.value
            shown: list[Any]
            if element.VR == "SQ":
                shown = [found_of(item, depth + 1) for item in value] if depth < _DEEPEST else []
            else:
                many = [value] if isinstance(value, str | bytes) else list(_each(value))
                shown = [str(v) for v in many if v not in (None, "") and not isinstance(v, bytes)]
        except Exception:  # noqa: S112 (the decoder raises whatever it stumbles over)
            continue
        found[f"{int(tag):08X}"] = {"vr": str(element.VR), "Value": shown}
    return found


def parse_keys(data: bytes, transfer_syntax_uid: str) -> tuple[Key, ...]:
    """Read an identifier of a model without levels. Raises: MalformedIdentifierError, also for a
    date or time that is none: it would fit nothing.
    """
    found = _all_keys(data, transfer_syntax_uid)
    keys = tuple(found[tag] for tag in found if tag not in _NO_KEYS)
    _check_moments(keys)
    return keys


def dataset_of(keys: Iterable[Key]) -> Dataset:
    """The keys as a request says them, with what they are to match."""
    from pydicom.dataset import Dataset

    dataset = Dataset()
    for key in keys:
        if key.vr == "SQ":
            dataset.add(_new(int(key.tag, 16), "SQ", [dataset_of(item) for item in key.items]))
        else:
            dataset.add(_element(key, {"Value": list(key.values)}, 0))
    return dataset


def encode_match(
    query: Query, found: Found, transfer_syntax_uid: str, *, retrieve_ae_title: str
) -> bytes:
    """The identifier of a pending response (PS3.4 C.4.1.1.3.2): every key that was asked for, empty
    where `found` does not have it, and where it is retrieved from.
    """
    dataset = _response(query.keys, found)
    dataset.QueryRetrieveLevel = str(query.level)
    dataset.RetrieveAETitle = retrieve_ae_title
    return _encode_what_can_be(dataset, transfer_syntax_uid)


def encode_keys(keys: Iterable[Key], found: Found, transfer_syntax_uid: str) -> bytes:
    """The same of a model without levels (PS3.4 K.4.1.1.3.2)."""
    return _encode_what_can_be(_response(keys, found), transfer_syntax_uid)


def _response(keys: Iterable[Key], found: Found) -> Dataset:
    from pydicom.dataset import Dataset

    dataset = Dataset()
    for key in keys:
        dataset.add(_element(key, found.get(key.tag), 0))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    return dataset


def _encode_what_can_be(dataset: Dataset, transfer_syntax_uid: str) -> bytes:
    try:
        return _encode(dataset, transfer_syntax_uid)
    except Exception:
        # What a server shows need not be what its Value Representation allows.
        for element in list(dataset):
            if not _is_encodable(element, transfer_syntax_uid):
                dataset.add(_empty(element.tag, str(element.VR)))
        return _encode(dataset, transfer_syntax_uid)


def encode_failed(sop_instance_uids: Sequence[str], transfer_syntax_uid: str) -> bytes:
    """The identifier of a final response with failures (PS3.4 C.4.2.1.4.2)."""
    from pydicom.dataset import Dataset

    dataset = Dataset()
    # In Explicit VR its length has 16 bits.
    dataset.add(_new(_FAILED_SOP_INSTANCE_UIDS, "UI", list(sop_instance_uids[:_MOST_KEYS])))
    return _encode(dataset, transfer_syntax_uid)


def texts(attribute: object) -> list[str]:
    """The Values of an Attribute in DICOM JSON as text, names as `alphabetic=ideographic=phonetic`;
    what is none of text, number and name is left out.
    """
    values = attribute.get("Value") if isinstance(attribute, Mapping) else None
    found = []
    for value in values if isinstance(values, list) else ():
        if isinstance(value, Mapping):
            groups = (value.get(g) for g in ("Alphabetic", "Ideographic", "Phonetic"))
            found.append("=".join(g if isinstance(g, str) else "" for g in groups).rstrip("="))
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            found.append(str(value))
    return found


def items(attribute: object) -> list[Found]:
    """The Items of a Sequence in DICOM JSON."""
    values = attribute.get("Value") if isinstance(attribute, Mapping) else None
    if not isinstance(values, list):
        return []
    return [value for value in values if isinstance(value, Mapping)]


# ---- reading


def _all_keys(data: bytes, transfer_syntax_uid: str) -> dict[int, Key]:
    """Raises: MalformedIdentifierError."""
    try:
        return dict(_keys_of(_dataset_of(data, transfer_syntax_uid)))
    except MalformedIdentifierError:
        raise
    except Exception:
        # The decoder raises whatever it stumbles over; each time the identifier is at fault.
        raise MalformedIdentifierError("the identifier cannot be decoded") from None


def _check_moments(keys: Iterable[Key]) -> None:
    for key in keys:
        for item in key.items:
            _check_moments(item)
        form = _MOMENT_KEYS.get(key.vr)
        if form is None or key.is_universal:
            continue
        if not all(form.fullmatch(value.strip()) for value in key.values):
            raise MalformedIdentifierError(f"({key.tag[:4]},{key.tag[4:]}) is no {key.vr}")


def _each(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, Sequence) else (value,)


def _dataset_of(data: bytes, transfer_syntax_uid: str) -> Dataset:
    from pydicom.filereader import read_dataset

    return read_dataset(
        BytesIO(data),
        is_implicit_VR=transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN,
        is_little_endian=True,
    )


def _keys_of(dataset: Dataset, depth: int = 0) -> Iterator[tuple[int, Key]]:
    from pydicom.charset import convert_encodings

    if len(dataset) > _MOST_KEYS:
        raise MalformedIdentifierError("the identifier has too many keys")
    if depth > _DEEPEST:
        raise MalformedIdentifierError("the identifier is nested too deeply")
    named = dataset.get(_SPECIFIC_CHARACTER_SET)
    encodings = convert_encodings(named.value if named is not None else "ISO_IR 6")
    for tag in sorted(dataset.keys()):
        element = dataset.get_item(tag)
        if element is None or tag.element == 0 or tag.group <= 0x0007 or tag.is_private:
            continue
        vr = _vr_of(tag, str(element.VR or "UN"))
        name = f"{int(tag):08X}"
        if vr == "SQ":
            nested = list(dataset[tag].value or ())[:_MOST_ITEMS]
            inner = tuple(tuple(key for _, key in _keys_of(i, depth + 1)) for i in nested)
            yield int(tag), Key(name, vr, items=inner)
        else:
            yield int(tag), Key(name, vr, _values(element, vr, encodings))


def _vr_of(tag: int, given: str) -> str:
    from pydicom.datadict import dictionary_VR
    from pydicom.valuerep import STANDARD_VR

    if given != "UN" and given in STANDARD_VR:
        return given
    try:
        return dictionary_VR(tag)[:2]
    except KeyError:
        return "UN"


def _values(
    element: DataElement | RawDataElement, vr: str, encodings: list[str]
) -> tuple[str, ...]:
    from pydicom.charset import decode_bytes

    value = element.value
    if not isinstance(value, bytes):
        # Already decoded: Specific Character Set.
        return (str(value),) if value else ()
    if vr in _INTEGER_VRS and len(value) in (2, 4, 8):
        return (str(int.from_bytes(value, "little", signed=vr[0] == "S")),)
    if vr not in _TEXT_VRS:
        return ()
    text = decode_bytes(value, encodings, set(b"\\^=")).rstrip("\0 ")
    parts = [text] if vr in _SINGLE_VRS else text.split("\\")
    return tuple(part.strip("\0 ") for part in parts) if text else ()


# ---- writing


def _element(key: Key, attribute: object, depth: int) -> DataElement:
    try:
        if key.vr == "SQ":
            return _new(int(key.tag, 16), "SQ", _sequence(key, attribute, depth))
        found: list[Any] = list(texts(attribute))
        if key.vr in _INTEGER_VRS:
            found = [int(text) for text in found]
        elif key.vr in ("FL", "FD"):
            found = [float(text) for text in found]
        elif key.vr not in _TEXT_VRS:
            found = []
        return _new(int(key.tag, 16), key.vr, found[0] if len(found) == 1 else found or None)
    except Exception:
        # What a server shows need not be of the Value Representation: the key is answered, empty.
        return _empty(int(key.tag, 16), key.vr)


def _sequence(key: Key, attribute: object, depth: int) -> list[Dataset]:
    from pydicom.dataset import Dataset

    wanted = {inner.tag: inner for item in key.items for inner in item}
    sequence = []
    for item in items(attribute)[:_MOST_ITEMS] if depth <= _DEEPEST else ():
        dataset = Dataset()
        # Whoever names nothing within wants all that there is.
        for inner in wanted.values() or _keys_shown(item):
            dataset.add(_element(inner, item.get(inner.tag), depth + 1))
        sequence.append(dataset)
    return sequence


def _keys_shown(item: Found) -> Iterator[Key]:
    for tag, attribute in item.items():
        vr = attribute.get("vr") if isinstance(attribute, Mapping) else None
        is_tag = len(tag) == 8 and all(c in "0123456789ABCDEFabcdef" for c in tag)
        if isinstance(vr, str) and is_tag and (vr in _TEXT_VRS or vr in _INTEGER_VRS or vr == "SQ"):
            yield Key(tag, vr)


def _new(tag: int, vr: str, value: Any) -> DataElement:
    from pydicom import config
    from pydicom.dataelem import DataElement

    return DataElement(tag, vr, value, validation_mode=config.IGNORE)


def _empty(tag: int, vr: str) -> DataElement:
    return _new(tag, vr, [] if vr == "SQ" else None)


def _is_encodable(element: DataElement, transfer_syntax_uid: str) -> bool:
    from pydicom.dataset import Dataset

    alone = Dataset()
    alone.SpecificCharacterSet = "ISO_IR 192"
    alone.add(element)
    try:
        _encode(alone, transfer_syntax_uid)
    except Exception:
        return False
    return True


def _encode(dataset: Dataset, transfer_syntax_uid: str) -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    file = DicomBytesIO()
    file.is_little_endian = True
    file.is_implicit_VR = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    write_dataset(file, dataset)
    return file.getvalue()
