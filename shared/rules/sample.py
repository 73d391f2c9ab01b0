"""Make a Header from Attributes written down, as the `tests:` beside rules do.

Explicit VR Little Endian in UTF-8. Values are encoded as they stand, also those that break their
VR: how a rule treats wrong Values is worth a test.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from shared.dicom import dictionary
from shared.dicom.header import Header
from shared.dicom.paths import AttributePath
from shared.dicom.values import BYTES_VRS, LONG_VRS, NUMBER_FORMATS

DEFAULT_TRANSFER_SYNTAX: Final = "1.2.840.10008.1.2.1"
_PRIVATE_BLOCK: Final = 0x10


class Typed(NamedTuple):
    """Values whose VR is said rather than looked up; those of VR SQ are Items."""

    vr: str
    values: Sequence[Any]


def sample_header(attributes: Mapping[str, Any]) -> Header:
    """The Header of an Instance with these Attributes and no Pixel Data.

    A key is a keyword, a tag, or a private Attribute by its creator; a value is text, a number, a
    list of them, for a Sequence a list of objects, or any of them as Typed. Raises: ValueError for
    anything else.
    """
    data_set = _data_set({"SpecificCharacterSet": "ISO_IR 192", **attributes})
    return Header.parse(_file_meta() + data_set, body_size=0)


@lru_cache(maxsize=1)
def empty_header() -> Header:
    """A Header with nothing but the character set."""
    return sample_header({})


def _file_meta() -> bytes:
    syntax = _element(0x00020010, "UI", DEFAULT_TRANSFER_SYNTAX.encode() + b"\0")
    return (
        bytes(128) + b"DICM" + _element(0x00020000, "UL", struct.pack("<L", len(syntax))) + syntax
    )


def _data_set(attributes: Mapping[str, Any]) -> bytes:
    elements: dict[int, bytes] = {}
    blocks: dict[tuple[int, str], int] = {}
    for name, value in attributes.items():
        path = AttributePath.parse(name)
        if len(path.steps) > 1:
            raise ValueError(f"{name}: write a Sequence as a list of objects")
        step = path.last
        tag, vr = step.tag, dictionary.vr_for_tag(step.tag)
        if step.creator:
            group = tag >> 16
            used = sum(1 for other, _ in blocks if other == group)
            block = blocks.setdefault((group, step.creator), _PRIVATE_BLOCK + used)
            creator_tag = group << 16 | block
            elements[creator_tag] = _element(creator_tag, "LO", _padded(step.creator, b" "))
            tag = group << 16 | block << 8 | tag & 0xFF
            vr = dictionary.private_vr(step.creator, step.tag)
        elements[tag] = _encoded(tag, (vr or "LO")[:2], value)
    return b"".join(elements[tag] for tag in sorted(elements))


def _encoded(tag: int, vr: str, value: Any) -> bytes:
    if isinstance(value, Typed):
        vr, value = value
    values: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    if vr == "SQ" or any(isinstance(one, Mapping) for one in values):
        items = b"".join(_item(_data_set(one)) for one in values)
        return _element(tag, "SQ", items)
    if vr in NUMBER_FORMATS and all(isinstance(one, (int, float)) for one in values):
        try:
            raw = struct.pack(f"<{len(values)}{NUMBER_FORMATS[vr]}", *values)
        except (struct.error, OverflowError):
            raise ValueError(f"a Value of ({tag:08X}) is out of the range of {vr}") from None
        return _element(tag, vr, raw)
    if values and all(isinstance(one, bytes) for one in values):
        raw = b"".join(values)
        return _element(tag, vr, raw + b"\0" * (len(raw) % 2))
    text = "\\".join("" if one is None else str(one) for one in values)
    return _element(tag, vr, _padded(text, b"\0" if vr in BYTES_VRS or vr == "UI" else b" "))


def _padded(text: str, padding: bytes) -> bytes:
    raw = text.encode()
    return raw + padding * (len(raw) % 2)


def _item(data_set: bytes) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(data_set)) + data_set


def _element(tag: int, vr: str, value: bytes) -> bytes:
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr in LONG_VRS:
        return start + struct.pack("<HL", 0, len(value)) + value
    if len(value) > 0xFFFF:
        raise ValueError(f"a Value of ({tag:08X}) is too long for {vr}")
    return start + struct.pack("<H", len(value)) + value
