"""Checks of the Body: Pixel Data and what follows it, walked without decoding and reading little.

Time is linear in the number of Items and Data Elements, which is bounded; memory does not depend on
what lengths claim.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct, field

from shared.dicom import validation_findings as kinds
from shared.dicom.body_elements import BodyElement
from shared.dicom.data_set import looks_like_vr
from shared.dicom.header import Header
from shared.dicom.paths import format_tag
from shared.dicom.sameness import DATA_SET_TRAILING_PADDING, padding_of_header
from shared.dicom.validation_findings import Finding
from shared.dicom.validation_pixels import (
    PIXEL_DATA,
    PIXEL_KEYWORDS,
    Image,
    is_encapsulated,
    is_video,
    refers_to_pixels,
)
from shared.dicom.validation_source import ForwardSource, InflatingSource, PlainSource
from shared.ports import ObjectReader

# Whole slide images have some 100 000 fragments; a Body that is all Items is an attack.
MAX_ITEMS = 1_000_000
# Each is told to every later stage.
MAX_BESIDE_PIXELS = 1000
_MAX_DEPTH = 64

UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_RLE_LOSSLESS = "1.2.840.10008.1.2.5"

# PS3.5 7.1.2: those with 16 bits of length, and those with 32.
_SHORT_FORM_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
_LONG_FORM_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


class ElementStart(NamedTuple):
    """Tag, VR (b"" if implicit) and length of a Data Element or Item, and the bytes they take."""

    tag: int
    vr: bytes
    length: int
    size: int


def parse_element_start(
    data: bytes, *, is_implicit_vr: bool, is_little_endian: bool
) -> ElementStart | None:
    """Read the start of a Data Element from its first 12 bytes; None if there are too few.

    As in the header, what has no letters for a VR is taken for Implicit VR.
    """
    order = "<" if is_little_endian else ">"
    if len(data) < 8:
        return None
    group, number = struct.unpack_from(order + "HH", data)
    tag = group << 16 | number
    if is_implicit_vr or group == 0xFFFE:
        return ElementStart(tag, b"", struct.unpack_from(order + "L", data, 4)[0], 8)
    vr = data[4:6]
    if vr in _LONG_FORM_VRS:
        if len(data) < 12:
            return None
        return ElementStart(tag, vr, struct.unpack_from(order + "L", data, 8)[0], 12)
    if looks_like_vr(vr):
        return ElementStart(tag, vr, struct.unpack_from(order + "H", data, 6)[0], 8)
    return ElementStart(tag, b"", struct.unpack_from(order + "L", data, 4)[0], 8)


def pixel_element_findings(
    start: ElementStart, image: Image, transfer_syntax_uid: str
) -> Iterator[Finding]:
    """What the start of Pixel Data alone shows: its form, and its length against the Attributes."""
    keyword = PIXEL_KEYWORDS[start.tag]
    encapsulated = is_encapsulated(transfer_syntax_uid) if start.tag == PIXEL_DATA else False
    yield from image.findings(start.tag)
    if start.length == UNDEFINED_LENGTH:
        if encapsulated is False:
            yield kinds.ENCAPSULATED_IN_NATIVE_SYNTAX(
                keyword, f"{keyword} is encapsulated, which the Transfer Syntax is not"
            )
        return
    if encapsulated:
        yield kinds.NATIVE_IN_ENCAPSULATED_SYNTAX(
            keyword, f"{keyword} has a length of {start.length}, so it is not encapsulated"
        )
        return
    if not start.length:
        yield kinds.PIXEL_DATA_MISSING(keyword, f"{keyword} is empty")
        return
    if start.length % 2:
        yield kinds.ODD_LENGTH(keyword, f"{keyword} has an odd length of {start.length}")
    expected = image.native_length(start.tag)
    if expected is not None:
        message = f"{keyword} has {start.length} bytes, its Attributes say {expected}"
        if start.length < expected:
            yield kinds.PIXEL_DATA_TOO_SHORT(keyword, message)
        elif start.length > expected + expected % 2:
            yield kinds.PIXEL_DATA_TOO_LONG(keyword, message)


class Seen(Struct):
    """What a walk met with that is nothing wrong."""

    # Where Data Set Trailing Padding begins that reaches to the end of the file; not of a deflated
    # one.
    padding_start: int | None = None
    # What stands in the Body beside Pixel Data and padding.
    beside_pixels: list[BodyElement] = field(default_factory=list)


def body_findings(header: Header, reader: ObjectReader, seen: Seen) -> Iterator[Finding]:
    """Walk from Pixel Data to the end of the file."""
    if not header.is_deflated:
        seen.padding_start = padding_of_header(header, reader.size)
        yield from _Walk(header, PlainSource(reader, header.body_offset), seen).findings()
        return
    source = InflatingSource(reader, header.meta_end)
    source.skip(header.body_offset - header.meta_end)
    yield from _Walk(header, source, Seen(beside_pixels=seen.beside_pixels)).findings()
    while source.skip(1 << 30):
        pass
    if source.fault:
        broken = kinds.DEFLATED_STREAM_BROKEN
        kind = kinds.DEFLATED_STREAM_TOO_LARGE if source.is_too_large else broken
        yield kind("", f"the deflated data set {source.fault}")
    elif source.surplus_bytes > 1:
        yield kinds.TRAILING_BYTES(
            "", f"{source.surplus_bytes} bytes follow the end of the deflated data set"
        )


class _Walk:
    """One pass over the Body."""

    def __init__(self, header: Header, source: ForwardSource, seen: Seen) -> None:
        self._header, self._source, self._seen = header, source, seen
        self._image = Image.of(header)

    def findings(self) -> Iterator[Finding]:
        header, source, beside = self._header, self._source, self._seen.beside_pixels
        has_pixels = False
        previous_tag = 0
        for _ in range(MAX_ITEMS):
            if source.at_end():
                break
            at = source.position
            start = self._read_start(header.is_implicit_vr)
            if start is None and at == header.body_offset:
                yield kinds.PIXEL_DATA_TRUNCATED("PixelData", f"the file ends in it, at byte {at}")
                return
            if start is None or not self._may_follow(previous_tag, start):
                yield kinds.TRAILING_BYTES("", f"what follows from byte {at} on is no Data Element")
                break
            if start.tag in PIXEL_KEYWORDS:
                has_pixels = True
                is_whole = yield from self._pixel_element(start)
            else:
                is_whole = yield from self._other_element(start)
                if not is_whole:  # where it ends nobody can tell
                    source.skip(1 << 62)
                if start.tag < min(PIXEL_KEYWORDS) and len(beside) == 1:
                    large = format_tag(beside[0].tag)
                    yield kinds.ATTRIBUTES_NOT_READ(
                        large, f"{large} is so large that rules do not see what follows it"
                    )
                if start.tag != DATA_SET_TRAILING_PADDING:
                    beside.append(BodyElement(start.tag, at, source.position))
                if len(beside) > MAX_BESIDE_PIXELS:
                    yield kinds.TOO_MANY_ITEMS(
                        "", f"more than {MAX_BESIDE_PIXELS} Data Elements beside Pixel Data"
                    )
                    return
            if not is_whole:
                return
            if start.tag == DATA_SET_TRAILING_PADDING and source.at_end():
                self._seen.padding_start = at
            previous_tag = start.tag
        else:
            yield kinds.TOO_MANY_ITEMS("", f"more than {MAX_ITEMS} Data Elements in the Body")
        if not has_pixels and "Rows" in header and not refers_to_pixels(header):
            yield kinds.PIXEL_DATA_MISSING("PixelData", "Rows is there, but PixelData is not")

    def _read_start(self, is_implicit_vr: bool) -> ElementStart | None:
        source = self._source
        little = self._header.is_little_endian
        data = source.read(8)
        if not is_implicit_vr and data[4:6] in _LONG_FORM_VRS and _group(data, little) != 0xFFFE:
            data += source.read(4)
        return parse_element_start(data, is_implicit_vr=is_implicit_vr, is_little_endian=little)

    # ---- Pixel Data ----

    def _pixel_element(self, start: ElementStart) -> Generator[Finding, None, bool]:
        """Check one of the three; returns True if what follows it can be read."""
        keyword = PIXEL_KEYWORDS[start.tag]
        yield from pixel_element_findings(start, self._image, self._header.transfer_syntax_uid)
        if start.length == UNDEFINED_LENGTH:
            return (yield from self._fragments(keyword))
        received = self._source.skip(start.length)
        if received < start.length:
            yield kinds.PIXEL_DATA_TRUNCATED(
                keyword, f"{keyword} declares {start.length} bytes, {received} are there"
            )
        return received == start.length

    def _fragments(self, keyword: str) -> Generator[Finding, None, bool]:
        """Check the Items of encapsulated Pixel Data (PS3.5 A.4) to their delimiter."""
        frames = self._image.frames or 1
        basic = yield from self._basic_offset_table(keyword, frames)
        if basic is None:
            return False
        extended = _extended_offset_table(self._header)
        first = self._source.position
        count = empty = odd = 0
        while True:
            at = self._source.position
            if self._source.at_end():
                yield kinds.FRAGMENTS_MALFORMED(
                    keyword, f"no Sequence Delimitation Item after {count} fragments"
                )
                return False
            item = self._read_start(is_implicit_vr=True)
            if item is None:
                yield kinds.PIXEL_DATA_TRUNCATED(keyword, f"the file ends after {count} fragments")
                return False
            if item.tag == _SEQUENCE_END and item.length == 0:
                break
            if item.tag != _ITEM or item.length == UNDEFINED_LENGTH:
                yield kinds.FRAGMENTS_MALFORMED(
                    keyword, f"no Item at byte {at}, after {count} fragments"
                )
                return False
            count += 1
            if count > MAX_ITEMS:
                yield kinds.TOO_MANY_ITEMS(keyword, f"more than {MAX_ITEMS} fragments")
                return False
            empty += item.length == 0
            odd += item.length % 2
            basic.visit(at - first, item.length)
            extended.visit(at - first, item.length)
            received = self._source.skip(item.length)
            if received < item.length:
                yield kinds.PIXEL_DATA_TRUNCATED(
                    keyword,
                    f"fragment {count} declares {item.length} bytes, {received} are there",
                )
                return False
        if empty:
            yield kinds.FRAGMENT_EMPTY(keyword, f"{empty} of {count} fragments are empty")
        if odd:
            yield kinds.ODD_LENGTH(keyword, f"{odd} of {count} fragments have an odd length")
        yield from self._fragment_count(keyword, count, frames)
        yield from _table_findings(basic, extended, frames)
        return True

    def _basic_offset_table(
        self, keyword: str, frames: int
    ) -> Generator[Finding, None, _OffsetTable | None]:
        """The first Item; None if it is not whole."""
        item = self._read_start(is_implicit_vr=True)
        if item is None or item.tag != _ITEM or item.length == UNDEFINED_LENGTH:
            yield kinds.FRAGMENTS_MALFORMED(keyword, "does not start with a Basic Offset Table")
            return None
        if item.length % 4 or item.length // 4 > min(frames, MAX_ITEMS):
            yield kinds.OFFSET_TABLE_IMPLAUSIBLE(
                keyword, f"a Basic Offset Table of {item.length} bytes for {frames} frames"
            )
            received, table = self._source.skip(item.length), _OffsetTable(())
        else:
            data = self._source.read(item.length)
            received = len(data)
            table = _OffsetTable(struct.unpack(f"<{received // 4}L", data[: received // 4 * 4]))
        if received < item.length:
            yield kinds.PIXEL_DATA_TRUNCATED(
                keyword, f"Basic Offset Table declares {item.length} bytes, {received} are there"
            )
            return None
        return table

    def _fragment_count(self, keyword: str, count: int, frames: int) -> Iterator[Finding]:
        transfer_syntax_uid = self._header.transfer_syntax_uid
        if count < (1 if is_video(transfer_syntax_uid) else frames):
            yield kinds.FRAGMENTS_TOO_FEW(keyword, f"{count} fragments for {frames} frames")
        elif count > frames and transfer_syntax_uid == _RLE_LOSSLESS:
            yield kinds.FRAGMENTS_TOO_MANY(
                keyword, f"{count} fragments for {frames} frames; RLE takes one for each"
            )

    # ---- what else is in the Body ----

    def _may_follow(self, previous_tag: int, start: ElementStart) -> bool:
        """True if this is a Data Element at all, and not what somebody left after the last one."""
        group = start.tag >> 16
        if start.tag in PIXEL_KEYWORDS or start.tag <= previous_tag:
            return start.tag > previous_tag
        if not previous_tag:  # the header ends at a value that is too large for it
            return True
        if not self._header.is_implicit_vr and start.vr not in _SHORT_FORM_VRS | _LONG_FORM_VRS:
            return False
        # After Pixel Data come private Data Elements, signatures and padding.
        return group < 0x7FE0 or group in (0xFFFA, 0xFFFC) or (group % 2 == 1 and group != 0xFFFF)

    def _other_element(self, start: ElementStart) -> Generator[Finding, None, bool]:
        path = format_tag(start.tag)
        if start.length == UNDEFINED_LENGTH:
            fault = self._pass_over_items(self._header.is_implicit_vr or start.vr == b"UN")
            if fault:
                yield kinds.ELEMENT_TRUNCATED(path, f"{path} {fault}")
            return not fault
        received = self._source.skip(start.length)
        if received < start.length:
            yield kinds.ELEMENT_TRUNCATED(
                path, f"{path} declares {start.length} bytes, {received} are there"
            )
        return received == start.length

    def _pass_over_items(self, is_implicit_vr: bool) -> str | None:
        """Pass over a Sequence of undefined length, to its delimiter; what is wrong, if anything.

        Inside a UN of undefined length everything is Implicit VR (PS3.5 6.2.2).
        """
        levels = [(False, is_implicit_vr)]  # (inside an Item?, Implicit VR?)
        for _ in range(MAX_ITEMS):
            if not levels:
                return None
            if len(levels) > _MAX_DEPTH:
                return f"is nested deeper than {_MAX_DEPTH} levels"
            is_item, implicit = levels[-1]
            at = self._source.position
            start = self._read_start(implicit if is_item else True)
            if start is None:
                return f"is cut short or malformed at byte {at}"
            if start.tag == (_ITEM_END if is_item else _SEQUENCE_END):
                levels.pop()
            elif is_item == (start.tag >> 16 == 0xFFFE):
                return f"has a misplaced delimiter at byte {at}"
            elif start.length == UNDEFINED_LENGTH:
                levels.append((not is_item, implicit or start.vr == b"UN"))
            elif self._source.skip(start.length) < start.length:
                return f"is cut short after byte {at}"
        return f"has more than {MAX_ITEMS} Items"


class _OffsetTable:
    """Offsets of frames, compared with where fragments start while these go by."""

    def __init__(self, offsets: Sequence[int], lengths: Sequence[int] = ()) -> None:
        self._offsets, self._lengths = offsets, lengths
        self._next = 0

    def __len__(self) -> int:
        return len(self._offsets)

    def visit(self, offset: int, length: int) -> None:
        """A fragment starts at `offset` from the first one and has `length` bytes."""
        if self._next == len(self._offsets) or self._offsets[self._next] != offset:
            return
        # A frame of odd length is padded, and its length may be told without the padding.
        if self._lengths and self._lengths[self._next] not in (length, length - 1):
            return
        self._next += 1

    @property
    def is_plausible(self) -> bool:
        """True if each entry was, in order, the start of a fragment."""
        return self._next == len(self._offsets)


def _extended_offset_table(header: Header) -> _OffsetTable:
    tables: list[tuple[int, ...]] = []
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        element = header.element(keyword)
        data = header.data[element.value_start : element.value_end] if element else b""
        tables.append(struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8]))
    offsets, lengths = tables
    # Unequal tables are told apart from none by an offset that no fragment has.
    return _OffsetTable(offsets, lengths) if len(offsets) == len(lengths) else _OffsetTable((-1,))


def _table_findings(basic: _OffsetTable, extended: _OffsetTable, frames: int) -> Iterator[Finding]:
    if len(basic) and (len(basic) != frames or not basic.is_plausible):
        yield kinds.OFFSET_TABLE_IMPLAUSIBLE(
            "PixelData", f"the {len(basic)} offsets are not where {frames} frames start"
        )
    if len(extended) and (len(basic) or len(extended) != frames or not extended.is_plausible):
        yield kinds.EXTENDED_OFFSET_TABLE_IMPLAUSIBLE(
            "ExtendedOffsetTable",
            f"offsets and lengths do not fit the fragments of {frames} frames",
        )


def _group(data: bytes, is_little_endian: bool) -> int:
    return int.from_bytes(data[:2], "little" if is_little_endian else "big")
