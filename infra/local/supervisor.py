"""Runs the parts of the system as child processes, as long as it lives itself.

It keeps nothing that matters: what was acknowledged is durable in AXIOM_HOME, so that any process,
this one included, may be killed at any time and started again.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING

from infra.local import heartbeat
from infra.local.addresses import Addresses, addresses_file, claim_port, reachable
from infra.local.forks import ForkedProcess, ForkServer, NotForkedError
from infra.local.part import LIFELINE_VARIABLE, PARTS_VARIABLE, Part, parts_with
from infra.local.terminal import CommandFailedError

if TYPE_CHECKING:
    from shared.environment import Environment

READY_WITHIN_S = 60.0

# All parts together; what has not ended by then is killed, which loses nothing.
STOP_WITHIN_S = 10.0

_POLL_S = 0.05
# How often the parts' signs of life are looked at.
_LOOK_EVERY_S = 1.0
# A part without a sign of life for so long is looked at for so long more, and ended.
_HUNG_AFTER_S = 60.0
_HUNG_FOR_CERTAIN_AFTER_S = 5.0
_FIRST_RESTART_AFTER_S = 0.2
_LAST_RESTART_AFTER_S = 30.0
# A part that ran for so long was well, and is restarted without delay again: what ended it, the
# kernel short of memory say, is not to keep it away for longer and longer.
_SETTLED_AFTER_S = 5.0


class _Child:
    """One part's process, its successors included."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.process: ForkedProcess | None = None
        self.started_s = 0.0
        self.restart_at_s: float | None = None
        self.silent_since_s: float | None = None
        self.restart_after_s = _FIRST_RESTART_AFTER_S

    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL to the process and all that it forked."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL, to_all=True)


