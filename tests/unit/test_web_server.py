"""Gunicorn as we run it: bounded against slow peers, graceful, gone with its parent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any

import pytest

from shared.web.server import THREADS

# An application that says how many bytes it was sent; its limits are short, so that tests are.
SERVER = """
import sys

from gunicorn.workers import gthread
from shared import logs
from shared.web import server

gthread.DEFAULT_WORKER_DATA_TIMEOUT = 600
server.HEADER_TIMEOUT_S = float(sys.argv[1])
server.SILENCE_TIMEOUT_S = 3

def count(environ, start_response):
    received = 0
    try:
        while piece := environ["wsgi.input"].read(65536):
            received += len(piece)
    except OSError:
        received = -1
    if environ["PATH_INFO"] == "/bug":
        raise RuntimeError("Doe^John")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(received).encode()]

logs.configure("http")
server.Server("127.0.0.1", 0, lambda: count).run()
"""


class Running:
    """A server in a process of its own, and the lines it logged."""

    def __init__(self, header_timeout_s: float = 60) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(header_timeout_s)],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.port: int = self.logged("listening")["port"]

    def logged(self, message: str) -> dict[str, Any]:
        """The next line of the log with this message; pytest's timeout bounds the wait."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            entry: dict[str, Any] = json.loads(line)
            if entry["message"] == message:
                return entry
        raise AssertionError(f"never logged: {message}")

    def rest_of_log(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@pytest.fixture
def server() -> Iterator[Running]:
    yield from _running(Running())


@pytest.fixture
def impatient() -> Iterator[Running]:
    """One that waits for no header; on a busy machine not even for one that was sent at once."""
    yield from _running(Running(header_timeout_s=0.5))


def _running(running: Running) -> Iterator[Running]:
    yield running
    if running.process.poll() is None:
        running.process.terminate()
    running.process.wait(timeout=120)


def answer(peer: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    while piece := peer.recv(4096):
        received += piece
    return received


def eventually(claim: Callable[[], bool], within_s: float = 120) -> bool:
    deadline_s = time.monotonic() + within_s
    while not claim():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


def trickle(peer: socket.socket, piece: bytes) -> None:
    for _ in range(2000):
        peer.sendall(piece)
        time.sleep(0.05)


class TestServer:
    def test_listens_on_a_free_port_and_tells_it(self, server: Running) -> None:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/", body=b"x" * 100_000)
        assert connection.getresponse().read() == b"100000"

    def test_cuts_a_peer_that_trickles_its_header(self, impatient: Running) -> None:
        """Sixteen of them would otherwise hold every thread, and need no key for it."""
        with impatient.connect() as peer:
            peer.sendall(b"GET / HTTP/1.1\r\n")
            with pytest.raises(OSError):
                trickle(peer, b"X: 1\r\n")

    def test_answers_while_many_peers_have_said_nothing_yet(self, server: Running) -> None:
        """They need no key for it, and gunicorn has a thread wait for each of them."""
        with ExitStack() as silent:
            for _ in range(2 * THREADS):
                silent.enter_context(server.connect())
            connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
            connection.request("GET", "/")
            assert connection.getresponse().status == 200

    def test_gives_up_on_a_peer_that_falls_silent_within_its_body(self, server: Running) -> None:
        with server.connect() as peer:
            peer.sendall(b"POST / HTTP/1.0\r\nContent-Length: 1000\r\n\r\nhalf")
            assert answer(peer).endswith(b"-1")

    def test_finishes_what_it_has_begun_when_told_to_stop(self, server: Running) -> None:
        with server.connect() as peer:
            peer.sendall(
                b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"Expect: 100-continue\r\nContent-Length: 8\r\n\r\nhalf"
            )
            assert b" 100 " in peer.recv(4096)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                server.process.wait(timeout=1)
            peer.sendall(b"half")
            assert b"\r\n8\r\n" in answer(peer)
        assert server.process.wait(timeout=120) == 0

    def test_ends_when_its_parent_is_killed(self, server: Running) -> None:
        server.process.kill()
        assert eventually(lambda: is_refused(server.port))

    def test_answers_what_is_no_request_with_a_problem_that_quotes_nothing(
        self, server: Running
    ) -> None:
        """The names of header fields and paths may be a patient's."""
        for request, status, code in (
            (b"GET / HTTP/1.1\r\nDoe^John: \x01\r\n\r\n", 400, "bad-request"),
            (b"Doe^John\r\n\r\n", 400, "bad-request"),
            (b"GET /Doe^John HTTP/9.9\r\n\r\n", 400, "bad-request"),
            (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414, "uri-too-long"),
            (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431, "header-too-large"),
            (
                b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Doe\r\n\r\n",
                501,
                "unsupported-transfer-coding",
            ),
        ):
            with server.connect() as peer:
                peer.sendall(request)
                head, _, body = answer(peer).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status), request[:40]
            assert b"Content-Type: application/problem+json" in head
            assert json.loads(body)["code"] == code
            assert b"Doe" not in body

    def test_logs_nothing_that_a_peer_has_sent(self, server: Running) -> None:
        for request in (
            b"GET / HTTP/1.1\r\nDoe^John: \x01\r\n\r\n",
            b"Doe^John\r\n\r\n",
            b"GET /bug?q=Doe%5EJohn HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        ):
            with server.connect() as peer:
                peer.sendall(request)
                answer(peer)
        os.kill(server.process.pid, signal.SIGTERM)
        logged = server.rest_of_log()
        assert "RuntimeError" in logged
        assert "Doe" not in logged
