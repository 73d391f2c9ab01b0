"""Values of Data Elements to and from bytes, by Value Representation (PS3.5 6.2)."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Sequence
from datetime import date
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
_ONE_LITTLE_ENDIAN: Final = {
    number: struct.Struct(f"<{number}") for number in NUMBER_FORMATS.values()
}
_ONE_BIG_ENDIAN: Final = {number: struct.Struct(f">{number}") for number in NUMBER_FORMATS.values()}
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


def encode(
    vr: str, values: Sequence[Value], is_little_endian: bool, character_set: CharacterSet
) -> bytes:
    """The value field, padded to even length; b"" for no Values.

    Text does for numbers ("12" as US), numbers do for text (12 as IS). Raises: ValueError that
    tells the rule a Value breaks and never the Value; UnicodeEncodeError (a ValueError too) if
    the character set lacks a character.
    """
    if vr in STRING_VRS:
        raw = _encode_strings(vr, values, character_set)
        padding = b"\0" if vr == "UI" else b" "
    elif vr in NUMBER_FORMATS:
        raw, padding = _encode_numbers(vr, values, is_little_endian), b""
    elif vr == "AT":
        raw, padding = b"".join(_encode_tag(v, is_little_endian) for v in values), b""
    elif vr in BYTES_VRS:
        raw, padding = _encode_bytes(vr, values, character_set)
    else:
        raise ValueError(f"{vr} takes no Values")
    raw += padding * (len(raw) % 2)
    if vr not in LONG_VRS and len(raw) > _MAX_SHORT_LENGTH:
        raise ValueError(f"more than {_MAX_SHORT_LENGTH} bytes do not fit {vr} (PS3.5 7.1.2)")
    return raw


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
    one = (_ONE_LITTLE_ENDIAN if is_little_endian else _ONE_BIG_ENDIAN)[number]
    if len(raw) == one.size:  # nearly always
        return one.unpack(raw)
    size = one.size
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


# ---- writing --------------------------------------------------------------------------------

_MAX_SHORT_LENGTH: Final = 0xFFFE
_MAX_CHARACTERS: Final = {
    "AE": 16,
    "CS": 16,
    "DS": 16,
    "IS": 12,
    "LO": 64,
    "LT": 10240,
    "SH": 16,
    "ST": 1024,
    "UI": 64,
}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_LINES: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_FORMS: Final = {
    "AE": (re.compile(r"[\x20-\x7e]*[\x21-\x7e][\x20-\x7e]*"), "printable ASCII, not only spaces"),
    "AS": (re.compile(r"\d{3}[DWMY]"), "nnnD, nnnW, nnnM or nnnY"),
    "CS": (re.compile(r"[A-Z0-9 _]+"), "capital letters, digits, space and underscore"),
    "DA": (re.compile(r"\d{8}"), "YYYYMMDD"),
    "DS": (
        re.compile(r" *[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)? *"),
        "a decimal number",
    ),
    "DT": (
        re.compile(
            r"\d{4}((0[1-9]|1[0-2])((0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])"
            r"([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?)?)?)?([+-](0\d|1[0-4])[0-5]\d)? ?"
        ),
        "YYYYMMDDHHMMSS.FFFFFF&ZZXX or its start",
    ),
    "IS": (re.compile(r" *[+-]?\d+ *"), "an integer"),
    "TM": (
        re.compile(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)? ?"),
        "HHMMSS.FFFFFF or its start",
    ),
    "UI": (re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*"), "numbers without leading zeros and dots"),
    "UR": (re.compile(r"[!-\[\]-~]+"), "a URI"),
}
_MAX_NAME_CHARACTERS: Final = 64
_WORD_BYTES: Final = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_TAG: Final = re.compile(r"\(?(?:0x)?([0-9a-fA-F]{4}),?(?:0x)?([0-9a-fA-F]{4})\)?")


def _encode_strings(vr: str, values: Sequence[Value], character_set: CharacterSet) -> bytes:
    texts = [_to_text(vr, value) for value in values]
    if vr in SINGLE_TEXT_VRS and len(texts) > 1:
        raise ValueError(f"{vr} has one Value at most (PS3.5 6.2)")
    for text in texts:
        if text:
            _check_text(vr, text)
    joined = "\\".join(texts)
    return character_set.encode(joined) if vr in CHARACTER_SET_VRS else joined.encode("ascii")


def _to_text(vr: str, value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return _decimal_string(value) if vr == "DS" else str(value)
    raise ValueError(f"bytes are no Value of {vr}")


def _decimal_string(number: int | float) -> str:
    """The number in 16 bytes at most, as exact as they allow."""
    try:
        is_finite = math.isfinite(number)
    except OverflowError:  # an int that no float holds
        is_finite = False
    if not is_finite:
        raise ValueError("DS takes no infinity and no NaN (PS3.5 6.2)")
    text = repr(number)
    digits = 16
    while len(text) > 16:
        digits -= 1
        text = f"{number:.{digits}g}"
    return text


def _check_text(vr: str, text: str) -> None:
    """Raises ValueError where one Value breaks PS3.5 6.2."""
    if "\\" in text and vr not in SINGLE_TEXT_VRS:
        raise ValueError("a backslash separates Values and cannot be in one (PS3.5 6.2)")
    largest = _MAX_CHARACTERS.get(vr)
    if largest is not None and len(text) > largest:
        raise ValueError(f"{vr} has {largest} characters at most (PS3.5 6.2)")
    form = _FORMS.get(vr)
    if form is not None:
        pattern, description = form
        if not pattern.fullmatch(text) or not text.isascii():
            raise ValueError(f"{vr} must be {description} (PS3.5 6.2)")
        if vr == "DA":
            _check_date(text)
        elif vr == "IS" and not -(2**31) <= int(text) < 2**31:
            raise ValueError("IS must be from -2^31 to 2^31-1 (PS3.5 6.2)")
        return
    control = _CONTROL_BUT_LINES if vr in ("ST", "LT", "UT") else _CONTROL
    if control.search(text):
        raise ValueError(f"{vr} takes no control characters (PS3.5 6.2)")
    if vr == "PN":
        groups = text.split("=")
        if len(groups) > 3 or any(group.count("^") > 4 for group in groups):
            raise ValueError("PN has 3 component groups of 5 components at most (PS3.5 6.2.1)")
        if any(len(group) > _MAX_NAME_CHARACTERS for group in groups):
            raise ValueError("PN has 64 characters at most in a component group (PS3.5 6.2)")


def _check_date(text: str) -> None:
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        raise ValueError("DA must be a day of the calendar (PS3.5 6.2)") from None


def _encode_numbers(vr: str, values: Sequence[Value], is_little_endian: bool) -> bytes:
    kind = float if vr in ("FL", "FD") else int
    numbers: list[int | float] = []
    for value in values:
        try:
            if isinstance(value, bytes) or (kind is int and isinstance(value, float)):
                raise TypeError
            if isinstance(value, str) and "_" in value:  # which Python takes for a digit group
                raise TypeError
            numbers.append(kind(value))
        except (ValueError, TypeError, OverflowError):
            noun = "a number" if kind is float else "an integer"
            raise ValueError(f"{vr} must be {noun} (PS3.5 6.2)") from None
    order = "<" if is_little_endian else ">"
    try:
        return struct.pack(f"{order}{len(numbers)}{NUMBER_FORMATS[vr]}", *numbers)
    except (struct.error, OverflowError):
        raise ValueError(f"out of the range of {vr} (PS3.5 6.2)") from None


def _encode_tag(value: Value, is_little_endian: bool) -> bytes:
    if isinstance(value, int) and 0 <= value <= 0xFFFFFFFF:
        group, element = value >> 16, value & 0xFFFF
    elif isinstance(value, str) and (match := _TAG.fullmatch(value)):
        group, element = int(match[1], 16), int(match[2], 16)
    else:
        raise ValueError("AT must be a tag: (gggg,eeee) (PS3.5 6.2)")
    return struct.pack("<HH" if is_little_endian else ">HH", group, element)


def _encode_bytes(
    vr: str, values: Sequence[Value], character_set: CharacterSet
) -> tuple[bytes, bytes]:
    """The bytes and what pads them. Text in UN is the only way to write an unknown VR's text."""
    if vr == "UN" and values and all(isinstance(value, str) for value in values):
        return character_set.encode("\\".join(map(str, values))), b" "
    if len(values) > 1 or not all(isinstance(value, bytes) for value in values):
        raise ValueError(f"{vr} takes one Value of bytes")
    raw = b"".join(value for value in values if isinstance(value, bytes))
    if len(raw) % _WORD_BYTES.get(vr, 1):
        raise ValueError(f"{vr} has words of {_WORD_BYTES[vr]} bytes (PS3.5 6.2)")
    return raw, b"\0"
