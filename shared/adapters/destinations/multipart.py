"""multipart/related (RFC 2387, PS3.18 8.6.1) with Instances in it: written, and read back."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence

from shared.dicom.outgoing import Part, chunks

_LONGEST_PART_HEADER_BYTES = 1 << 16


class StreamedBody:
    """The body of a request, as often as it is iterated over.

    A client that sends a request again, after a redirect or a renewed token, gets all bytes again;
    from a generator or an open file it would get none, and could take that for success. Has a
    length, so that the request says Content-Length: servers refuse chunked transfer.
    """

    def __init__(self, parts: Sequence[Part], content_type: str) -> None:
        self.content_type = content_type
        self._parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        # Small neighbours go out together: each piece is one write to the socket.
        pending = b""
        for chunk in chunks(self._parts):
            if len(pending) + len(chunk) <= _LONGEST_PART_HEADER_BYTES:
                pending += chunk
                continue
            if pending:
                yield pending
                pending = b""
            yield chunk
        if pending:
            yield pending


class MultipartBody(StreamedBody):
    """The body of a STOW-RS request that brings these Part 10 files."""

    def __init__(self, *files: Sequence[Part]) -> None:
        boundary = uuid.uuid4().hex
        begin = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        parts: list[Part] = []
        for file in files:
            parts += [begin, *file, b"\r\n"]
        parts.append(f"--{boundary}--\r\n".encode())
        super().__init__(parts, f'multipart/related; type="application/dicom"; boundary={boundary}')


Body = StreamedBody | bytes


def first_part(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What follows the header of the first part of a multipart body, to the body's end.

    Nothing if there is no such header within 64 KiB.
    """
    head = b""
    is_begun = False
    for piece in pieces:
        if is_begun:
            yield piece
            continue
        head += piece
        end = head.find(b"\r\n\r\n", head.find(b"--"))
        if end >= 0:
            is_begun = True
            yield head[end + 4 :]
        elif len(head) > _LONGEST_PART_HEADER_BYTES:
            return
