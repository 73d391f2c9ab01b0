"""The Header of a Part 10 file: every byte before the Body, and an index of it.

The Body starts at Pixel Data (also Float and Double Float), or at a top-level value larger than
16 MiB; what stands after it stays in it. A data set without any has an empty Body. The File Meta
Information (group 0002) is addressed like the rest but not walked.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator
from typing import Final

from shared.dicom.data_set import (
    PIXEL_REPRESENTATION,
    SPECIFIC_CHARACTER_SET,
    DataSet,
    Element,
    HasItemsError,
    Item,
    Overrun,
    looks_like_vr,
)
from shared.dicom.paths import AttributePath, as_path, format_tag
from shared.dicom.values import Value, as_text
from shared.errors import (
    MalformedHeaderError,
    NotDicomError,
    PermanentError,
    TruncatedInstanceError,
)
from shared.ports import ObjectReader

__all__ = [
    "Element",
    "Header",
    "HeaderIncompleteError",
    "Item",
    "Value",
    "read_header",
    "read_meta",
]

FIRST_READ_BYTES: Final = 64 * 1024
MAX_HEADER_BYTES: Final = 64 * 1024 * 1024

IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
# Those whose data set after the File Meta Information is one deflate stream (PS3.5 A.5, A.8).
DEFLATED: Final = frozenset(
    ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")
)


class HeaderIncompleteError(Exception):
    """The bytes end before the Body starts. `needed` is how many bytes of the file to try next."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


def read_header(reader: ObjectReader) -> Header:
    """The Header of a stored Part 10 file: 64 KiB are read, and more only if it is longer.

    Raises: NotDicomError, MalformedHeaderError (also if it is longer than 64 MiB),
    TruncatedInstanceError if it declares more than the file has.
    """
    data = reader.read_at(0, min(FIRST_READ_BYTES, reader.size))
    while True:
        try:
            return Header.parse(data, file_size=reader.size)
        except HeaderIncompleteError as incomplete:
            wanted = min(incomplete.needed, MAX_HEADER_BYTES, reader.size)
            if wanted <= len(data):
                raise MalformedHeaderError(
                    f"the Header is longer than {MAX_HEADER_BYTES} bytes", len(data)
                ) from None
        more = reader.read_at(len(data), wanted - len(data))
        if not more:
            raise TruncatedInstanceError("the file", reader.size, len(data))
        data += more


def read_meta(data: bytes) -> Header | None:
    """The File Meta Information at the start of a file, as a Header that has nothing else: it names
    what cannot be read. None if it cannot be read itself.
    """
    if data[128:_META_START] != b"DICM":
        return None
    header = Header()
    try:
        header._index_meta(data, True)
        return Header.parse(data[: header.meta_end], file_size=header.meta_end)
    except (Overrun, PermanentError):
        return None


