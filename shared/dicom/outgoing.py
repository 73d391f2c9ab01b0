"""An Instance on its way out: its edited Header, and the Body as the received file has it.

Nothing here holds a whole Instance in memory, and the Body's bytes are never changed. A deflated
data set (PS3.5 A.5) is one stream, Header and Body together: if its Header was edited it is
inflated and deflated again, piece by piece, into a temporary file.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from shared.dicom.header import Header, read_header
from shared.errors import InstanceTooLargeError, MalformedHeaderError, TruncatedInstanceError
from shared.ports import ObjectReader

_PIECE_BYTES = 1 << 20
# PS3.5 A.5 deflates without zlib's own header: negative window bits say so.
_RAW_DEFLATE = -zlib.MAX_WBITS
# Deflate shrinks up to a thousandfold: a small file must not keep us inflating for hours.
_MAX_INFLATED_BYTES = 16 << 30


class RangeReader(Protocol):
    """What a FileRange needs of `shared.ports.ObjectReader`."""

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]: ...
    def fileno(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class FileRange:
    """`length` bytes of an open file from `offset`.

    sendfile(2) and copy_file_range(2) can take them from `reader.fileno()` where that is not None.
    """

    reader: RangeReader
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length

    def chunks(self) -> Iterator[bytes]:
        """The bytes in pieces of at most 1 MiB.

        Raises: TruncatedInstanceError if the file is shorter than it was.
        """
        left = self.length
        for piece in self.reader.stream(self.offset, self.length) if left else ():
            left -= len(piece)
            yield piece
        if left:
            raise TruncatedInstanceError("the received file", self.length, self.length - left)


Part = bytes | FileRange


@dataclass(frozen=True)
class OutgoingInstance:
    """One Instance as a destination shall have it.

    The bytes are the same each time they are asked for. `reader` must stay open meanwhile.
    """

    header: Header  # edited
    reader: ObjectReader  # the received file
    # Where the Body starts in the received file; for a deflated one, in its inflated form.
    body_offset: int
    unchanged: bool  # nothing was edited: the received file goes out as it is
    calling_ae_title: str = ""  # of whoever sent it to us
    receipt_id: str = ""
    # These very bytes may be there already, because an earlier answer was lost.
    redelivery: bool = False
    # What is there under this SOP Instance UID gives way to it.
    replaces: bool = False

    @property
    def sop_class_uid(self) -> str:
        return self.header.text("SOPClassUID") or ""

    @property
    def sop_instance_uid(self) -> str:
        return self.header.text("SOPInstanceUID") or ""

    @property
    def study_instance_uid(self) -> str:
        return self.header.text("StudyInstanceUID") or ""

    @property
    def series_instance_uid(self) -> str:
        return self.header.text("SeriesInstanceUID") or ""

    @property
    def transfer_syntax_uid(self) -> str:
        return self.header.transfer_syntax_uid

    @property
    def part10_size(self) -> int:
        return sum(map(len, self.part10_parts()))

    @property
    def data_set_size(self) -> int:
        return sum(map(len, self.data_set_parts()))

    def part10_parts(self) -> list[Part]:
        """The whole file (PS3.10 7), in order.

        Raises: TruncatedInstanceError, MalformedHeaderError if a deflated data set is damaged.
        """
        if self.unchanged:
            return [FileRange(self.reader, 0, self.reader.size)]
        if self.header.is_deflated:
            return [self.header.data[: self.header.meta_end], self._deflated]
        return [self.header.data, self._body]

    def data_set_parts(self) -> list[Part]:
        """The data set as C-STORE sends it: without preamble, prefix and File Meta.

        Raises: as `part10_parts`.
        """
        start = self.header.meta_end
        if not self.header.is_deflated:
            return [self.header.data[start:], self._body]
        if not self.unchanged:
            return [self._deflated]
        received = FileRange(self.reader, start, self.reader.size - start)
        # Files lack the byte that makes a deflated stream even (PS3.5 A.5); dcmtk aborts then.
        return [received, b"\0"] if len(received) % 2 else [received]

    @property
    def _body(self) -> FileRange:
        return FileRange(self.reader, self.body_offset, self.reader.size - self.body_offset)

    @cached_property
    def _deflated(self) -> FileRange:
        """The edited data set, deflated; made once, in a file that goes when this value goes."""
        # Editing may have changed the length of the File Meta, so it is looked up as received.
        start = read_header(self.reader).meta_end
        stream = FileRange(self.reader, start, self.reader.size - start)
        body = _skip(_inflate(stream.chunks()), self.body_offset - start)
        header = self.header.data[self.header.meta_end :]
        return _in_temporary_file(_deflate(itertools.chain([header], body)))


def chunks(parts: Iterable[Part]) -> Iterator[bytes]:
    """All bytes of `parts` in order: the Header in one piece, the rest in pieces of up to 1 MiB."""
    for part in parts:
        if isinstance(part, FileRange):
            yield from part.chunks()
        else:
            yield part


class _TemporaryFile:
    """A RangeReader over a file without a name, which is gone once nobody refers to it."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self.size = 0
        for piece in pieces:
            self.size += self._file.write(piece)
        self._file.flush()

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        end = self.size if length is None else offset + length
        while offset < end:
            piece = os.pread(self._file.fileno(), min(_PIECE_BYTES, end - offset), offset)
            if not piece:
                return
            yield piece
            offset += len(piece)

    def fileno(self) -> int:
        return self._file.fileno()

    def __del__(self) -> None:
        self._file.close()


def _in_temporary_file(pieces: Iterable[bytes]) -> FileRange:
    file = _TemporaryFile(pieces)
    return FileRange(file, 0, file.size)


def _inflate(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The inflated bytes. Raises: MalformedHeaderError, TruncatedInstanceError,
    InstanceTooLargeError.
    """
    inflater = zlib.decompressobj(_RAW_DEFLATE)
    received = inflated = 0
    for piece in pieces:
        received += len(piece)
        pending = piece
        while not inflater.eof:
            try:
                out = inflater.decompress(pending, _PIECE_BYTES)
            except zlib.error:
                raise MalformedHeaderError("the deflated data set is damaged", received) from None
            inflated += len(out)
            if inflated > _MAX_INFLATED_BYTES:
                raise InstanceTooLargeError(_MAX_INFLATED_BYTES)
            yield out
            pending = inflater.unconsumed_tail
            if not pending and len(out) < _PIECE_BYTES:
                break
    if not inflater.eof:
        raise TruncatedInstanceError("the deflated data set", received + 1, received)


def _deflate(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The deflated bytes, an even number of them (PS3.5 A.5)."""
    deflater = zlib.compressobj(wbits=_RAW_DEFLATE)
    size = 0
    for piece in pieces:
        out = deflater.compress(piece)
        size += len(out)
        yield out
    out = deflater.flush()
    yield out
    if (size + len(out)) % 2:
        yield b"\0"


def _skip(pieces: Iterable[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[count:]
        count = max(0, count - len(piece))
