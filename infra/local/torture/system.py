"""The system that is tortured: one `axiom up` of its own, started again and again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

from infra.local import heartbeat
from infra.local.addresses import claim_port
from infra.local.part import process_name
from infra.local.terminal import CommandFailedError
from shared.adapters.embedded import clock
from shared.crash_points import VARIABLE

AE_TITLE = "AXIOM"

_API_KEY = "torture-key-0123456789abcdef"
_ROOT = Path(__file__).resolve().parents[3]
_HOST = "127.0.0.1"
_UP_WITHIN_S = 90.0
_REQUEST_TIMEOUT_S = 10.0


class System:
    """`axiom up` over `home`, on the same ports each time. Used from one thread, `url` and the
    ports from any.
    """

    def __init__(self, home: Path, log: Path) -> None:
        self.home, self.log = home, log
        self.dimse_port = claim_port(0, _HOST, "AXIOM_DIMSE")
        self.http_port = claim_port(0, _HOST, "AXIOM_HTTP")
        self.host = _HOST
        self.kills = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The root of the HTTP side."""
        return f"http://{self.host}:{self.http_port}"

    @property
    def headers(self) -> Mapping[str, str]:
        """What makes a request the administrator's."""
        return {"Authorization": f"Api-Key {_API_KEY}"}

    @property
    def runs(self) -> bool:
        """True while the supervisor's process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self, crash_points: str = "", *, jumps_s: float = 0, attempts: int = 20) -> None:
        """Start it and wait until it says that it is up; its wall clock jumps by up to `jumps_s`.

        A start that a crash point ends is tried again. Raises: CommandFailedError.
        """
        told = self.home.parent / "up.json"
        for _ in range(attempts):
            with told.open("wb") as output, self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "infra.local.cli", "up", "--json"],
                    cwd=_ROOT,
                    env={
                        **os.environ,
                        "PYTHONPATH": str(_ROOT),
                        "AXIOM_HOME": str(self.home),
                        "AXIOM_HTTP_HOST": self.host,
                        "AXIOM_HTTP_PORT": str(self.http_port),
                        "AXIOM_DIMSE_HOST": self.host,
                        "AXIOM_DIMSE_PORT": str(self.dimse_port),
                        "AXIOM_AE_TITLE": AE_TITLE,
                        "AXIOM_API_KEY": _API_KEY,
                        VARIABLE: crash_points,
                        clock.VARIABLE: str(jumps_s or ""),
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=log,
                    start_new_session=True,
                )
            if self._is_up(told):
                return
            self.stop()
        raise CommandFailedError(
            "axiom up did not start", hint=f"Its own words are in {self.log}.", code="torture"
        )

    def _is_up(self, told: Path) -> bool:
        deadline_s = time.monotonic() + _UP_WITHIN_S
        while self.runs and time.monotonic() < deadline_s:
            if b'"url"' in (document := told.read_bytes()) and document.endswith(b"}\n"):
                return True
            time.sleep(0.05)
        return False

    def stop(self) -> None:
        """As Ctrl-C does."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """SIGKILL the supervisor; its parts have to end by themselves."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self.kills += 1

    def kill_part(self, part: str, *, child: bool = False) -> bool:
        """SIGKILL one part, or what it forked; False if it is not there just now."""
        beat = heartbeat.read(self.home / "run", part)
        if beat is None or not self._is_ours(beat.pid, part):
            return False
        victim = beat.pid
        if child:
            children = _children(victim)
            if not children:
                return False
            victim = children[0]
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            self.kills += 1
            return True
        return False

    def kill_fork_server(self) -> None:
        """SIGKILL what the parts are forked from, which is their end too."""
        supervisor = self._process
        for child in _children(supervisor.pid) if supervisor is not None else []:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
                self.kills += 1

    def crashes(self) -> int:
        """How often a crash point was the end of a process so far."""
        return self.log.read_bytes().count(b"crash point ")

    def request(self, method: str, path: str, **given: Any) -> requests.Response:
        """Raises: requests.RequestException."""
        return requests.request(
            method, self.url + path, headers=self.headers, timeout=_REQUEST_TIMEOUT_S, **given
        )

    def _is_ours(self, pid: int, part: str) -> bool:
        """A sign of life may be that of a process whose number another one has by now."""
        try:
            name = Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False
        return name == process_name(part) and f"AXIOM_HOME={self.home}".encode() in environment


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
