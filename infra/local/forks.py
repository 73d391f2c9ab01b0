"""The process that the parts are forked from (`python -m infra.local.forks`), and its client.

Most of a part's memory and of its start is the modules that it imports. They are imported once,
here, before there is a thread, a connection or an open database. Each part is a fork that shares
their pages, and is at work within milliseconds, also when it is started again.

One may be killed like any part: those that it forked end with it, and another takes its place.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO

from infra.local.part import PARTS, Part, become

_ROOT = Path(__file__).resolve().parents[2]

# A server that does not answer for so long hangs.
_ANSWERS_WITHIN_S = 60.0
_ENDS_WITHIN_S = 5.0

# What parts import once they run, besides their own modules.
_IMPORTED_LATER = ("shared.web.wsgi",)


class NotForkedError(Exception):
    """The machine has no room for another process now."""


class ForkServerLostError(NotForkedError):
    """The server has ended, or hangs; its processes are being killed."""


class ForkedProcess:
    """A process that the server forked."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server, self.pid = server, pid
        self.status: int | None = None  # as poll, and as old as the last one of any process

    def poll(self) -> int | None:
        """As subprocess.Popen.poll: None while it runs, -N if signal N ended it."""
        if self.status is None:
            self._server.take_in()
        return self.status

    def send_signal(self, number: signal.Signals, *, to_all: bool = False) -> None:
        """Send to the process if it runs, or `to_all` of the group that it leads."""
        self._server.send_signal(self.pid, number, to_all=to_all)


class ForkServer:
    """The server, as the supervisor sees it. Used by one thread."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        output: IO[bytes] | None,
        handed_on: Sequence[int],
    ) -> None:
        """Start it, in `environment` and with the descriptors `handed_on`; it is not ready yet."""
        self._channel, theirs = Pipe()
        self._running: dict[int, ForkedProcess] = {}
        self.is_lost = False
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                [sys.executable, "-m", "infra.local.forks", str(theirs.fileno())],
                env={**environment, "PYTHONPATH": str(_ROOT), "PYTHONSAFEPATH": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output or sys.stderr.fileno(),
                stderr=output,
                pass_fds=[theirs.fileno(), *handed_on],
                # Ctrl-C reaches the supervisor alone.
                start_new_session=True,
            )

    def fork(self, part: Part) -> ForkedProcess:
        """A process that has become `part`. Raises: NotForkedError."""
        if self.is_lost:
            raise ForkServerLostError
        try:
            self._channel.send(("fork", part))
            while True:
                if not self._channel.poll(_ANSWERS_WITHIN_S):
                    raise EOFError
                kind, pid, status = self._channel.recv()
                if kind == "not forked":
                    raise NotForkedError
                if kind == "forked":
                    self._running[pid] = process = ForkedProcess(self, pid)
                    return process
                self._running.pop(pid).status = status
        except (EOFError, OSError):
            self._lose()
            raise ForkServerLostError from None

    def take_in(self) -> None:
        """Note of processes that were forked how they have ended."""
        try:
            while not self.is_lost and self._channel.poll():
                _, pid, status = self._channel.recv()
                self._running.pop(pid).status = status
        except (EOFError, OSError):
            self._lose()

    def send_signal(self, pid: int, number: signal.Signals, *, to_all: bool) -> None:
        """Through the server, which knows whether the number is still that process's."""
        if not self.is_lost:
            with suppress(OSError):
                self._channel.send(("signal", (pid, number, to_all)))

    def close(self) -> None:
        """End it, and with it whatever it forked and still runs."""
        self._channel.close()
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._lose()

    def _lose(self) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        self._process.kill()
        self._process.wait()
        while self._running:
            pid, process = self._running.popitem()
            _kill_group(pid)
            process.status = -signal.SIGKILL


def main() -> None:
    """Import, and fork on request until the channel closes; a fork becomes its part."""
    channel = Connection(int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The supervisor decides who ends when.
        signal.signal(number, signal.SIG_IGN)
    for module in (*(part.module for part in PARTS), *_IMPORTED_LATER):
        # One that cannot be imported is for the part to tell, which tries it again.
        with suppress(Exception):
            __import__(module)
    # A collection would write into each object, and so copy the pages.
    gc.collect()
    gc.freeze()
    server = os.getpid()
    part = _serve(channel)
    if part is not None:
        become(part, forked_by=server)


def _serve(channel: Connection) -> Part | None:
    """None at the end; in each fork, the part that it is to become."""
    forked: set[int] = set()
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    with selectors.DefaultSelector() as selector:
        selector.register(woken, selectors.EVENT_READ)
        selector.register(channel, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if woken in ready:
                os.read(woken, 4096)
                _reap(forked, channel)
            if channel.fileno() not in ready:
                continue
            try:
                kind, request = channel.recv()
            except EOFError:
                for pid in forked:
                    _kill_group(pid)
                for pid in forked:
                    os.waitpid(pid, 0)
                return None
            if kind == "signal":
                pid, number, to_all = request
                # The number is that process's until it has been waited for.
                if pid in forked:
                    with suppress(ProcessLookupError, PermissionError):
                        (os.killpg if to_all else os.kill)(pid, number)
                continue
            try:
                pid = os.fork()
            except OSError:
                # What it has forked runs, and is to.
                channel.send(("not forked", 0, None))
                continue
            if pid == 0:
                break
            _lead_a_group(pid)
            forked.add(pid)
            channel.send(("forked", pid, None))
    signal.set_wakeup_fd(-1)
    for end in (woken, wakes):
        os.close(end)
    channel.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    _lead_a_group(0)
    part: Part = request
    return part


def _lead_a_group(pid: int) -> None:
    # One signal is to reach all that it forks in turn. Both sides say so: neither knows who is
    # first, and a process that has ended already has none.
    with suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)


def _reap(forked: set[int], channel: Connection) -> None:
    while forked:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        forked.discard(pid)
        # What it forked must not work beside its successor.
        _kill_group(pid)
        with suppress(OSError):
            channel.send(("ended", pid, os.waitstatus_to_exitcode(status)))


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