class Header:
    """One immutable Header. Values are decoded when asked for.

    What is inside Sequences of defined length is walked when asked for, so every method may raise
    MalformedHeaderError; `walk` looks at everything.
    """

    __slots__ = (
        "_data_set",
        "_edited",
        "_index",
        "_meta",
        "_original",
        "_texts",
        "body_offset",
        "data",
        "is_deflated",
        "is_implicit_vr",
        "is_little_endian",
        "meta_end",
        "transfer_syntax_uid",
    )

    _texts: dict[AttributePath | str, str | None]
    data: bytes  # the exact bytes before the Body, inflated where the Transfer Syntax deflates
    body_offset: int  # == len(data)
    meta_end: int  # where the data set begins
    transfer_syntax_uid: str
    is_implicit_vr: bool  # as found, not as the Transfer Syntax says
    is_little_endian: bool
    is_deflated: bool
    _meta: DataSet
    _data_set: DataSet
    # Of one that was edited, until it is asked for.
    _index: tuple[Callable[[], DataSet], Callable[[], DataSet]] | None
    _original: Header | None  # what it was made from
    _edited: frozenset[int]

    @classmethod
    def parse(
        cls, data: bytes, *, body_size: int | None = None, file_size: int | None = None
    ) -> Header:
        """Index the start of a Part 10 file: preamble, "DICM", File Meta Information, data set.

        With neither size, `data` must reach the Body. With `file_size`, what is declared is held
        against it, and data of that many bytes may be a file without a Body. With `body_size`,
        `data` is exactly what `Header.data` was, inflated, and that many bytes follow it.

        Raises: HeaderIncompleteError if more bytes are needed, NotDicomError,
        MalformedHeaderError, TruncatedInstanceError (with `file_size`).
        """
        if len(data) < _META_START:
            if body_size is not None or len(data) == file_size:
                raise NotDicomError(f"only {len(data)} bytes")
            raise HeaderIncompleteError(FIRST_READ_BYTES)
        if data[128:132] != b"DICM":
            raise NotDicomError('no "DICM" prefix')
        self = cls()
        is_whole = body_size is not None or (file_size is not None and len(data) >= file_size)
        try:
            self._index_meta(data, is_whole)
            if self.is_deflated and body_size is None:
                self._inflate_and_index(data, is_whole)
            else:
                self._index_data_set(data, is_whole)
        except Overrun as overrun:
            limit = None if self.is_deflated else file_size
            raise _shortage(overrun, len(data), is_whole, limit) from None
        return self

    def with_data(self, data: bytes) -> Header:
        """A Header of these bytes, read as this one was found to be encoded.

        Raises: MalformedHeaderError, TruncatedInstanceError.
        """
        other = Header()
        try:
            other._index_meta(data, True)
            other._index_data_set(data, True, self.is_implicit_vr)
        except Overrun as overrun:
            raise _shortage(overrun, len(data), True, None) from None
        return other

    def respliced(
        self,
        data: bytes,
        edited: Collection[int],
        meta: Callable[[], DataSet],
        data_set: Callable[[], DataSet],
        *,
        meta_end: int,
    ) -> Header:
        """A Header of these bytes, encoded as this one is, in which the top-level Data Elements of
        `edited` are others. Its `meta` and `data_set` are made when they are asked for.
        """
        other = Header()
        other._texts = {}
        other._original, other._edited, other._index = self, frozenset(edited), (meta, data_set)
        other.data, other.body_offset, other.meta_end = data, len(data), meta_end
        other.transfer_syntax_uid, other.is_deflated = self.transfer_syntax_uid, self.is_deflated
        other.is_implicit_vr = self.is_implicit_vr
        other.is_little_endian = self.is_little_endian
        return other

    @property
    def meta(self) -> DataSet:
        """The File Meta Information."""
        if self._index is not None:
            self._make_index(*self._index)
        return self._meta

    @property
    def data_set(self) -> DataSet:
        """What follows it, up to the Body."""
        if self._index is not None:
            self._make_index(*self._index)
        return self._data_set

    def __contains__(self, path: AttributePath | str) -> bool:
        return self._first(path) is not None

    def values(self, path: AttributePath | str) -> tuple[Value, ...] | None:
        """The Values: None if the Attribute is absent, () if it is empty.

        Text is decoded by Specific Character Set and its padding taken off; DS and IS are their
        text, AT is "(gggg,eeee)", US, FL and the like are numbers, OB, UN and the like bytes. A
        path with `[*]` gives the Values of all Items. Raises: HasItemsError for a Sequence.
        """
        steps = as_path(path).steps
        if len(steps) == 1 and not steps[0].creator:  # the usual question
            tag = steps[0].tag
            data_set = self._level(tag)
            return data_set.values(tag) if tag in data_set.entries else None
        found = [data_set.values(tag) for data_set, tag in self._find(path)]
        return tuple(value for values in found for value in values) if found else None

    def text(self, path: AttributePath | str) -> str | None:
        """The Values as text, joined by a backslash; None if the Attribute is absent.

        "" for a Sequence, which any Attribute may say that it is: it has Items, and no Values.
        """
        # Checks, rules and destinations ask for the same few again and again.
        known = self._texts.get(path, _UNASKED)
        if known is not _UNASKED:
            return known
        original = self._original
        if original is not None and self._is_as_it_was(path):
            return original.text(path)
        try:
            values = self.values(path)
        except HasItemsError:
            values = ()
        found = None if values is None else "\\".join(map(as_text, values))
        self._texts[path] = found
        return found

    def element(self, path: AttributePath | str) -> Element | None:
        """Where the Data Element is; the first one that a path with `[*]` leads to."""
        found = self._first(path)
        return found[0].element(found[1]) if found else None

    def walk(self) -> Iterator[tuple[AttributePath, Element]]:
        """Every Data Element in the order of the bytes, nested ones after their Sequence.

        Without File Meta Information; private Attributes come by their tag. Of a tag that stands
        twice in one data set, the last one counts.
        """
        return self.data_set.walk()

    def _is_as_it_was(self, path: AttributePath | str) -> bool:
        """True if what the path leads to is certainly not edited."""
        first = as_path(path).steps[0]
        return not (
            first.creator
            or first.tag in self._edited
            or SPECIFIC_CHARACTER_SET in self._edited
            or PIXEL_REPRESENTATION in self._edited
        )

    def _make_index(self, meta: Callable[[], DataSet], data_set: Callable[[], DataSet]) -> None:
        self._meta, self._data_set = meta(), data_set()
        self._index = None

    # ---- how it is made ---------------------------------------------------------------------

    def _index_meta(self, data: bytes, is_whole: bool) -> None:
        """The File Meta Information: by its group, since its group length is missing or wrong in
        real files.
        """
        self.is_deflated = False
        self._texts = {}
        self._index = self._original = None
        meta = DataSet(data, _META_START, is_implicit_vr=False, is_little_endian=True)
        self._meta = meta
        self.meta_end = meta.scan_group(0x0002, len(data))
        if self.meta_end + 2 > len(data) and not is_whole:
            raise Overrun(None, self.meta_end, self.meta_end + 8)
        if not meta.entries:
            raise NotDicomError("no File Meta Information")
        values = meta.values(_TRANSFER_SYNTAX_UID) if _TRANSFER_SYNTAX_UID in meta.entries else ()
        if not values:
            raise MalformedHeaderError("File Meta Information has no Transfer Syntax UID", 132)
        uid = str(values[0])
        self.transfer_syntax_uid = uid
        self.is_deflated = uid in DEFLATED
        self.is_little_endian = uid != EXPLICIT_VR_BIG_ENDIAN

    def _index_data_set(
        self, data: bytes, is_whole: bool, is_implicit_vr: bool | None = None
    ) -> None:
        first_vr = data[self.meta_end + 4 : self.meta_end + 6]
        if is_implicit_vr is not None:
            self.is_implicit_vr = is_implicit_vr
        elif len(first_vr) == 2:
            self.is_implicit_vr = not looks_like_vr(first_vr)
        else:
            self.is_implicit_vr = self.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
        data_set = DataSet(
            data,
            self.meta_end,
            is_implicit_vr=self.is_implicit_vr,
            is_little_endian=self.is_little_endian,
        )
        self._data_set = data_set
        self.body_offset = data_set.scan_top_level(len(data))
        if self.body_offset == len(data) and not is_whole:
            raise Overrun(None, self.body_offset, self.body_offset + 8)
        self.data = data[: self.body_offset]
        self._meta.rebase(self.data)
        data_set.rebase(self.data)

    def _inflate_and_index(self, data: bytes, is_whole: bool) -> None:
        """Inflate only as much as the Header needs."""
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        plain = data[: self.meta_end]
        deflated = data[self.meta_end :]
        wanted = FIRST_READ_BYTES
        while True:
            try:
                plain += inflater.decompress(deflated, wanted)
            except zlib.error:
                raise MalformedHeaderError(
                    "the deflated data set cannot be inflated", self.meta_end
                ) from None
            deflated = inflater.unconsumed_tail
            try:
                self._index_data_set(plain, inflater.eof)
            except Overrun:
                if inflater.eof or not deflated:
                    raise
                if len(plain) > MAX_HEADER_BYTES:
                    raise MalformedHeaderError(
                        f"the Header is longer than {MAX_HEADER_BYTES} bytes", len(plain)
                    ) from None
            else:
                return
            wanted = len(plain)

    # ---- where things are -------------------------------------------------------------------

    def _level(self, tag: int) -> DataSet:
        return self.meta if tag >> 16 == 0x0002 else self.data_set

    def _find(self, path: AttributePath | str) -> Iterator[tuple[DataSet, int]]:
        steps = as_path(path).steps
        return self._level(steps[0].tag).find(steps)

    def _first(self, path: AttributePath | str) -> tuple[DataSet, int] | None:
        steps = as_path(path).steps
        if len(steps) > 1 or steps[0].creator:
            return next(self._find(path), None)
        tag = steps[0].tag  # the usual question
        data_set = self._level(tag)
        return (data_set, tag) if tag in data_set.entries else None


_META_START: Final = 132
_UNASKED: Final = "not asked yet"
_TRANSFER_SYNTAX_UID: Final = 0x00020010


def _shortage(overrun: Overrun, received: int, is_whole: bool, file_size: int | None) -> Exception:
    """What it means that the bytes end too early: ask for more, or say that there are no more."""
    if is_whole or (file_size is not None and overrun.needed > file_size):
        name = "a Data Element" if overrun.tag is None else format_tag(overrun.tag)
        total = received if file_size is None else file_size
        return TruncatedInstanceError(
            name, overrun.needed - overrun.offset, max(0, total - overrun.offset)
        )
    return HeaderIncompleteError(max(overrun.needed, received * 2, FIRST_READ_BYTES))
