"""A request's body as it arrives, with its end and its size checked."""

from __future__ import annotations

from typing import Protocol

from shared.multipart import IncompleteBodyError


class ReadableBody(Protocol):
    """What a WSGI server gives as `wsgi.input`."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, none at the end."""


def announced_length(
    content_length: int | None, transfer_encoding: str, protocol: str
) -> int | None:
    """The length of a request's body; None if its end shows when it comes.

    Without a length HTTP/1.1 has no body unless it is chunked (RFC 9112 6.3); HTTP/2 marks the end
    itself (RFC 9113 8.1).
    """
    if content_length is not None:
        return content_length
    is_marked = "chunked" in transfer_encoding.lower() or protocol.startswith("HTTP/2")
    return None if is_marked else 0


class RequestTooLargeError(Exception):
    """The body is longer than is taken. args: the limit in bytes."""


class RequestBody:
    """Reads a body of `content_length` bytes, or to its end if that is None, up to `max_bytes`.

    Raises: RequestTooLargeError, at once when the announced length is too much.
    """

    def __init__(self, stream: ReadableBody, content_length: int | None, *, max_bytes: int) -> None:
        if content_length is not None and content_length > max_bytes:
            raise RequestTooLargeError(max_bytes)
        self._stream, self._content_length, self._max_bytes = stream, content_length, max_bytes
        self.received = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none once the whole body has been read.

        Raises: IncompleteBodyError if the sender goes away or is silent too long;
        RequestTooLargeError.
        """
        if self._content_length is not None:
            # Not every server marks the end of the body: asking for more would wait for ever.
            size = min(size, self._content_length - self.received)
        if size == 0:
            return b""
        try:
            data = self._stream.read(size)
        except Exception:
            # Each server has its own errors for a lost connection and for broken chunks.
            raise IncompleteBodyError("the connection was lost within the body") from None
        self.received += len(data)
        if self.received > self._max_bytes:
            raise RequestTooLargeError(self._max_bytes)
        if not data and self._content_length is not None:
            raise IncompleteBodyError("the body is shorter than its Content-Length")
        return data
