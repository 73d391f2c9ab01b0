"""A part that is killed as it starts, and works when it is started again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def main() -> None:
    """Die the first time, then live for a minute."""
    run_dir = Path(os.environ["AXIOM_HOME"]) / "run"
    first_life = run_dir / "first-life"
    if not first_life.exists():
        first_life.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (run_dir / "second-life").touch()
    time.sleep(60)
