"""Streams of bytes that are too large for memory: deflated, inflated, kept in a temporary file."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from shared.errors import InstanceTooLargeError, MalformedHeaderError, TruncatedInstanceError

_PIECE_BYTES: Final = 1 << 20
# PS3.5 A.5 deflates without zlib's own header: negative window bits say so.
_RAW_DEFLATE: Final = -zlib.MAX_WBITS
# Deflate shrinks up to a thousandfold: a small file must not keep us inflating for hours.
_MAX_INFLATED_BYTES: Final = 16 << 30


class TemporaryFile:
    """Bytes in a file without a name, which is gone once nobody refers to it."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self.size = 0
        for piece in pieces:
            self.size += self._file.write(piece)
        self._file.flush()

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end."""
        return os.pread(self._file.fileno(), length, offset)

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from `offset` in pieces of at most 1 MiB."""
        end = self.size if length is None else offset + length
        while offset < end:
            piece = os.pread(self._file.fileno(), min(_PIECE_BYTES, end - offset), offset)
            if not piece:
                return
            yield piece
            offset += len(piece)

    def fileno(self) -> int:
        """A descriptor for reading at absolute offsets."""
        return self._file.fileno()

    def __del__(self) -> None:
        self._file.close()


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
