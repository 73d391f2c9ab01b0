"""The `http` process of the embedded mode: `python -m shared.web.server`.

Gunicorn with one worker process of threads. Its parent only watches it: when the parent dies the
worker notices within a second and ends by itself.
"""

from __future__ import annotations

import logging
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from shared import logs
from shared.web import unparsed
from shared.web.turns import TurnTakingExecutor

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

THREADS = 16
GRACEFUL_TIMEOUT_S = 8

# Requests that are worked on at once where threads take turns, and after how long one that waits
# for its sender or another system has had its turn.
AT_ONCE, LONGEST_TURN_S = 2, 0.02

# A peer that neither sends nor takes a byte for so long is gone.
SILENCE_TIMEOUT_S = 60
# A request line and its headers come within this, however small the pieces.
HEADER_TIMEOUT_S = 30.0


def main() -> None:
    """Serve until SIGTERM, as the environment says."""
    from shared.environment import Environment

    logs.configure("http")
    environment = Environment.read()
    Server(environment.http_host, environment.http_port, _create_app, in_turn=True).run()


_HTTP2: dict[str, Any] = {
    "http_protocols": "h2,h1",
    "http2_cleartext": "prior-knowledge",
    # Requests of one connection are answered one after the other, and a large one takes long: the
    # proxy is to open a connection for each.
    "http2_max_concurrent_streams": 1,
    # From whom HTTP/2 is taken; and none of the rights that gunicorn else gives with it.
    "forwarded_allow_ips": "*",
    "forwarder_headers": "",
    "secure_scheme_headers": {},
}


class Server(BaseApplication):  # type: ignore[misc]
    """Serves what `load` gives on `host` and `port` (0: a free one, told in the log)."""

    def __init__(
        self,
        host: str,
        port: int,
        load: Callable[[], WSGIApplication],
        *,
        threads: int = THREADS,
        http2: bool = False,
        in_turn: bool = False,
    ) -> None:
        """`in_turn`: what is only read is answered a few at a time, in the order in which it was
        asked. For where answers are a matter of the processor and hardly wait for others.

        `http2` takes HTTP/2 without TLS in place of HTTP/1.1: from a proxy that nobody can go
        round, such as that of Cloud Run, whose requests of HTTP/1 end at 32 MiB.
        """
        self._host, self._port, self._load = host, port, load
        self._threads, self._http2, self._in_turn = threads, http2, in_turn
        super().__init__()

    def load_config(self) -> None:
        """Called by gunicorn: its settings, none of them from elsewhere."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        settings: dict[str, Any] = {
            "bind": f"{host}:{self._port}",
            "workers": 1,
            "worker_class": OrderlyWorker if self._in_turn else BoundedWorker,
            "threads": self._threads,
            "graceful_timeout": GRACEFUL_TIMEOUT_S,
            "keepalive": 15,
            "control_socket_disable": True,
            "accesslog": None,
            "loglevel": "warning",
            "logger_class": StructuredLog,
            "when_ready": _tell_address,
            **(_HTTP2 if self._http2 else {}),
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> WSGIApplication:
        """Called by gunicorn in the worker, so that no connection is shared with the parent."""
        return self._load()


class BoundedWorker(ThreadWorker):  # type: ignore[misc]
    """Gunicorn's threads, which it lets a silent or trickling peer keep for ever, with limits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._reading_header: dict[Any, float] = {}

    def enqueue_req(self, conn: Any) -> None:
        """A connection has something to read: hand it to a thread. A new one may have nothing yet;
        gunicorn would have a thread wait for that.
        """
        if not conn.initialized and not conn.data_ready:
            self._await_first_byte(conn)
            return
        timeout = struct.pack("ll", SILENCE_TIMEOUT_S, 0)  # struct timeval
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            conn.sock.setsockopt(socket.SOL_SOCKET, option, timeout)
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        """In a thread: read one request and answer it."""
        with self._lock:
            self._reading_header[conn] = time.monotonic()
        try:
            return super().handle(conn)
        finally:
            self._header_is_read(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """In a thread: answer a request whose header is read."""
        self._header_is_read(conn)
        return super().handle_request(req, conn)

    def handle_http2_request(self, req: Any, conn: Any, h2_conn: Any) -> Any:
        """In a thread: answer a request of HTTP/2 whose header is read."""
        self._header_is_read(conn)
        return super().handle_http2_request(req, conn, h2_conn)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """In a thread: a request cannot be read, or answered."""
        refusal = unparsed.refusal_of(exc)
        if refusal is unparsed.OUR_FAULT:
            self.log.exception("a request cannot be answered")
        else:
            self.log.warning("a request cannot be parsed")
        try:
            unparsed.answer(client, refusal)
        except OSError:
            log.debug("a peer that sent what cannot be parsed has gone by itself")

    def notify(self) -> None:
        """In the main thread, at least once a second."""
        super().notify()
        late_s = time.monotonic() - HEADER_TIMEOUT_S
        with self._lock:
            late = [conn for conn, since_s in self._reading_header.items() if since_s < late_s]
        for conn in late:
            try:
                # Wakes the thread that reads; closing the socket is left to it.
                conn.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                log.debug("a peer that was too slow has gone by itself")

    def _await_first_byte(self, conn: Any) -> None:
        conn.sock.setblocking(False)
        conn.set_timeout()
        self.pending_conns.append(conn)
        readable = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, readable)

    def _header_is_read(self, conn: Any) -> None:
        with self._lock:
            self._reading_header.pop(conn, None)


class OrderlyWorker(BoundedWorker):
    """BoundedWorker whose threads take turns with what is only read."""

    tpool: TurnTakingExecutor

    def get_thread_pool(self) -> TurnTakingExecutor:
        """Called by gunicorn."""
        return TurnTakingExecutor(self.cfg.threads, AT_ONCE, LONGEST_TURN_S)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """In a thread: answer a request whose header is read."""
        if req.method not in ("GET", "HEAD"):
            # Waits for its body and for the disk.
            self.tpool.give_up_turn()
        return super().handle_request(req, conn)


class StructuredLog(Logger):  # type: ignore[misc]
    """Gunicorn's log as ours, without what clients sent: paths, header fields, bodies."""

    def setup(self, cfg: Any) -> None:
        """Called by gunicorn when it starts."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Gunicorn adds the URI of the request, so its arguments are left out."""
        if msg.startswith("HTTP/2 socket error"):
            return  # a peer that was silent too long, or has gone
        super().exception(msg.replace("%s", "").strip(), **kwargs)


def _tell_address(arbiter: Any) -> None:
    host, port = arbiter.LISTENERS[0].sock.getsockname()[:2]
    log.info("listening", extra={"host": host, "port": port})


def _create_app() -> WSGIApplication:
    from shared import bootstrap
    from shared.identity.settings import IdentitySettings
    from shared.web.wsgi import create_app

    return create_app(bootstrap.from_environment(), IdentitySettings.read())


if __name__ == "__main__":
    main()
