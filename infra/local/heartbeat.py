"""Signs of life: each part writes one small file a second, health reads them.

The time is the system's monotonic clock, which every process of a boot shares and no correction of
the wall clock moves; the pid tells a file that a part left behind when it was killed.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from shared.complaints import complain, complaint

INTERVAL_S = 1.0

# A part that has not written for so long does not work, whatever its process does.
STALE_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Beat:
    """One sign of life. Times are of the monotonic clock."""

    part: str
    pid: int
    started_s: float
    beat_s: float


class Heartbeat:
    """Writes the file of one part from a thread of its own until `stop`."""

    def __init__(self, part: str, run_dir: Path) -> None:
        self._part, self._file = part, _file(run_dir, part)
        self._started_s = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Write the first sign now, and go on."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        complain(self._file.parent, self._part, "")  # of its predecessor
        self._write()
        self._thread.start()

    def stop(self) -> None:
        """Write no more."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            # A full disk is the concern of other checks; the next second tries again.
            with suppress(OSError):
                self._write()

    def _write(self) -> None:
        beat = Beat(self._part, os.getpid(), self._started_s, time.monotonic())
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(beat)), encoding="ascii")
        fresh.replace(self._file)


def read(run_dir: Path, part: str) -> Beat | None:
    """The last sign of life, or None if there is none."""
    try:
        return Beat(**json.loads(_file(run_dir, part).read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError):
        return None


def forget(run_dir: Path, part: str) -> None:
    """Take away the last sign of life of a part that is known to have ended."""
    _file(run_dir, part).unlink(missing_ok=True)


def fault(run_dir: Path, part: str, now_s: float | None = None) -> str | None:
    """None if the part lives, else in a few words what is wrong with it."""
    beat = read(run_dir, part)
    if beat is None:
        return "not running"
    if not _is_alive(beat.pid):
        return f"process {beat.pid} has died"
    age_s = (time.monotonic() if now_s is None else now_s) - beat.beat_s
    if not 0 <= age_s <= STALE_AFTER_S:
        # Below 0: written before the machine started again.
        return "no sign of life" if age_s < 0 else f"no sign of life for {age_s:.0f} s"
    return complaint(run_dir, part) or None


def faults(run_dir: Path, parts: Sequence[str]) -> dict[str, str | None]:
    """`fault` of each part."""
    return {part: fault(run_dir, part) for part in parts}


def _file(run_dir: Path, part: str) -> Path:
    return run_dir / f"{part}.json"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
