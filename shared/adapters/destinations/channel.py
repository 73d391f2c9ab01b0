"""The connection below an association: bytes in order, in the clear or under TLS (PS3.15 B.12)."""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from msgspec import Struct

from shared.addresses import policy

# Linux; elsewhere exchanges are the same, only slower.
_MSG_MORE = getattr(socket, "MSG_MORE", 0)
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
# What is read of a file at once to be encrypted.
_CHUNK_BYTES = 1 << 18


class Security(Struct, frozen=True):
    """How a connection is encrypted. `context` is asked anew for each, for certificates change."""

    context: Callable[[], ssl.SSLContext]
    server_name: str  # whom the peer's certificate has to name, if the context checks that


class Channel(Protocol):
    """Used by one thread at a time. What takes longer than the limit raises BlockingIOError; any
    other OSError is the end of the connection.
    """

    def limit_waiting(self, seconds: float) -> None:
        """How long one wait for the peer may take, in either direction."""

    def send(self, buffers: Sequence[bytes | memoryview], *, more: bool = False) -> None:
        """Send all of them; `more` follows at once."""

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Send some bytes of a file; how many, 0 at its end."""

    def receive(self, count: int) -> bytes:
        """Up to so many bytes; none at the end of the connection."""

    def is_readable(self, within_s: float) -> bool:
        """True once there is something to receive, be it the end."""

    def send_last(self, data: bytes) -> None:
        """Send what little can be sent without waiting; never raises."""

    def close(self) -> None:
        """Close the connection; never raises."""


def connect(address: tuple[str, int], within_s: float, security: Security | None) -> Channel:
    """A connection, whose certificate was checked where it is encrypted. Raises: OSError."""
    connection = socket.create_connection(address, within_s)
    try:
        policy().check_peer(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if security is None:
            return ClearChannel(connection)
        # Until here, and through the handshake, the time-out is Python's.
        return TlsChannel(
            security.context().wrap_socket(connection, server_hostname=security.server_name)
        )
    except BaseException:
        connection.close()
        raise


class ClearChannel:
    """A Channel over TCP. Files go out by sendfile(2)."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def limit_waiting(self, seconds: float) -> None:
        """As Channel."""
        # The kernel's own limits, so that sendfile(2) is under them too; Python's time-outs would
        # make the socket non-blocking.
        self._socket.settimeout(None)
        whole = int(seconds)
        limit = struct.pack("@ll", whole, max(1, int((seconds - whole) * 1e6)))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)

    def send(self, buffers: Sequence[bytes | memoryview], *, more: bool = False) -> None:
        """As Channel."""
        flags = _MSG_MORE if more else 0
        sent = self._socket.sendmsg(buffers, [], flags)
        for buffer in buffers:
            # Most often all went out at once, and this finds nothing to do.
            if sent < len(buffer):
                rest = memoryview(buffer)[sent:]
                while rest:
                    rest = rest[self._socket.send(rest, flags) :]
            sent = max(0, sent - len(buffer))

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """As Channel."""
        return os.sendfile(self._socket.fileno(), descriptor, offset, count)

    def receive(self, count: int) -> bytes:
        """As Channel."""
        if _QUICKACK is not None:
            # Without it a peer that uses Nagle's algorithm and writes its answer in two pieces
            # waits 40 ms for our delayed acknowledgement, for each Instance. It wears off.
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        return self._socket.recv(count)

    def is_readable(self, within_s: float) -> bool:
        """As Channel."""
        return _is_readable(self._socket, within_s)

    def send_last(self, data: bytes) -> None:
        """As Channel."""
        with suppress(OSError):
            self._socket.send(data, socket.MSG_DONTWAIT)

    def close(self) -> None:
        """As Channel."""
        self._socket.close()


class TlsChannel:
    """A Channel whose bytes are encrypted by this process."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._socket = connection
        self._ahead = b""  # received and not asked for yet

    def limit_waiting(self, seconds: float) -> None:
        """As Channel."""
        self._socket.settimeout(seconds)

    def send(self, buffers: Sequence[bytes | memoryview], *, more: bool = False) -> None:
        """As Channel: many small buffers make one record."""
        with _time_outs():
            self._socket.sendall(b"".join(buffers) if len(buffers) > 1 else buffers[0])

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """As Channel."""
        data = os.pread(descriptor, min(count, _CHUNK_BYTES), offset)
        if data:
            with _time_outs():
                self._socket.sendall(data)
        return len(data)

    def receive(self, count: int) -> bytes:
        """As Channel."""
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        if _QUICKACK is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        with _time_outs():
            return self._socket.recv(count)

    def is_readable(self, within_s: float) -> bool:
        """As Channel. What TLS sends of its own accord, such as a session ticket, is none."""
        if self._ahead or self._socket.pending():
            return True
        if not _is_readable(self._socket, within_s):
            return False
        timeout_s = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            self._ahead = self._socket.recv(1)
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(timeout_s)
        return True

    def send_last(self, data: bytes) -> None:
        """As Channel."""
        with suppress(OSError):
            self._socket.settimeout(0)
            self._socket.send(data)

    def close(self) -> None:
        """As Channel."""
        self._socket.close()


def _is_readable(connection: socket.socket, within_s: float) -> bool:
    # Not select(2), which knows no file descriptor from 1024 on.
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(1000 * within_s))


@contextmanager
def _time_outs() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise BlockingIOError("the peer makes no progress") from error
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise ConnectionResetError("the peer closed the connection") from error
