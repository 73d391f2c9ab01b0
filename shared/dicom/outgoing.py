"""An Instance on its way out: its edited Header, and the Body as the received file has it.

Nothing here holds a whole Instance in memory, and the Body's bytes are never changed unless the
Instance was transcoded. A deflated data set (PS3.5 A.5) is one stream, Header and Body together: if
its Header was edited it is inflated and deflated again, piece by piece, into a temporary file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from shared.dicom.body_elements import BodyElement, kept_ranges, without
from shared.dicom.header import Header, read_header
from shared.dicom.spooling import TemporaryFile, deflate, inflate, skip
from shared.errors import TruncatedInstanceError
from shared.ports import ObjectReader


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
    # What a destination answered when it took what is to give way; "" if nobody knows.
    earlier_answer: str = ""
    # A rule says in which Transfer Syntax it is to leave: no destination is to choose another.
    is_syntax_decided: bool = False
    # The Body where it is not the received file's, inflated: that of a transcoded Instance.
    new_body: tuple[Part, ...] | None = None
    # Data Elements of the received Body that do not leave.
    left_out: tuple[BodyElement, ...] = ()

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

    def part10_parts(self) -> list[Part]:
        """The whole file (PS3.10 7), in order.

        Raises: TruncatedInstanceError, MalformedHeaderError if a deflated data set is damaged.
        """
        if self.unchanged:
            return [FileRange(self.reader, 0, self.reader.size)]
        if self.header.is_deflated:
            return [self.header.data[: self.header.meta_end], self._deflated]
        return [self.header.data, *self._body]

    def data_set_parts(self) -> list[Part]:
        """The data set as C-STORE sends it: without preamble, prefix and File Meta.

        Raises: as `part10_parts`.
        """
        start = self.header.meta_end
        if not self.header.is_deflated:
            return [self.header.data[start:], *self._body]
        if not self.unchanged:
            return [self._deflated]
        received = FileRange(self.reader, start, self.reader.size - start)
        # Files lack the byte that makes a deflated stream even (PS3.5 A.5); dcmtk aborts then.
        return [received, b"\0"] if len(received) % 2 else [received]

    @property
    def _body(self) -> tuple[Part, ...]:
        if self.new_body is not None:
            return self.new_body
        kept = kept_ranges(self.body_offset, self.reader.size, self.left_out)
        return tuple(FileRange(self.reader, offset, length) for offset, length in kept)

    @cached_property
    def _deflated(self) -> FileRange:
        """The edited data set, deflated; made once, in a file that goes when this value goes."""
        body = inflated_body(self) if self.new_body is None else chunks(self.new_body)
        header = self.header.data[self.header.meta_end :]
        file = TemporaryFile(deflate(itertools.chain([header], body)))
        return FileRange(file, 0, file.size)


def chunks(parts: Iterable[Part]) -> Iterator[bytes]:
    """All bytes of `parts` in order: the Header in one piece, the rest in pieces of up to 1 MiB."""
    for part in parts:
        if isinstance(part, FileRange):
            yield from part.chunks()
        else:
            yield part


def inflated_body(instance: OutgoingInstance) -> Iterator[bytes]:
    """The Body of a received file whose data set is deflated, as it is to leave.

    Raises: TruncatedInstanceError, MalformedHeaderError, InstanceTooLargeError.
    """
    # Editing may have changed the length of the File Meta, so it is looked up as received.
    start = read_header(instance.reader).meta_end
    stream = FileRange(instance.reader, start, instance.reader.size - start)
    body = skip(inflate(stream.chunks()), instance.body_offset - start)
    return without(body, instance.body_offset, instance.left_out)
