"""The bytes of a Body, passed over forwards: by jumping, or by inflating where it is deflated.

Either way only one window is in memory, however large the Instance is or claims to be.
"""

from __future__ import annotations

import zlib
from typing import Protocol

from shared.ports import ObjectReader

_WINDOW_BYTES = 64 * 1024
# After a longer jump, what is wanted is a few bytes between two large payloads.
_SPARSE_WINDOW_BYTES = 512
_LONG_JUMP_BYTES = 16 * 1024

# Pixel Data has a length of 32 bits, so an honest data set ends before this; a bomb's does not.
MAX_INFLATED_BYTES = 5 * 1024**3


class ForwardSource(Protocol):
    """A position that only moves forward, in bytes of the plain (inflated) Part 10 file."""

    position: int

    def at_end(self) -> bool:
        """True if there is nothing left to read."""

    def read(self, length: int) -> bytes:
        """The next bytes, all in memory; fewer than `length` only at the end."""

    def skip(self, length: int) -> int:
        """Pass over `length` bytes; returns how many there were."""


class PlainSource:
    """The file as it is stored."""

    def __init__(self, reader: ObjectReader, position: int) -> None:
        self.position = position
        self._reader = reader
        self._window = b""
        self._window_start = position

    def at_end(self) -> bool:
        return self.position >= self._reader.size

    def read(self, length: int) -> bytes:
        start = self.position - self._window_start
        if start + length > len(self._window):
            is_near = self._window and start - len(self._window) < _LONG_JUMP_BYTES
            size = max(length, _WINDOW_BYTES if is_near else _SPARSE_WINDOW_BYTES)
            self._window = self._reader.read_at(self.position, size)
            self._window_start, start = self.position, 0
        data = self._window[start : start + length]
        self.position += len(data)
        return data

    def skip(self, length: int) -> int:
        skipped = min(length, max(self._reader.size - self.position, 0))
        self.position += skipped
        return skipped


class InflatingSource:
    """The data set of a deflated file, inflated as it is passed over (PS3.5 A.5).

    Bytes that cannot be inflated are the end, and `fault` says so.
    """

    def __init__(self, reader: ObjectReader, stream_start: int) -> None:
        """`stream_start` is where File Meta ends: the same offset deflated and inflated."""
        self.position = stream_start
        self.fault: str | None = None
        self.is_too_large = False
        self._reader, self._offset = reader, stream_start
        self._inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        self._buffer = b""

    @property
    def surplus_bytes(self) -> int:
        """Bytes of the file after the end of the stream; one may be padding."""
        return self._reader.size - self._offset + len(self._inflate.unused_data)

    def at_end(self) -> bool:
        return not self._fill()

    def read(self, length: int) -> bytes:
        parts = []
        while length and self._fill():
            part = self._buffer[:length]
            self._buffer = self._buffer[length:]
            self.position += len(part)
            length -= len(part)
            parts.append(part)
        return b"".join(parts)

    def skip(self, length: int) -> int:
        wanted = length
        while length and self._fill():
            passed = min(length, len(self._buffer))
            self._buffer = self._buffer[passed:]
            self.position += passed
            length -= passed
        return wanted - length

    def _fill(self) -> bool:
        """True if there is a byte in the buffer, after inflating more if need be."""
        while not self._buffer and not self._inflate.eof and not self.fault:
            if self.position > MAX_INFLATED_BYTES:
                self.is_too_large = True
                self.fault = f"inflates to more than {MAX_INFLATED_BYTES} bytes"
                break
            deflated = self._inflate.unconsumed_tail
            if not deflated:
                deflated = self._reader.read_at(self._offset, _WINDOW_BYTES)
                self._offset += len(deflated)
            try:
                self._buffer = self._inflate.decompress(deflated, _WINDOW_BYTES)
            except zlib.error:
                self.fault = f"is broken before byte {self._offset}"
            if not deflated and not self._buffer and not self._inflate.eof:
                self.fault = f"has no end; the file ends at byte {self._offset}"
        return bool(self._buffer)
