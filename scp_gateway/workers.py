"""The DIMSE side in several processes, which accept on the same listening sockets.

This process opens the sockets and hands them to its workers; it takes no association itself. A
worker that ends, or gives no sign of life, is started again, which costs the associations that it
had: what they were told Success for is safe. The workers end with this process, however it ends.
"""

from __future__ import annotations

import json
import logging
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from scp_gateway.listeners import Listeners
from scp_gateway.shared_places import SharedPlaces
from shared.adapters.tls import TlsContexts
from shared.config.entities import Listener

log = logging.getLogger(__name__)

# What a worker is told, as JSON; `LISTEN` brings the listening socket along.
LISTEN, CHANGE, CLOSE = "listen", "change", "close"
# What it says once it is ready, and then at least every BEAT_S.
BEAT = b"."
BEAT_S = 1.0

_BACKLOG = 128
_READY_WITHIN_S = 60.0
_TOLD_WITHIN_S = 5.0
# A worker that ends soon after its start is not started again before.
_RESTART_AFTER_S = 5.0
# Counted in looks and not in seconds: where the whole machine stood still nobody is to blame.
_MAX_SILENT_LOOKS = 30
# What a worker may take to end beyond the grace that its associations have.
_END_S = 2.5


class WorkersLostError(Exception):
    """No worker is left, or one could not start: whoever started this process is to try again."""


class Workers(Listeners["SharedListener"]):
    """Has `number` processes receive for the listeners. Used from one thread.

    Raises (when built, and by `look_after`): WorkersLostError.
    """

    def __init__(self, number: int, tls: TlsContexts) -> None:
        super().__init__(self._open)
        self._tls = tls
        self._places = SharedPlaces.create(number + 1)  # the first row is ours
        self._open_listeners: dict[str, SharedListener] = {}
        self._workers = [_Worker(row, self._places) for row in range(1, number + 1)]
        try:
            self._await_ready()
        except BaseException:
            self.stop(0)
            raise

    @property
    def pids(self) -> list[int]:
        """The workers' processes."""
        return [worker.process.pid for worker in self._workers]

    def look_after(self) -> None:
        """Start again what has ended or hangs. To be called every second."""
        for worker in self._workers:
            worker.check()
        if not any(worker.runs for worker in self._workers):
            raise WorkersLostError("no worker is left")
        for worker in self._workers:
            if not worker.runs and time.monotonic() - worker.started_s >= _RESTART_AFTER_S:
                worker.start()
                for listener in self._open_listeners.values():
                    listener.introduce(worker)

    def stop(self, grace_s: float) -> None:
        """As of Gateway, in all workers."""
        for worker in self._workers:
            worker.let_go()
        for listener in self._open_listeners.values():
            listener.forget()
        self._open_listeners.clear()
        self._servers.clear()
        deadline_s = time.monotonic() + grace_s + _END_S
        for worker in self._workers:
            worker.await_end(deadline_s)

    def _open(self, listener: Listener) -> SharedListener:
        if listener.tls is not None:
            self._tls.of(listener.tls, f"listener {listener.name}")  # or nobody could be let in
        taken = {one.column for one in self._open_listeners.values()}
        opened = SharedListener(listener, self._places.free_column(taken), self)
        self._open_listeners[listener.name] = opened
        self.tell_all(opened.introduction, opened.socket)
        return opened

    def _await_ready(self) -> None:
        deadline_s = time.monotonic() + _READY_WITHIN_S
        for worker in self._workers:
            if not worker.await_ready(deadline_s):
                raise WorkersLostError("a worker did not start")

    # ---- for SharedListener

    def tell_all(self, message: dict[str, Any], listening: socket.socket | None = None) -> None:
        """Tell every worker that runs."""
        for worker in self._workers:
            if worker.runs:
                worker.tell(message, listening)

    def closed(self, listener: SharedListener) -> None:
        """It is not to be introduced to workers any more."""
        if self._open_listeners.get(listener.listener.name) is listener:
            del self._open_listeners[listener.listener.name]


