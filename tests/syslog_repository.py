"""An audit repository on loopback that takes syslog."""

from __future__ import annotations

import socket
import ssl
import threading


class Repository:
    """Takes syslog over TCP or TLS on loopback, until it is closed."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._context = context
        self.messages: list[bytes] = []
        self._came = threading.Condition()
        threading.Thread(target=self._serve, daemon=True).start()

    def wait_for(self, number: int) -> list[bytes]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.messages) >= number, 60)
            return list(self.messages)

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                while length := self._length(stream.read(1), stream):
                    with self._came:
                        self.messages.append(stream.read(length))
                        self._came.notify_all()

    @staticmethod
    def _length(first: bytes, stream: object) -> int:
        digits = first
        while digits and not digits.endswith(b" "):
            digits += stream.read(1)  # type: ignore[attr-defined]
        return int(digits) if digits else 0
