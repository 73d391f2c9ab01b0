"""Streams of bytes that are too large for memory: deflated, inflated, kept in a temporary file."""

from __future__ import annotations

import os
import secrets
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from shared.errors import (
    AxiomError,
    InstanceTooLargeError,
    MalformedHeaderError,
    TruncatedInstanceError,
)

if TYPE_CHECKING:
    from shared.ports import ObjectReader, ObjectWriter

# How the names begin of what is kept elsewhere; a day old it is nobody's.
ELSEWHERE_PREFIX: Final = "temporary/"
_PIECE_BYTES: Final = 1 << 20
_WINDOW_BYTES: Final = 4 << 20
# PS3.5 A.5 deflates without zlib's own header: negative window bits say so.
_RAW_DEFLATE: Final = -zlib.MAX_WBITS
# Deflate shrinks up to a thousandfold: a small file must not keep us inflating for hours.
_MAX_INFLATED_BYTES: Final = 16 << 30


class Overflow(Protocol):
    """Where bytes are kept that are too many for the folder of temporary files."""

    def create(self, name: str) -> ObjectWriter:
        """Start to keep something. Raises: StorageUnavailableError."""

    def open(self, name: str) -> ObjectReader:
        """Read it. Raises: StorageUnavailableError."""

    def delete(self, name: str) -> None:
        """Forget it. Raises: StorageUnavailableError."""


class _Limit:
    most_bytes = 0
    elsewhere: Overflow | None = None


def keep_elsewhere(elsewhere: Overflow | None, most_bytes: int) -> None:
    """From now on, of what is longer than `most_bytes` nothing stays in the folder of temporary
    files, which is memory on some platforms; None keeps all there.
    """
    _Limit.most_bytes, _Limit.elsewhere = most_bytes, elsewhere


class TemporaryFile:
    """Bytes in a file without a name, or `keep_elsewhere`; gone once nobody refers to it."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self.size = 0
        self._elsewhere = _Limit.elsewhere
        self._name = ""  # elsewhere
        self._reader: ObjectReader | None = None
        self._window, self._window_at = b"", 0
        rest = iter(pieces)
        for piece in rest:
            self.size += self._file.write(piece)
            if self._elsewhere is not None and self.size > _Limit.most_bytes:
                self._move(self._elsewhere, rest)
                return
        self._file.flush()

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end."""
        if self._reader is None:
            return os.pread(self._file.fileno(), length, offset)
        # A few bytes are read here and there, going forward: each would be a request.
        start = offset - self._window_at
        if not 0 <= start <= start + length <= len(self._window):
            self._window = self._reader.read_at(offset, max(length, _WINDOW_BYTES))
            self._window_at, start = offset, 0
        return self._window[start : start + length]

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from `offset` in pieces of at most 1 MiB."""
        if self._reader is not None:
            yield from self._reader.stream(offset, length)
            return
        end = self.size if length is None else offset + length
        while offset < end:
            piece = os.pread(self._file.fileno(), min(_PIECE_BYTES, end - offset), offset)
            if not piece:
                return
            yield piece
            offset += len(piece)

    def fileno(self) -> int | None:
        """A descriptor for reading at absolute offsets; None if there is no file here."""
        return self._file.fileno() if self._reader is None else None

    def _move(self, elsewhere: Overflow, rest: Iterator[bytes]) -> None:
        self._file.seek(0)
        name = f"{ELSEWHERE_PREFIX}{secrets.token_hex(16)}"
        with elsewhere.create(name) as writer:
            while piece := self._file.read(_PIECE_BYTES):
                writer.write(piece)
            self._file.truncate(0)
            for piece in rest:
                writer.write(piece)
            self._name, self.size = name, writer.commit().size
        self._reader = elsewhere.open(name)

    def __del__(self) -> None:
        self._file.close()
        if self._elsewhere is not None and self._name:
            with suppress(AxiomError):  # it goes with its age, too
                self._elsewhere.delete(self._name)


def inflate(pieces: Iterable[bytes]) -> Iterator[bytes]:
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


def deflate(pieces: Iterable[bytes]) -> Iterator[bytes]:
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


def skip(pieces: Iterable[bytes], count: int) -> Iterator[bytes]:
    """The bytes without the first `count`."""
    for piece in pieces:
        yield piece[count:]
        count = max(0, count - len(piece))
