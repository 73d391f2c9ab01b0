"""Data sets in another encoding: Implicit or Explicit VR, little or big endian (PS3.5 7.1, 7.3).

Values keep their bytes, except that numbers are swapped where the byte order changes. Data Elements
stay in their order, Sequences and Items keep their defined or undefined length. Group lengths,
which are retired and would be wrong, are left out (PS3.5 7.2).
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Final

from msgspec import Struct

from shared.dicom.data_set import PIXEL_DATA_TAGS, UNDEFINED, DataSet, Entry, Item
from shared.dicom.values import KNOWN_VRS, LONG_VRS

# Bytes that are swapped together; an AT is two numbers of 16 bits.
SWAPPED_BYTES: Final = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
_MAX_SHORT_LENGTH: Final = 0xFFFF
_SEQUENCE_END: Final = 0xFFFEE0DD
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D


class Encoding(Struct, frozen=True):
    """How the Data Elements of a data set are written."""

    is_implicit_vr: bool
    is_little_endian: bool

    def element_start(self, tag: int, vr: str, length: int) -> bytes:
        """Tag, VR and length. A value too long for its VR is written as UN (PS3.5 6.2.2)."""
        order = "<" if self.is_little_endian else ">"
        head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
        if self.is_implicit_vr:
            return head + struct.pack(order + "L", length)
        if vr not in LONG_VRS and length <= _MAX_SHORT_LENGTH:
            return head + vr.encode("ascii") + struct.pack(order + "H", length)
        written = vr if vr in LONG_VRS else "UN"
        return head + written.encode("ascii") + struct.pack(order + "xxL", length)

    def delimiter(self, tag: int, length: int = 0) -> bytes:
        """An Item, or the end of one or of a Sequence: it has no VR."""
        order = "<" if self.is_little_endian else ">"
        return struct.pack(order + "HHL", tag >> 16, tag & 0xFFFF, length)


def sequence_end(encoding: Encoding) -> bytes:
    """The Sequence Delimitation Item."""
    return encoding.delimiter(_SEQUENCE_END)


def item_start(encoding: Encoding, length: int) -> bytes:
    """The start of an Item, or of a fragment."""
    return encoding.delimiter(_ITEM, length)


def reencoded(data_set: DataSet, encoding: Encoding, without: Collection[int] = ()) -> bytes:
    """All Data Elements of the data set, except those with these tags.

    Raises: MalformedHeaderError.
    """
    parts = []
    for tag, entry in data_set.occurrences():
        if tag & 0xFFFF and tag not in without:
            holder = data_set
            if Entry(*data_set.entries[tag]) != entry:  # the tag comes again further on
                holder = _alone(data_set, entry)
            parts.append(_element(holder, tag, encoding))
    return b"".join(parts)


def swapped(value: bytes, width: int) -> bytes:
    """Numbers of `width` bytes in the other byte order; what is left over stays."""
    whole = len(value) - len(value) % width
    out = bytearray(value)
    for position in range(width):
        out[position:whole:width] = value[width - 1 - position : whole : width]
    return bytes(out)


def _alone(data_set: DataSet, entry: Entry) -> DataSet:
    alone = DataSet(
        data_set.data,
        entry.start,
        is_implicit_vr=data_set.is_implicit_vr,
        is_little_endian=data_set.is_little_endian,
        parent=data_set,
    )
    alone.scan_elements(entry.end)
    return alone


def _element(data_set: DataSet, tag: int, encoding: Encoding) -> bytes:
    entry = data_set.entry(tag)
    assert entry is not None
    is_undefined = data_set.is_undefined_length(entry)
    vr = _written_vr(data_set, tag, entry)
    if vr == "SQ":
        content = b"".join(_item(item, encoding) for item in data_set.items(tag))
        if not is_undefined:
            return encoding.element_start(tag, vr, len(content)) + content
        start = encoding.element_start(tag, vr, UNDEFINED)
        return start + content + sequence_end(encoding)
    value = data_set.data[entry.value_start : entry.end]
    if is_undefined:
        if data_set.is_little_endian != encoding.is_little_endian and vr != "UN":
            value = _fragments(value, data_set.is_little_endian, encoding)
        return encoding.element_start(tag, vr, UNDEFINED) + value
    if data_set.is_little_endian != encoding.is_little_endian and vr in SWAPPED_BYTES:
        value = swapped(value, SWAPPED_BYTES[vr])
    return encoding.element_start(tag, vr, len(value)) + value


def _fragments(value: bytes, is_little_endian: bool, encoding: Encoding) -> bytes:
    """The fragments of an encapsulated icon, up to and with the Sequence Delimitation Item."""
    order = "<" if is_little_endian else ">"
    parts = []
    position = 0
    while position + 8 <= len(value):
        group, element, length = struct.unpack_from(order + "HHL", value, position)
        parts.append(encoding.delimiter(group << 16 | element, length))
        parts.append(value[position + 8 : position + 8 + length])
        position += 8 + length
    return b"".join(parts)


def _written_vr(data_set: DataSet, tag: int, entry: Entry) -> str:
    """UN stays UN: its bytes are Implicit VR Little Endian wherever it stands (PS3.5 6.2.2)."""
    encoded = entry.vr.decode("latin-1") if entry.vr is not None else ""
    if encoded in KNOWN_VRS:
        return encoded
    if entry.vr is not None and data_set.is_undefined_length(entry) and tag in PIXEL_DATA_TAGS:
        return "OB"
    return data_set.vr(tag)


def _item(item: Item, encoding: Encoding) -> bytes:
    content = reencoded(item.data_set, encoding)
    if item.is_undefined_length:
        return item_start(encoding, UNDEFINED) + content + encoding.delimiter(_ITEM_END)
    return item_start(encoding, len(content)) + content
