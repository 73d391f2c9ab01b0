"""Values of Data Elements to and from bytes, by Value Representation (PS3.5 6.2)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from shared.dicom.character_sets import CharacterSet

Value = str | int | float | bytes

# Text that Specific Character Set applies to (PS3.5 6.1.2.3).
CHARACTER_SET_VRS: Final = frozenset(("SH", "LO", "UC", "PN", "ST", "LT", "UT"))
# A backslash does not separate Values in these.
SINGLE_TEXT_VRS: Final = frozenset(("ST", "LT", "UT", "UR"))
STRING_VRS: Final = CHARACTER_SET_VRS | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
BYTES_VRS: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
NUMBER_FORMATS: Final = {
    "US": "H",
    "SS": "h",
    "UL": "L",
    "SL": "l",
    "UV": "Q",
    "SV": "q",
    "FL": "f",
    "FD": "d",
}
LONG_VRS: Final = frozenset(
    ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
)
KNOWN_VRS: Final = STRING_VRS | BYTES_VRS | set(NUMBER_FORMATS) | {"AT", "SQ"}


def decode(
    vr: str, raw: bytes, is_little_endian: bool, character_set: CharacterSet
) -> tuple[Value, ...]:
    """The Values, padding taken off; () if there is none.

    DS and IS stay text, so that nothing of what was sent is lost; AT is "(gggg,eeee)". Bytes that
    are no Values of their VR (three bytes as US) come back as one bytes Value.
    """
    if not raw:
        return ()
    decoder = _DECODERS.get(vr)
    if decoder is not None:
        values = decoder(raw, character_set)
        return () if values == ("",) else values
    number = NUMBER_FORMATS.get(vr)
    if number is not None:
        return _numbers(number, raw, is_little_endian)
    if vr == "AT":
        return _tags(raw, is_little_endian)
    return (raw,)


def as_text(value: Value) -> str:
    """One Value as text; bytes as hexadecimal digits."""
    return value.hex() if isinstance(value, bytes) else str(value)


def _plain(raw: bytes, _: CharacterSet) -> tuple[Value, ...]:
    text = raw.decode("latin-1").rstrip(" \0")
    return tuple(text.split("\\")) if "\\" in text else (text,)


def _ae_titles(raw: bytes, _: CharacterSet) -> tuple[Value, ...]:
    return tuple(part.strip(" \0\t\r\n") for part in raw.decode("latin-1").split("\\"))


def _number_strings(raw: bytes, _: CharacterSet) -> tuple[Value, ...]:
    return tuple(part.strip(" \0\t\r\n") for part in raw.decode("latin-1").split("\\"))


def _uri(raw: bytes, _: CharacterSet) -> tuple[Value, ...]:
    return (raw.decode("latin-1").rstrip(" \0"),)


def _text(raw: bytes, character_set: CharacterSet) -> tuple[Value, ...]:
    parts = character_set.decode(raw).split("\\")
    return tuple(part.rstrip(" \0") for part in parts)


def _names(raw: bytes, character_set: CharacterSet) -> tuple[Value, ...]:
    # Empty component groups at the end may keep their delimiters or not (PS3.5 6.2.1.1).
    names = character_set.decode(raw.rstrip(b" \0")).split("\\")
    return tuple(name.rstrip("=") for name in names)


def _single_text(raw: bytes, character_set: CharacterSet) -> tuple[Value, ...]:
    return (character_set.decode(raw).rstrip(" \0"),)


def _numbers(number: str, raw: bytes, is_little_endian: bool) -> tuple[Value, ...]:
    size = struct.calcsize("=" + number)
    if len(raw) % size:
        return (raw,)
    return struct.unpack(f"{'<' if is_little_endian else '>'}{len(raw) // size}{number}", raw)


def _tags(raw: bytes, is_little_endian: bool) -> tuple[Value, ...]:
    if len(raw) % 4:
        return (raw,)
    numbers = struct.unpack(f"{'<' if is_little_endian else '>'}{len(raw) // 2}H", raw)
    return tuple(
        f"({group:04X},{element:04X})"
        for group, element in zip(numbers[::2], numbers[1::2], strict=True)
    )


_DECODERS: Final[dict[str, Callable[[bytes, CharacterSet], tuple[Value, ...]]]] = {
    "AE": _ae_titles,
    "AS": _plain,
    "CS": _plain,
    "DA": _plain,
    "DT": _plain,
    "TM": _plain,
    "UI": _plain,
    "DS": _number_strings,
    "IS": _number_strings,
    "UR": _uri,
    "SH": _text,
    "LO": _text,
    "UC": _text,
    "PN": _names,
    "ST": _single_text,
    "LT": _single_text,
    "UT": _single_text,
}
