"""What runs of ours, each process as its container would: functions as Cloud Run's services, which
start at their first request, and the gateway, which is started again when it ends.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from infra.local.addresses import claim_port
from infra.local.rehearse.emulators import end_group
from infra.local.terminal import CommandFailedError

ROOT = Path(__file__).resolve().parents[3]
LOOPBACK = "127.0.0.1"

_READY_WITHIN_S = 120.0
_ENDED_WITHIN_S = 20.0


class Process:
    """A process that listens, with what it forks."""

    def __init__(
        self, name: str, module: str, port_variable: str, told: Mapping[str, str], folder: Path
    ) -> None:
        """Runs `python -m module`. Its port stays the same however often it is started."""
        self.name, self.log = name, folder / f"{name}.log"
        self.port = claim_port(0, LOOPBACK, name)
        self.environment = {
            **told,
            port_variable: str(self.port),
            "AXIOM_HOME": str(folder / name),
            "PYTHONPATH": str(ROOT),
        }
        self._command = [sys.executable, "-m", module]
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._is_ending = False

    def start(self) -> None:
        """Have it listening; at once if it runs. Raises: CommandFailedError with its log's end."""
        with self._lock:
            if self._is_ending or (self._running is not None and self._running.poll() is None):
                return
            with self.log.open("ab") as log:
                self._running = subprocess.Popen(  # noqa: S603 (the words are ours)
                    self._command,
                    cwd=ROOT,
                    env={**os.environ, **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._wait(self._running)

    def kill(self) -> None:
        """SIGKILL it with all its children, in the middle of whatever it does."""
        running = self._running
        if running is not None:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            deadline_s = time.monotonic() + _READY_WITHIN_S
            while _listens(self.port):  # its children are dying yet
                if time.monotonic() > deadline_s:
                    raise CommandFailedError(f"{self.name} outlives SIGKILL", code="not-killed")
                time.sleep(0.01)

    def end(self) -> float:
        """SIGTERM it as Cloud Run does, for good; how many seconds it took to end."""
        with self._lock:
            self._is_ending = True
            running, self._running = self._running, None
        return end_group(running, _ENDED_WITHIN_S) if running is not None else 0.0

    def cpu_s(self) -> float:
        """CPU time that its processes have used, of those that run."""
        running = self._running
        if running is None:
            return 0.0
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == running.pid:  # its session
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _wait(self, running: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + _READY_WITHIN_S
        while running.poll() is None and time.monotonic() < deadline_s:
            if _listens(self.port):
                return
            time.sleep(0.02)
        end = self.log.read_text(errors="replace")[-1500:]
        raise CommandFailedError(f"{self.name} does not listen:\n{end}", code="not-ready")


class Service:
    """A function behind Cloud Run: a request that comes while no instance runs starts one, and
    waits for it.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        # So many of the next requests find no instance, as where Cloud Run has no room for one.
        self.turns_away = 0

    @property
    def url(self) -> str:
        """Where it answers, once it was started."""
        return f"http://{LOOPBACK}:{self.process.port}"

    def post(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> int:
        """Call it; 503 if the instance ended before it answered, 504 if it did not in time."""
        if self.turns_away:
            self.turns_away -= 1
            return 429
        try:
            self.process.start()
        except CommandFailedError:
            return 503
        connection = http.client.HTTPConnection(LOOPBACK, self.process.port, timeout=timeout_s)
        try:
            connection.request("POST", "/", body, dict(headers))
            answer = connection.getresponse()
            answer.read()
        except TimeoutError:
            return 504
        except (OSError, http.client.HTTPException):
            return 503
        finally:
            connection.close()
        return answer.status


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection((LOOPBACK, port), 1):
        return True
    return False
