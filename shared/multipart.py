"""Multipart bodies (RFC 2046 5.1), read part by part as they arrive, in bounded memory.

The media type is the caller's business; `multipart/related` (RFC 2387) as STOW-RS uses it has the
same encoding. Tolerated, because senders do it: a preamble, an epilogue, padding behind a boundary,
and lines that end in LF alone where the first boundary line does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

# RFC 2046 5.1.1: 1 to 70 of these, no space at the end. Some senders exceed 70.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,199}[0-9A-Za-z'()+_,\-./:=?]")
_DELIMITER_END = re.compile(rb"[ \t]{0,256}(\r?\n)")
_CLOSE_END = re.compile(rb"--[ \t]{0,256}(?:\r?\n|\Z)")
_MAX_DELIMITER_END = 260
_HEADER_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_READ_BYTES = 256 * 1024
MAX_PREAMBLE_BYTES = 64 * 1024
MAX_PART_HEADER_BYTES = 16 * 1024


class MultipartError(ValueError):
    """The body is not what its Content-Type says. The text never quotes the body."""


class IncompleteBodyError(MultipartError):
    """The body ends before its closing boundary: the sender went away, or never wrote it."""


class TooManyPartsError(MultipartError):
    """The body has more parts than are taken at once."""


class Part:
    """One body part; its content can be read once, and before the next part is asked for."""

    def __init__(self, reader: MultipartReader, headers: Mapping[str, str]) -> None:
        self._reader = reader
        self.headers = headers  # names in lower case; of a repeated field the last one counts

    def chunks(self) -> Iterator[memoryview]:
        """The content in pieces that are valid until the next one is asked for.

        Raises: IncompleteBodyError, so a caller that reaches the end has the whole part.
        """
        return self._reader._content()


class MultipartReader:
    """Iterates over the parts of a body; what a caller leaves of a part is skipped.

    `read(n)` gives up to n bytes, and none at the end of the body only.
    """

    def __init__(self, read: Callable[[int], bytes], boundary: str, *, max_parts: int) -> None:
        """Raises: MultipartError if `boundary` cannot be one (RFC 2046 5.1.1)."""
        if not _BOUNDARY.fullmatch(boundary):
            raise MultipartError("the boundary is missing or has characters that none may have")
        self._read = read
        self._max_parts = max_parts
        self._dash_boundary = b"--" + boundary.encode("ascii")
        self._delimiter = b"\r\n" + self._dash_boundary
        self._buffer = b""
        self._position = 0  # what lies before it has been handed out
        self._ended = False  # `read` has given its last byte
        self._in_part = False
        self._closed = False  # the closing boundary has been seen

    def __iter__(self) -> Iterator[Part]:
        self._skip_preamble()
        count = 0
        while not self._closed:
            count += 1
            if count > self._max_parts:
                raise TooManyPartsError(f"more than {self._max_parts} parts")
            yield Part(self, self._part_header())
            for _ in self._content():
                pass

    # ---- the buffer -----------------------------------------------------------------------

    def _fill(self) -> bool:
        """Read more behind what is buffered; False at the end of the body."""
        if not self._ended:
            chunk = self._read(_READ_BYTES)
            if chunk:
                self._buffer = self._buffer[self._position :] + chunk
                self._position = 0
                return True
            self._ended = True
        return False

    def _is_delimiter_end(self, at: int) -> re.Match[bytes] | None:
        """What ends a boundary line at `at`. The buffer may be moved: `at` is from `_position`."""
        while len(self._buffer) - self._position - at < _MAX_DELIMITER_END and self._fill():
            pass
        start = self._position + at
        return _CLOSE_END.match(self._buffer, start) or _DELIMITER_END.match(self._buffer, start)

    def _pass_delimiter(self, end: re.Match[bytes]) -> None:
        self._position = end.end()
        self._in_part = False
        self._closed = end.re is _CLOSE_END

    # ---- the parts of the grammar ---------------------------------------------------------

    def _skip_preamble(self) -> None:
        search_from = 0
        while True:
            found = self._buffer.find(self._dash_boundary, search_from)
            if found < 0:
                if len(self._buffer) > MAX_PREAMBLE_BYTES or not self._fill():
                    raise MultipartError("the boundary does not occur where the first part starts")
                continue
            if found == 0 or self._buffer[found - 1] == 0x0A:
                end = self._is_delimiter_end(found + len(self._dash_boundary))
                if end is not None:
                    if end.re is _CLOSE_END:
                        raise MultipartError("there is no part")
                    if end[1] == b"\n":
                        self._delimiter = b"\n" + self._dash_boundary
                    self._pass_delimiter(end)
                    return
            search_from = found + 1

    def _part_header(self) -> dict[str, str]:
        """Read up to the empty line; its line end stays, for it may belong to a boundary."""
        lines: list[bytes] = []
        scanned = 0
        while True:
            line_end = self._buffer.find(b"\n", self._position + scanned)
            if line_end < 0:
                scanned_all = len(self._buffer) - self._position
                if scanned_all > MAX_PART_HEADER_BYTES:
                    raise MultipartError("the header of a part is too long")
                if not self._fill():
                    raise IncompleteBodyError("the body ends within the header of a part")
                continue
            start = self._position + scanned
            line = self._buffer[start:line_end].removesuffix(b"\r")
            if not line:
                self._position = start
                break
            scanned = line_end + 1 - self._position
            if scanned > MAX_PART_HEADER_BYTES:
                raise MultipartError("the header of a part is too long")
            lines.append(line)
        self._in_part = True
        self._skip_empty_line()
        return _fields(lines)

    def _skip_empty_line(self) -> None:
        """Stand at the content, or at the boundary line where the part has none at all."""
        at_delimiter = self._buffer_starts_with(self._delimiter)
        if at_delimiter and self._is_delimiter_end(len(self._delimiter)) is not None:
            return
        self._position = self._buffer.index(b"\n", self._position) + 1

    def _buffer_starts_with(self, wanted: bytes) -> bool:
        while len(self._buffer) - self._position < len(wanted) and self._fill():
            pass
        return self._buffer.startswith(wanted, self._position)

    def _content(self) -> Iterator[memoryview]:
        search_from = 0  # from _position
        while self._in_part:
            found = self._buffer.find(self._delimiter, self._position + search_from)
            if found < 0:
                # Whatever cannot be the start of a boundary line is content.
                sure = len(self._buffer) - self._position - len(self._delimiter) + 1
                if sure > 0:
                    yield self._take(sure)
                if not self._fill():
                    raise IncompleteBodyError("the body ends before its closing boundary")
                search_from = 0
                continue
            offset = found - self._position
            end = self._is_delimiter_end(offset + len(self._delimiter))
            if end is None:
                # A line of the content that merely starts like the boundary.
                search_from = offset + 1
                continue
            if offset:
                yield self._take(offset)
            self._pass_delimiter(end)

    def _take(self, length: int) -> memoryview:
        piece = memoryview(self._buffer)[self._position : self._position + length]
        self._position += length
        return piece


def _fields(lines: list[bytes]) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in lines:
        if line[:1] in (b" ", b"\t"):  # a folded line (RFC 5322 2.2.3)
            if not name:
                raise MultipartError("the header of a part starts with a folded line")
            fields[name] += " " + line.strip().decode("latin-1")
            continue
        raw_name, colon, value = line.partition(b":")
        if not colon or not _HEADER_NAME.fullmatch(raw_name):
            raise MultipartError("the header of a part has a line that is no field")
        name = raw_name.decode("ascii").lower()
        fields[name] = value.strip().decode("latin-1")
    return fields