class SharedListener:
    """One listening socket, on which the workers accept. Raises (when built): OSError."""

    def __init__(self, listener: Listener, column: int, workers: Workers) -> None:
        self._listener, self.column, self._workers = listener, column, workers
        family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
        self.socket = socket.create_server(
            (listener.host, listener.port), family=family, backlog=_BACKLOG
        )

    @property
    def listener(self) -> Listener:
        """Its settings."""
        return self._listener

    @listener.setter
    def listener(self, listener: Listener) -> None:
        self._listener = listener
        self._workers.tell_all({"do": CHANGE, "listener": listener.model_dump(mode="json")})

    @property
    def port(self) -> int:
        """As of Server."""
        return int(self.socket.getsockname()[1])

    @property
    def introduction(self) -> dict[str, Any]:
        """What tells a worker to accept on it."""
        listener = self._listener.model_dump(mode="json")
        return {"do": LISTEN, "listener": listener, "column": self.column}

    def introduce(self, worker: _Worker) -> None:
        """Have a new worker accept too."""
        worker.tell(self.introduction, self.socket)

    def close(self) -> None:
        """As of Server; the workers let their associations end as ours would."""
        self._workers.closed(self)
        self._workers.tell_all({"do": CLOSE, "name": self._listener.name})
        self.forget()

    def stop_associations(self, grace_s: float) -> None:
        """They are the workers', which see to it when they close."""

    def forget(self) -> None:
        """Close this process's end."""
        self.socket.close()


class _Worker:
    """One process, its successors included, and the connection over which it is told things."""

    process: subprocess.Popen[bytes]

    def __init__(self, row: int, places: SharedPlaces) -> None:
        self._row, self._places = row, places
        self.start()

    def start(self) -> None:
        """Start the process; what its predecessor had is free."""
        self._places.forget(self._row)
        # A message is a datagram with its descriptor; without the other end it is at its end.
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            self._control.setblocking(False)
            fds = theirs.fileno(), self._places.fd
            self.process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                [
                    *(sys.executable, "-m", "scp_gateway.worker"),
                    *map(str, (*fds, self._row, self._places.rows)),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
            )
        self.started_s = time.monotonic()
        self.runs = True
        self._silent_looks = 0

    def await_ready(self, deadline_s: float) -> bool:
        """False if it ended instead, or it is too late."""
        waits_s = max(deadline_s - time.monotonic(), 0)
        readable, _, _ = select.select([self._control], [], [], waits_s)
        return bool(readable) and self._has_beaten()

    def check(self) -> None:
        """Find out whether it still runs, and kill it if it hangs."""
        if not self.runs:
            return
        self._silent_looks = 0 if self._has_beaten() else self._silent_looks + 1
        if self._silent_looks >= _MAX_SILENT_LOOKS:
            self.process.kill()
            self.process.wait()
        status = self.process.poll()
        if status is not None:
            self._ended()
            log.error("a worker ended", extra={"worker": self._row, "status": status})

    def tell(self, message: dict[str, Any], listening: socket.socket | None) -> None:
        """Send a message; a worker that takes none is killed, and started again in time."""
        fds = [listening.fileno()] if listening is not None else []
        try:
            # An OSError if there is still no room after that.
            select.select([], [self._control], [], _TOLD_WITHIN_S)
            socket.send_fds(self._control, [json.dumps(message).encode()], fds)
        except OSError as error:
            log.error("a worker cannot be told", extra={"worker": self._row, "errno": error.errno})
            self.process.kill()

    def let_go(self) -> None:
        """Have it end by itself."""
        self._control.close()

    def await_end(self, deadline_s: float) -> None:
        """Kill it if it has not ended by then."""
        try:
            self.process.wait(max(deadline_s - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def _has_beaten(self) -> bool:
        has_beaten = False
        with suppress(OSError):
            while self._control.recv(len(BEAT)):
                has_beaten = True
        return has_beaten

    def _ended(self) -> None:
        self.runs = False
        self._control.close()
        self._places.forget(self._row)
