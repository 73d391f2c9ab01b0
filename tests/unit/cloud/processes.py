"""Functions as their containers run them, each a process behind gunicorn."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import h2.config
import h2.connection
import h2.events

from tests.running import wait_until

ROOT = Path(__file__).resolve().parents[3]


class FunctionProcess:
    """One `python -m infra.images.serve` on a port of its own choice."""

    def __init__(self, name: str, log: Path, **settings: str) -> None:
        self.name, self._log = name, log
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        found = re.search(r'"message": "listening".*"port": (\d+)', self.log())
        assert found is not None, self.log()
        return int(found[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def terminate(self, within_s: float = 30.0) -> int:
        """As Cloud Run does it; the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(within_s)

    def largest_worker_kib(self) -> int:
        """The most memory that its worker has had in RAM."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        worker = children.read_text().split()[0]
        status = Path(f"/proc/{worker}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1])

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "infra.images.serve"],
                cwd=ROOT,
                env={
                    **os.environ,
                    "FUNCTION_TARGET": self.name,
                    "PORT": "0",
                    "AXIOM_FUNCTION_HOST": "127.0.0.1",
                    "PYTHONPATH": str(ROOT),
                    **self._settings,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(self._listens, 60.0, f"{self.name}: {self.log()[-2000:]}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        return '"message": "listening"' in self.log()

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def post_over_http2(
    port: int, path: str, headers: dict[str, str], pieces: Iterator[bytes]
) -> tuple[int, bytes]:
    """Send a request as Cloud Run's proxy does, over HTTP/2 without TLS; status and body."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    stream, status, body, ended = 1, 0, b"", False

    with socket.create_connection(("127.0.0.1", port), 30) as peer:

        def take() -> None:
            nonlocal status, body, ended
            for event in connection.receive_data(peer.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    ended = True
            peer.sendall(connection.data_to_send())

        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", f"127.0.0.1:{port}"),
            (":path", path),
            *((name.lower(), value) for name, value in headers.items()),
        ]
        connection.send_headers(stream, fields)
        peer.sendall(connection.data_to_send())
        for piece in pieces:
            while piece and not ended:
                window = min(
                    connection.local_flow_control_window(stream), connection.max_outbound_frame_size
                )
                if window == 0:
                    take()
                    continue
                connection.send_data(stream, piece[:window])
                piece = piece[window:]
                peer.sendall(connection.data_to_send())
        if not ended:
            connection.end_stream(stream)
            peer.sendall(connection.data_to_send())
        while not ended:
            take()
    return status, body
