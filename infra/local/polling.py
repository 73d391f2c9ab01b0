"""The `polling` process: sources that are asked, on a timer."""

from __future__ import annotations

import logging
import os
import signal
import threading

from functions.poll_sources.main import poll_sources
from infra.local.timer import calling
from shared import bootstrap, exporting, logs
from shared.pipeline import source_states


def main() -> None:
    """Poll until SIGTERM or SIGINT; what is under way is then ended between two Instances."""
    logs.configure("polling")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # The handler runs in this thread, which waits for the event and holds its lock by turns.
        signal.signal(number, lambda *_: threading.Thread(target=stopped.set).start())
    # One machine has one poller: leases that there are belong to one that has ended.
    source_states.release_all(bootstrap.from_environment().documents)
    with calling(poll_sources):
        stopped.wait()
    exporting.close()
    logging.shutdown()
    # What a source has under way must not hold the process up; what came of it by now is kept.
    os._exit(0)
