"""What the misbehaving peers have in common: a port that comes and goes with the mood."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from contextlib import suppress

from infra.local.torture.moods import Mood, Temper

_LOOK_EVERY_S = 0.1
STALL_S = 4.0  # longer than the timeout of the destination


class Peer(ABC):
    """Listens on one loopback port, except while its mood is to be gone."""

    def __init__(self, temper: Temper) -> None:
        self.temper = temper
        self._listener: socket.socket | None = self._listen(0)
        self.port: int = self._listener.getsockname()[1] if self._listener else 0
        self._stopped = threading.Event()
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Listen no more."""
        self._stopped.set()
        self._hang_up()

    @abstractmethod
    def serve(self, connection: socket.socket) -> None:
        """Do what a peer does, in a thread of its own, and leave closing to the caller."""

    def _accept(self) -> None:
        while not self._stopped.is_set():
            if self.temper.mood is Mood.GONE:
                if self._listener is not None:
                    self._listener.close()
                    self._listener = None
                    self._hang_up()
                self._stopped.wait(_LOOK_EVERY_S)
                continue
            if self._listener is None:
                try:
                    self._listener = self._listen(self.port)
                except OSError:
                    self._stopped.wait(_LOOK_EVERY_S)
                    continue
            with suppress(TimeoutError, OSError):
                connection, _ = self._listener.accept()
                threading.Thread(target=self._run, args=(connection,), daemon=True).start()
        if self._listener is not None:
            self._listener.close()

    def _run(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)
        connection.settimeout(60)
        with suppress(OSError, EOFError, ValueError):
            self.serve(connection)
        with self._lock:
            self._connections.discard(connection)
        connection.close()

    def _hang_up(self) -> None:
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _listen(port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=32)
        listener.settimeout(_LOOK_EVERY_S)
        return listener


def read_exactly(connection: socket.socket, count: int) -> bytes:
    """Raises: EOFError at the end of the connection; OSError."""
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
