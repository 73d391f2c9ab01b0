"""An Instance in another Transfer Syntax (PS3.5 Annex A), without any loss.

Between native Transfer Syntaxes the data set is encoded anew and Pixel Data streamed through.
Otherwise Pixel Data is decoded and encoded frame by frame into a temporary file, so that memory
holds a frame and not the Instance; whatever was compressed is decoded again before it may go out.
The same Instance gives the same bytes each time.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct

from shared.dicom import dictionary
from shared.dicom.data_set import PIXEL_DATA_TAGS, UNDEFINED, DataSet, Overrun
from shared.dicom.edit import HeaderEdit
from shared.dicom.header import DEFLATED, Header
from shared.dicom.outgoing import FileRange, OutgoingInstance, Part, inflated_body
from shared.dicom.reencoding import (
    SWAPPED_BYTES,
    Encoding,
    item_start,
    reencoded,
    sequence_end,
    swapped,
)
from shared.dicom.splicing import EditedDataSet, encode_element
from shared.dicom.spooling import TemporaryFile
from shared.dicom.transfer_syntaxes import (
    COMPRESSED,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    NATIVE,
    TARGETS,
)
from shared.dicom.validation_body import ElementStart, parse_element_start
from shared.dicom.validation_pixels import PIXEL_DATA, is_encapsulated
from shared.errors import CannotTranscodeError

if TYPE_CHECKING:
    from shared.dicom.frames import Frame, Layout


def transcoded(
    instance: OutgoingInstance, transfer_syntax_uid: str, *, asked_by: str
) -> OutgoingInstance:
    """The Instance in this Transfer Syntax, one of `transfer_syntaxes.TARGETS`.

    `asked_by` is for the error to tell.

    One without Pixel Data has nothing to compress, and stays as it is where that is asked for.
    Trailing bytes after the data set are left out. Lossy JPEG in colour becomes RGB.

    Raises: CannotTranscodeError; MalformedHeaderError, TruncatedInstanceError, and what reading the
    received file raises.
    """
    source = instance.header.transfer_syntax_uid
    if source == transfer_syntax_uid:
        return instance
    try:
        return _Transcoding(instance, transfer_syntax_uid).result()
    except _ImpossibleError as error:
        raise CannotTranscodeError(asked_by, source, transfer_syntax_uid, str(error)) from None


class _ImpossibleError(Exception):
    """Why not; the text holds no Values."""


class _Reader(Protocol):
    """The received file, or what it inflates to."""

    size: int

    def read_at(self, offset: int, length: int) -> bytes: ...
    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]: ...
    def fileno(self) -> int | None: ...


class _BodyElement(Struct, frozen=True):
    """One Data Element of the Body; its value is before a Sequence Delimitation Item."""

    tag: int
    vr: str
    start: int
    value_start: int
    value_end: int
    end: int

    @property
    def is_undefined_length(self) -> bool:
        return self.end != self.value_end


# A value that is longer is not read into memory, nor a Sequence of the Body.
_STREAMED_BYTES: Final = 1 << 20
_MAX_SEQUENCE_BYTES: Final = 64 << 20
_TRANSFER_SYNTAX_UID: Final = 0x00020010
# Extended Offset Table, and its lengths: they tell of fragments that are no more (PS3.3 C.7.6.3).
_OFFSET_TABLES: Final = frozenset((0x7FE00001, 0x7FE00002, 0x7FE00003))
_ITEM_START_BYTES: Final = 8
_MAX_OFFSET: Final = 0xFFFFFFFF
_MAX_NATIVE_BYTES: Final = 0xFFFFFFFE
_BYTE: Final = 8
_BY: Final = "transcode"


class _Transcoding:
    """One Instance on its way from its Transfer Syntax to another."""

    def __init__(self, instance: OutgoingInstance, target: str) -> None:
        header = instance.header
        self._instance, self._header, self._target = instance, header, target
        self._source = header.transfer_syntax_uid
        self._from = Encoding(header.is_implicit_vr, header.is_little_endian)
        self._to = Encoding(
            is_implicit_vr=target == IMPLICIT_VR_LITTLE_ENDIAN,
            is_little_endian=target != EXPLICIT_VR_BIG_ENDIAN,
        )
        self._left_out = {element.tag for element in instance.left_out}
        self._reader: _Reader = instance.reader
        self._offset = instance.body_offset
        if header.is_deflated:
            self._reader, self._offset = TemporaryFile(inflated_body(instance)), 0
        elif is_encapsulated(self._source) and self._reader.fileno() is None:
            # Reading here and there is for files: elsewhere each time is a request.
            size = self._reader.size - self._offset
            body = FileRange(self._reader, self._offset, size).chunks()
            self._reader, self._offset = TemporaryFile(body), 0

    def result(self) -> OutgoingInstance:
        if self._target not in TARGETS:
            raise _ImpossibleError("it is none that can be made here")
        is_compressed = is_encapsulated(self._source)
        if is_compressed is None or (self._source in DEFLATED and self._source not in NATIVE):
            raise _ImpossibleError("it is none that can be read here")
        elements = list(self._elements())
        pixels = [element for element in elements if element.tag in PIXEL_DATA_TAGS]
        for element in pixels:
            if element.is_undefined_length != (is_compressed and element.tag == PIXEL_DATA):
                raise _ImpossibleError("Pixel Data is not in the form that it says")
        bits = self._header.values("BitsAllocated") or ()
        if pixels and EXPLICIT_VR_BIG_ENDIAN in (self._source, self._target) and 32 in bits:
            raise _ImpossibleError("big endian pixels of 32 bits are understood in two ways")
        if self._target in NATIVE and not (is_compressed and pixels):
            return self._encoded_anew(elements)
        if self._target in COMPRESSED and [element.tag for element in pixels] != [PIXEL_DATA]:
            return self._instance
        return self._with_other_pixels(elements, pixels[0])

    # ---- the Header -------------------------------------------------------------------------

    def _outgoing(
        self, body: Sequence[Part], changes: dict[str, Any] | None = None
    ) -> OutgoingInstance:
        header = self._new_header()
        if changes:
            edit = HeaderEdit(header)
            for keyword, value in changes.items():
                edit.set(keyword, [value], by=_BY)
            header = edit.header()
        return replace(self._instance, header=header, unchanged=False, new_body=tuple(body))

    def _new_header(self) -> Header:
        header = self._header
        meta = EditedDataSet(header.meta)
        uid = self._target.encode("ascii")
        new = encode_element(header.meta, _TRANSFER_SYNTAX_UID, "UI", uid + b"\0" * (len(uid) % 2))
        meta.replace(_TRANSFER_SYNTAX_UID, meta.element_bytes(_TRANSFER_SYNTAX_UID), new)
        start = header.data[: header.meta.start] + meta.assemble()
        data_set = reencoded(header.data_set, self._to, without=_OFFSET_TABLES)
        return Header.parse(start + data_set, body_size=1)

    # ---- the Body ---------------------------------------------------------------------------

    def _elements(self) -> Iterator[_BodyElement]:
        """The Data Elements of the Body, in ascending order; what follows them is none."""
        position, last = self._offset, 0
        while position < self._reader.size:
            start = parse_element_start(
                self._reader.read_at(position, 12),
                is_implicit_vr=self._from.is_implicit_vr,
                is_little_endian=self._from.is_little_endian,
            )
            if start is None or start.tag <= last or start.tag >> 16 == 0xFFFE:
                return
            element = self._element(start, position)
            if element.end > self._reader.size:
                raise _ImpossibleError("Pixel Data, or what follows it, is cut short")
            if element.tag not in self._left_out:
                yield element
            position, last = element.end, start.tag

    def _element(self, start: ElementStart, position: int) -> _BodyElement:
        vr = start.vr.decode("ascii") or self._vr(start)
        value_start = position + start.size
        if start.length != UNDEFINED:
            end = value_start + start.length
            return _BodyElement(start.tag, vr, position, value_start, end, end)
        if start.tag in PIXEL_DATA_TAGS:
            end = self._end_of_fragments(value_start)
        else:
            end = position + self._length_of_sequence(position)
        return _BodyElement(start.tag, vr, position, value_start, end - 8, end)

    def _vr(self, start: ElementStart) -> str:
        vr = dictionary.vr_for_tag(start.tag) or "UN"
        return "OW" if " or " in vr else vr

    def _end_of_fragments(self, position: int) -> int:
        order = "<" if self._from.is_little_endian else ">"
        while True:
            head = self._reader.read_at(position, 8)
            if len(head) < 8:
                raise _ImpossibleError("Pixel Data is cut short")
            group, element, length = struct.unpack(order + "HHL", head)
            position += 8
            if (group, element) == (0xFFFE, 0xE0DD):
                return position
            if (group, element) != (0xFFFE, 0xE000) or length == UNDEFINED:
                raise _ImpossibleError("Pixel Data has something else between its fragments")
            position += length

    def _length_of_sequence(self, position: int) -> int:
        """By walking it: only then it is known where its end is."""
        most = min(_MAX_SEQUENCE_BYTES, self._reader.size - position)
        window = self._data_set(self._reader.read_at(position, most))
        try:
            return window.scan_one(most)
        except Overrun:
            raise _ImpossibleError("a Sequence after the Header is too long") from None

    def _encoded_anew(self, elements: Sequence[_BodyElement]) -> OutgoingInstance:
        return self._outgoing([part for element in elements for part in self._same(element)])

    def _same(self, element: _BodyElement) -> list[Part]:
        """A Data Element with the Values that it has."""
        length = element.value_end - element.value_start
        if length > _STREAMED_BYTES and element.vr != "SQ" and not element.is_undefined_length:
            start = self._to.element_start(element.tag, element.vr, length)
            return [start, self._value(element, self._to.is_little_endian)]
        size = element.end - element.start
        if size > _MAX_SEQUENCE_BYTES:
            raise _ImpossibleError("a Sequence after the Header is too long")
        alone = self._data_set(self._reader.read_at(element.start, size))
        try:
            alone.scan_elements(size)
        except Overrun:
            raise _ImpossibleError("what follows the Header cannot be walked") from None
        return [reencoded(alone, self._to)]

    def _value(self, element: _BodyElement, is_little_endian: bool) -> FileRange:
        """A native value as it is, or with its numbers in the other byte order."""
        length = element.value_end - element.value_start
        width = SWAPPED_BYTES.get(element.vr, 1)
        if width == 1 or is_little_endian == self._from.is_little_endian:
            return FileRange(self._reader, element.value_start, length)
        return FileRange(_Swapped(self._reader, width), element.value_start, length)

    def _data_set(self, data: bytes) -> DataSet:
        return DataSet(
            data,
            0,
            is_implicit_vr=self._from.is_implicit_vr,
            is_little_endian=self._from.is_little_endian,
            parent=self._header.data_set,
        )

    # ---- pixels -----------------------------------------------------------------------------

    def _with_other_pixels(
        self, elements: Sequence[_BodyElement], pixels: _BodyElement
    ) -> OutgoingInstance:
        from shared.dicom.frames import FrameError, Layout

        try:
            layout = Layout.of(self._header)
            encode = self._decompressed if self._target in NATIVE else self._compressed
            new, changes = encode(pixels, layout)
        except FrameError as error:
            raise _ImpossibleError(str(error)) from None
        body: list[Part] = []
        for element in elements:
            body += new if element is pixels else self._same(element)
        return self._outgoing(body, changes)

    def _frames(self, pixels: _BodyElement, layout: Layout) -> Iterator[tuple[Frame, str]]:
        """Each frame with its Photometric Interpretation."""
        from shared.dicom.frames import decoded_frames, native_frames

        if pixels.is_undefined_length:
            length = pixels.end - pixels.value_start
            file = io.BufferedReader(_File(self._reader, pixels.value_start, length), 1 << 20)
            yield from decoded_frames(file, self._source, layout)
            return
        for frame in native_frames(self._value(pixels, True).chunks(), layout):
            yield frame, layout.photometric_interpretation

    def _decompressed(
        self, pixels: _BodyElement, layout: Layout
    ) -> tuple[list[Part], dict[str, Any]]:
        """Native Pixel Data, and what the Header is to say of it."""
        size = layout.frame_bytes * layout.number_of_frames
        if size > _MAX_NATIVE_BYTES:
            raise _ImpossibleError("its native Pixel Data would be longer than 4 GiB")
        vr = "OB" if layout.bits_allocated == _BYTE else "OW"
        seen: set[str] = set()

        def pieces() -> Iterator[bytes]:
            for frame, interpretation in self._frames(pixels, layout):
                seen.add(interpretation)
                value = frame.tobytes()
                swaps = vr == "OW" and not self._to.is_little_endian
                yield swapped(value, SWAPPED_BYTES[vr]) if swaps else value
            yield b"\0" * (size % 2)

        file = TemporaryFile(pieces())
        start = self._to.element_start(PIXEL_DATA, vr, file.size)
        return [start, FileRange(file, 0, file.size)], self._told(layout, seen)

    def _compressed(
        self, pixels: _BodyElement, layout: Layout
    ) -> tuple[list[Part], dict[str, Any]]:
        """Encapsulated Pixel Data with a fragment for each frame (PS3.5 A.4)."""
        from shared.dicom.frames import encode

        seen: set[str] = set()
        offsets: list[int] = []

        def pieces() -> Iterator[bytes]:
            size = 0
            for frame, interpretation in self._frames(pixels, layout):
                seen.add(interpretation)
                own = replace(layout, photometric_interpretation=interpretation)
                fragment = encode(frame, self._target, own)
                fragment += b"\0" * (len(fragment) % 2)
                offsets.append(size)
                yield item_start(self._to, len(fragment))
                yield fragment
                size += _ITEM_START_BYTES + len(fragment)

        file = TemporaryFile(pieces())
        # One that does not fit may be left empty.
        fits = offsets[-1] <= _MAX_OFFSET
        table = struct.pack(f"<{len(offsets)}L", *offsets) if fits else b""
        start = self._to.element_start(PIXEL_DATA, "OB", UNDEFINED)
        start += item_start(self._to, len(table)) + table
        parts: list[Part] = [start, FileRange(file, 0, file.size), sequence_end(self._to)]
        return parts, self._told(layout, seen)

    def _told(self, layout: Layout, seen: set[str]) -> dict[str, Any]:
        """The Attributes that new pixels change."""
        from shared.dicom.frames import LOSSY_JPEG

        if len(seen) > 1:
            raise _ImpossibleError("its frames are of several kinds")
        changes: dict[str, Any] = {}
        for interpretation in seen - {layout.photometric_interpretation}:
            changes["PhotometricInterpretation"] = interpretation
        if layout.samples_per_pixel > 1 and self._header.values("PlanarConfiguration") != (0,):
            changes["PlanarConfiguration"] = 0
        # What was lost once stays lost, and the Transfer Syntax tells it no more (PS3.3
        # C.7.6.1.1.5).
        if self._source in LOSSY_JPEG and not self._header.text("LossyImageCompression"):
            changes["LossyImageCompression"] = "01"
        return changes


class _Swapped:
    """A RangeReader whose numbers of `width` bytes are in the other byte order."""

    def __init__(self, reader: _Reader, width: int) -> None:
        self._reader, self._width = reader, width

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        pending = b""
        for piece in self._reader.stream(offset, length):
            pending += piece
            whole = len(pending) - len(pending) % self._width
            yield swapped(pending[:whole], self._width)
            pending = pending[whole:]
        yield pending

    def fileno(self) -> None:
        return None


class _File(io.RawIOBase):
    """`length` bytes of a reader from `offset`, as the codecs want them."""

    def __init__(self, reader: _Reader, offset: int, length: int) -> None:
        self._reader, self._offset, self._length = reader, offset, length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._length - self._position))
        piece = self._reader.read_at(self._offset + self._position, wanted) if wanted else b""
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)
