"""A part that does not stop when it is told to; for tests of the supervisor."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def main() -> None:
    """Go on for ever."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (Path(os.environ["AXIOM_HOME"]) / "run" / "stubborn").touch()
    while True:
        time.sleep(1)
