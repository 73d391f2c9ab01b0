"""One connection: a buffer that the data phase walks in place, and none of TCP's delays."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from contextlib import suppress

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

# One read; this much is held for each association. Larger ones gain nothing for an Instance of some
# hundred KB, but a tenth for one of 1 GB: who fills so many reads in a row gets a larger one.
BUFFER_BYTES = 256 * 1024
LARGE_BUFFER_BYTES = 512 * 1024
_FULL_READS = 16

_TIMEVAL = struct.Struct("ll")


class GatewaySocket(AssociationSocket):
    """The connection with a read buffer, `view[start:end]`, that the data phase walks in place."""

    def __init__(self, assoc: Association, connection: socket.socket) -> None:
        super().__init__(assoc, client_socket=connection)
        self.view = memoryview(bytearray(BUFFER_BYTES))
        self.start = self.end = 0
        self._full_reads = 0  # in a row
        self._timeout_s = -1.0
        # Responses are one write each, and nobody should wait for Nagle to let them go.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def secure(self, within_s: float) -> str:
        """Do what comes before the first PDU; who the peer has proved to be, "" for nobody.

        Raises: OSError.
        """
        return ""

    def set_send_timeout(self, seconds: float) -> None:
        """Give up on a peer that does not take its responses."""
        self._set_timeout(socket.SO_SNDTIMEO, seconds)

    def fill(self, timeout_s: float) -> int:
        """Wait for bytes and append them to the buffer; 0 at the end of the connection.

        Raises: BlockingIOError after `timeout_s` without any; OSError.
        """
        connection = self._connection()
        if timeout_s != self._timeout_s:
            self._set_timeout(socket.SO_RCVTIMEO, timeout_s)
            self._timeout_s = timeout_s
        if self.start:
            # What is left is the start of one header, a few bytes.
            left = bytes(self.view[self.start : self.end])
            if self._full_reads >= _FULL_READS and len(self.view) < LARGE_BUFFER_BYTES:
                self.view.release()
                self.view = memoryview(bytearray(LARGE_BUFFER_BYTES))
            self.view[: len(left)] = left
            self.start, self.end = 0, len(left)
        # The kernel takes the flag back by itself. Without it a sender with Nagle on, which is
        # dcmtk as it is shipped, waits 40 ms for our delayed acknowledgement in every message.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        received = connection.recv_into(self.view[self.end :])
        self.end += received
        self._full_reads = self._full_reads + 1 if self.end == len(self.view) else 0
        return received

    def has_input(self) -> bool:
        """True if `fill` would not wait, be it for the end of the connection."""
        if self.start != self.end:
            return True
        return _is_readable(self._connection().fileno())

    def take(self, length: int) -> bytes:
        """Take up to `length` bytes that are in the buffer."""
        length = min(length, self.end - self.start)
        taken = bytes(self.view[self.start : self.start + length])
        self.start += length
        return taken

    def forget(self) -> None:
        """Empty the buffer unread."""
        self.start = self.end = 0

    def stop_receiving(self) -> None:
        """From another thread: let a `fill` that waits return 0."""
        connection = self.socket
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RD)
            except OSError:
                return  # it is closed already

    def send_all(self, data: bytes) -> None:
        """Raises: OSError."""
        self._connection().sendall(data)

    def _connection(self) -> socket.socket:
        if self.socket is None:
            raise ConnectionResetError("the connection is closed")
        return self.socket

    def _set_timeout(self, option: int, seconds: float) -> None:
        # In the kernel: a Python timeout would cost a poll(2) before every read.
        whole, fraction = divmod(max(seconds, 0.001), 1)
        value = _TIMEVAL.pack(int(whole), int(fraction * 1_000_000))
        self._connection().setsockopt(socket.SOL_SOCKET, option, value)


class TlsGatewaySocket(GatewaySocket):
    """A connection under TLS, whose time-outs are Python's: it has no others for encrypted ones."""

    def __init__(
        self, assoc: Association, connection: socket.socket, context: ssl.SSLContext
    ) -> None:
        super().__init__(assoc, connection)
        self._context = context
        self._send_timeout_s = 0.0
        # Whoever stops it cannot shut the connection down: under TLS nothing could be sent then.
        self._woken, self._waker = socket.socketpair()

    def secure(self, within_s: float) -> str:
        """As GatewaySocket: the handshake; the Common Name of the peer's certificate."""
        connection = self._connection()
        # Of the handshake as a whole.
        connection.settimeout(within_s)
        secured = self._context.wrap_socket(connection, server_side=True)
        self.socket = secured
        subject = (secured.getpeercert() or {}).get("subject", ())
        names = [str(pair[1]) for part in subject for pair in part if pair[0] == "commonName"]
        return names[0] if names else ""

    def fill(self, timeout_s: float) -> int:
        """As GatewaySocket."""
        connection = self._connection()
        if not (isinstance(connection, ssl.SSLSocket) and connection.pending()):
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            poll.register(self._woken, select.POLLIN)
            ready = poll.poll(1000 * timeout_s)
            if any(descriptor == self._woken.fileno() for descriptor, _ in ready):
                return 0
            if not ready:
                raise BlockingIOError("nothing came in time")
        try:
            return super().fill(timeout_s)
        except TimeoutError as error:
            raise BlockingIOError("nothing whole came in time") from error

    def has_input(self) -> bool:
        """As GatewaySocket."""
        connection = self._connection()
        is_decrypted = isinstance(connection, ssl.SSLSocket) and connection.pending()
        return bool(is_decrypted) or _is_readable(self._woken.fileno()) or super().has_input()

    def stop_receiving(self) -> None:
        """As GatewaySocket."""
        with suppress(OSError):  # it is closed already
            self._waker.send(b".", socket.MSG_DONTWAIT)

    def _shutdown_socket(self) -> None:
        super()._shutdown_socket()
        self._woken.close()
        self._waker.close()

    def send_all(self, data: bytes) -> None:
        """As GatewaySocket."""
        self._connection().settimeout(self._send_timeout_s)
        self._timeout_s = -1.0
        super().send_all(data)

    def _set_timeout(self, option: int, seconds: float) -> None:
        if option == socket.SO_SNDTIMEO:
            self._send_timeout_s = seconds
        else:
            self._connection().settimeout(max(seconds, 0.001))


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
