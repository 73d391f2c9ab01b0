"""What parts are forked from goes on when the machine has no room for one more process."""

from __future__ import annotations

import errno
import os
import signal
import threading
from multiprocessing.connection import Pipe

import pytest

from infra.local import forks
from infra.local.forks import ForkServer, NotForkedError
from infra.local.part import PARTS


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
    server = object.__new__(ForkServer)
    server._channel, server._statuses, server.is_lost = ours, {}, False
    for part in PARTS[:2]:
        with pytest.raises(NotForkedError):
            server.fork(part)
    assert not server.is_lost
    ours.close()
    serving.join(60)
    assert not serving.is_alive()
    theirs.close()
