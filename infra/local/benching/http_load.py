"""Keep-alive connections that each ask again as soon as they are answered, as wrk does."""

from __future__ import annotations

import selectors
import socket
import time
from dataclasses import dataclass

from infra.local.benching.programs import BenchError

_WITHIN_S = 60.0
_HEADER_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Load:
    """How requests went: how many a second, and how long each took, the shortest first."""

    per_s: float
    times_s: tuple[float, ...]

    def percentile_ms(self, percent: float) -> float:
        """So many percent of the requests took at most this."""
        position = min(len(self.times_s) - 1, int(len(self.times_s) * percent / 100))
        return 1000 * self.times_s[position]


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), _WITHIN_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.asked_at_s = 0.0

    def ask(self, request: bytes) -> None:
        self.received = b""
        self.asked_at_s = time.perf_counter()
        self.socket.sendall(request)

    def is_answered(self) -> bool:
        """Take what has come. Raises: BenchError unless it is a success."""
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise BenchError("the server closed a connection")
        self.received += piece
        head, end, body = self.received.partition(_HEADER_END)
        if not end:
            return False
        if b" 200 " not in head[:20]:
            raise BenchError(head[:100].decode("latin-1"))
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        return len(body) >= int(length)


def load(port: int, path: str, key: str, *, connections: int, requests: int) -> Load:
    """Make so many requests over so many connections. Raises: BenchError if one fails."""
    text = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Api-Key {key}\r\n\r\n"
    request = text.encode()
    selector = selectors.DefaultSelector()
    opened = [_Connection(port) for _ in range(connections)]
    times_s: list[float] = []
    began_s = time.perf_counter()
    asked = 0
    for connection in opened:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.ask(request)
        asked += 1
    while len(times_s) < requests:
        ready = selector.select(_WITHIN_S)
        if not ready:
            raise BenchError("the server does not answer")
        for event, _ in ready:
            connection = event.data
            if connection.is_answered():
                times_s.append(time.perf_counter() - connection.asked_at_s)
                if asked < requests:
                    connection.ask(request)
                    asked += 1
    seconds = time.perf_counter() - began_s
    for connection in opened:
        connection.socket.close()
    return Load(requests / seconds, tuple(sorted(times_s)))