class Supervisor:
    """The system of one AXIOM_HOME. Used by one thread.

    `output` takes what the parts print; None leaves them our own standard error. `tell` gets one
    line for each event that a person should know of. `parts` are the environment's unless given.
    """

    def __init__(
        self,
        environment: Environment,
        *,
        output: IO[bytes] | None = None,
        tell: Callable[[str], None] = lambda _: None,
        parts: Sequence[Part] | None = None,
    ) -> None:
        self._environment, self._output, self._tell = environment, output, tell
        self._home = environment.home
        parts = parts_with(environment.stage_processes) if parts is None else parts
        self._children = {part.name: _Child(part) for part in parts}
        self._lock_file: IO[str] | None = None
        self._lifeline: tuple[int, int] | None = None
        self._addresses: Addresses | None = None
        self._forks: ForkServer | None = None
        self._looked_at_s = float("-inf")

    @property
    def addresses(self) -> Addresses:
        """Where the system listens; known once `start` returned."""
        assert self._addresses is not None
        return self._addresses

    def pid(self, part: str) -> int | None:
        """The process of a part; None while there is none."""
        process = self._children[part].process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start every part; they are not ready yet.

        Raises: CommandFailedError if the home is in use, or a port, or cannot be had.
        """
        self._lock_home()
        try:
            settings = self._environment
            self._addresses = Addresses(
                home=str(self._home),
                pid=os.getpid(),
                http_host=settings.http_host,
                http_port=claim_port(settings.http_port, settings.http_host, "AXIOM_HTTP"),
                dimse_host=settings.dimse_host,
                dimse_port=claim_port(settings.dimse_port, settings.dimse_host, "AXIOM_DIMSE"),
                ae_title=settings.ae_title,
                parts=tuple(self._children),
            )
            if self.addresses.http_port == self.addresses.dimse_port:
                raise CommandFailedError(
                    f"AXIOM_HTTP_PORT and AXIOM_DIMSE_PORT are both {self.addresses.http_port}",
                    code="bad-setting",
                )
            self._lifeline = os.pipe()
            for child in self._children.values():
                heartbeat.forget(self._home / "run", child.part.name)
                self._spawn(child)
            self.addresses.write()
        except BaseException:
            self.stop(within_s=0)
            raise

    def wait_until_ready(self, wanted: Callable[[], bool] = lambda: True) -> None:
        """Return once every part works, or as soon as `wanted` is false.

        A part that a signal ends is started again: of what waits for it, one thing may have been
        too much, and the others are not to be kept down by that. Raises: CommandFailedError if a
        part gives up instead, or takes longer than READY_WITHIN_S.
        """
        deadline_s = time.monotonic() + READY_WITHIN_S
        while wanted():
            for child in self._children.values():
                status = None if child.process is None else child.process.poll()
                if status is not None and status >= 0:
                    raise CommandFailedError(
                        f"{child.part.name} did not start (exit status {status})",
                        hint="Its own words are above, or in the log.",
                        code="part-failed",
                    )
            self.look_after()
            waiting_for = self._not_ready()
            if waiting_for is None:
                return
            if time.monotonic() > deadline_s:
                raise CommandFailedError(
                    f"not ready after {READY_WITHIN_S:.0f} s: {waiting_for}", code="part-failed"
                )
            time.sleep(_POLL_S)

    def run(self, wanted: Callable[[], bool]) -> None:
        """Start again whatever ends, as long as `wanted` is true."""
        while wanted():
            self.look_after()
            time.sleep(_POLL_S)

    def look_after(self) -> None:
        """Start again what has ended, each time a little later if it ends at once."""
        now_s = time.monotonic()
        looks = now_s - self._looked_at_s >= _LOOK_EVERY_S
        if looks:
            self._looked_at_s = now_s
        for child in self._children.values():
            if child.runs():
                if looks:
                    self._end_if_hung(child, now_s)
                continue
            if child.restart_at_s is None:
                if now_s - child.started_s > _SETTLED_AFTER_S:
                    child.restart_after_s = _FIRST_RESTART_AFTER_S
                child.restart_at_s = now_s + child.restart_after_s
                child.restart_after_s = min(2 * child.restart_after_s, _LAST_RESTART_AFTER_S)
                status = child.process.poll() if child.process else None
                self._tell(f"{child.part.name} ended ({_in_words(status)}); starting it again")
            elif now_s >= child.restart_at_s:
                self._spawn(child)

    def _end_if_hung(self, child: _Child, now_s: float) -> None:
        """Kill a part that has shown no sign of life for long: what it held goes to its successor.

        It is looked at for a while before, for the whole machine may have stood still.
        """
        beat = heartbeat.read(self._home / "run", child.part.name)
        is_silent = (
            beat is not None
            and beat.pid == self.pid(child.part.name)
            and now_s - beat.beat_s > _HUNG_AFTER_S
        )
        if not is_silent:
            child.silent_since_s = None
        elif child.silent_since_s is None:
            child.silent_since_s = now_s
        elif now_s - child.silent_since_s > _HUNG_FOR_CERTAIN_AFTER_S:
            self._tell(f"{child.part.name} hangs; ending it")
            child.silent_since_s = None
            child.kill()

    def stop(
        self, *, within_s: float = STOP_WITHIN_S, hurry: Callable[[], bool] = lambda: False
    ) -> None:
        """Stop intake, then the stages, then delivery; kill what is left, or all on `hurry`.

        Twice is once.
        """
        began_s = time.monotonic()
        orders = sorted({child.part.stop_order for child in self._children.values()})
        for position, order in enumerate(orders, start=1):
            group = [c for c in self._children.values() if c.part.stop_order == order]
            for child in group:
                if child.process is not None:
                    child.process.send_signal(signal.SIGTERM)
            # Each group has its share of the time, and what earlier ones left of theirs.
            deadline_s = began_s + within_s * position / len(orders)
            while any(child.runs() for child in group):
                if hurry() or time.monotonic() > deadline_s:
                    break
                time.sleep(_POLL_S)
        self._release()

    def _release(self) -> None:
        if self._forks is not None:
            self._forks.close()
            self._forks = None
        if self._lifeline is not None:
            for end in self._lifeline:
                os.close(end)
            self._lifeline = None
        for child in self._children.values():
            child.process = None
            heartbeat.forget(self._home / "run", child.part.name)
        if self._lock_file is not None:
            addresses_file(self._home).unlink(missing_ok=True)
            self._lock_file.close()
            self._lock_file = None

    def _lock_home(self) -> None:
        run_dir = self._home / "run"
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            # The file stays when the lock goes: a lock on a file that was deleted keeps nobody out.
            lock_file = (run_dir / "supervisor.lock").open("a+")
        except OSError as error:
            raise CommandFailedError(
                f"cannot use {self._home}: {error.strerror}",
                hint="Set AXIOM_HOME to a folder that you may write to.",
                code="bad-setting",
            ) from None
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock_file.seek(0)
            owner = lock_file.read().strip()
            lock_file.close()
            raise CommandFailedError(
                f"{self._home} is in use by a running Axiom Flow (process {owner})",
                hint="Stop that one, or set AXIOM_HOME to another folder.",
                code="home-in-use",
            ) from None
        lock_file.truncate(0)
        lock_file.write(f"{os.getpid()}\n")
        lock_file.flush()
        self._lock_file = lock_file

    def _spawn(self, child: _Child) -> None:
        assert self._lifeline is not None
        if self._forks is None or self._forks.is_lost:
            self._forks = ForkServer(
                self._child_environment(), output=self._output, handed_on=[self._lifeline[0]]
            )
        try:
            child.process = self._forks.fork(child.part)
        except NotForkedError:
            child.process = None
        child.started_s, child.restart_at_s = time.monotonic(), None

    def _child_environment(self) -> dict[str, str]:
        assert self._lifeline is not None
        addresses = self.addresses
        return {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "AXIOM_HOME": addresses.home,
            "AXIOM_HTTP_HOST": addresses.http_host,
            "AXIOM_HTTP_PORT": str(addresses.http_port),
            "AXIOM_DIMSE_HOST": addresses.dimse_host,
            "AXIOM_DIMSE_PORT": str(addresses.dimse_port),
            "AXIOM_AE_TITLE": addresses.ae_title,
            "AXIOM_API_KEY": self._environment.api_key or "",
            PARTS_VARIABLE: " ".join(self._children),
            LIFELINE_VARIABLE: str(self._lifeline[0]),
        }

    def _not_ready(self) -> str | None:
        for child in self._children.values():
            beat = heartbeat.read(self._home / "run", child.part.name)
            if beat is None or child.process is None or beat.pid != child.process.pid:
                return f"{child.part.name} has not begun"
        addresses = self.addresses
        if "gateway" in self._children and not _listens(
            reachable(addresses.dimse_host), addresses.dimse_port
        ):
            return "gateway does not listen"
        return _unhealthy(reachable(addresses.http_host), addresses.http_port)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _unhealthy(host: str, port: int) -> str | None:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return "http does not answer"
    finally:
        connection.close()
    return None if status == 200 else f"GET /ready says {status}"


def _in_words(status: int | None) -> str:
    if status is None:
        return "it could not be started"
    if status < 0:
        return signal.Signals(-status).name
    return f"exit status {status}"
