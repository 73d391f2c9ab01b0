"""What parts are forked from goes on when the machine has no room for one more process."""

from __future__ import annotations

import errno
import os
import signal
import threading
from multiprocessing.connection import Pipe
from typing import Any

import pytest

from infra.local import forks
from infra.local.forks import ForkServer, NotForkedError
from infra.local.part import PARTS


def server_at(channel: Any) -> ForkServer:
    """A client whose server is at the other end of the channel."""
    server = object.__new__(ForkServer)
    server._channel, server._running, server.is_lost = channel, {}, False
    return server


def test_a_process_is_remembered_while_it_runs_and_knows_how_it_ended() -> None:
    """The launcher starts parts again for as long as it runs, which is years."""
    ours, theirs = Pipe()
    with ours, theirs:
        server = server_at(ours)
        for answer in (("forked", 7, None), ("ended", 7, -9), ("forked", 8, None)):
            theirs.send(answer)
        first, second = (server.fork(part) for part in PARTS[:2])
        assert (first.poll(), second.poll()) == (-9, None)
        theirs.send(("ended", 8, 0))
        assert (first.poll(), second.poll(), second.poll()) == (-9, 0, 0)
        assert server._running == {}


def test_a_machine_without_room_for_a_process_costs_no_other_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever ends the server ends all that it has forked."""

    def refuse() -> int:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(os, "fork", refuse)
    # Those of a process of its own.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(signal, "set_wakeup_fd", lambda _: -1)
    ours, theirs = Pipe()
    serving = threading.Thread(target=forks._serve, args=(theirs,), daemon=True)
    serving.start()
    server = server_at(ours)
    for part in PARTS[:2]:
        with pytest.raises(NotForkedError):
            server.fork(part)
    assert not server.is_lost
    ours.close()
    serving.join(60)
    assert not serving.is_alive()
    theirs.close()
