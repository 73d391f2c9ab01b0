"""The real system as a stranger starts it: `./axiom up` in a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import requests

ROOT = Path(__file__).resolve().parents[1]
API_KEY = "end-to-end-test-key-0123456789abcdef"


# A machine that is busy with other tests may take so long for what is done in a second.
_PATIENCE_S = 120.0

# A process may go by a configuration that it read half a second ago.
_IN_FORCE_AFTER_S = 0.6


class NotInTimeError(AssertionError):
    """What was waited for did not come."""


def wait_until(
    claim: Callable[[], Any], within_s: float = 30.0, what: str = "it", every_s: float = 0.1
) -> Any:
    """The first true value of `claim`; a deadline is a guard against hanging, not a claim."""
    within_s = max(within_s, _PATIENCE_S)
    deadline = time.monotonic() + within_s
    while True:
        if found := claim():
            return found
        if time.monotonic() > deadline:
            raise NotInTimeError(f"not within {within_s} s: {what}")
        time.sleep(every_s)


class RunningAxiom:
    """One `./axiom up`. A context manager that stops it as Ctrl-C does."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self._log = home.with_name(home.name + ".log")
        self._settings = {
            "AXIOM_HOME": str(home),
            "AXIOM_HTTP_PORT": "0",
            "AXIOM_DIMSE_PORT": "0",
            "AXIOM_API_KEY": API_KEY,
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._earlier = 0

    def start(self) -> Self:
        """Start it and return once it says that it is up."""
        self.addresses_file.unlink(missing_ok=True)
        self._earlier = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "infra.local.cli", "up"],
                cwd=ROOT,
                env={**os.environ, **self._settings, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_until(self._is_up, 60.0, "axiom up")
        except NotInTimeError:
            self.kill()
            raise NotInTimeError(f"axiom up did not start:\n{self.log()[-4000:]}") from None
        return self

    def stop(self) -> int:
        """Stop it as Ctrl-C does; the exit status."""
        assert self._process is not None
        process, self._process = self._process, None
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        return process.wait(_PATIENCE_S)

    def kill(self) -> None:
        """SIGKILL the supervisor; its parts end by themselves."""
        assert self._process is not None
        process, self._process = self._process, None
        process.kill()
        process.wait()

    def kill_part(self, part: str) -> int:
        """SIGKILL one part; its process id."""
        pid = int(json.loads((self.home / "run" / f"{part}.json").read_text())["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    @property
    def addresses_file(self) -> Path:
        return self.home / "run" / "addresses.json"

    @property
    def addresses(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self.addresses_file.read_text())
        return found

    @property
    def dimse_port(self) -> int:
        return int(self.addresses["dimse_port"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.addresses['http_port']}"

    def log(self) -> str:
        """All that it and its parts printed."""
        return self._log.read_text(errors="replace")

    def request(self, method: str, path: str, **given: Any) -> requests.Response:
        """A request to the API, as the administrator."""
        headers = {"Authorization": f"Api-Key {API_KEY}", **given.pop("headers", {})}
        return requests.request(method, self.url + path, headers=headers, timeout=60, **given)

    def get_all(self, path: str, **query: str) -> list[dict[str, Any]]:
        """All entries of a paged list."""
        entries: list[dict[str, Any]] = []
        while True:
            answer = self.request("GET", path, params={"limit": "500", **query})
            answer.raise_for_status()
            page = answer.json()
            entries += page["items"]
            if not page["next_cursor"]:
                return entries
            query["cursor"] = page["next_cursor"]

    def configure(self, **parts: Any) -> None:
        """Replace parts of the configuration, and return when every process follows it."""
        answer = self.request("PUT", "/api/v1/config", json=parts)
        assert answer.status_code < 300, answer.text
        time.sleep(_IN_FORCE_AFTER_S)

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise NotInTimeError("it ended")
        # It says so once every part is ready.
        return "Axiom Flow is up" in self.log()[self._earlier :] and self.addresses_file.exists()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.stop()
