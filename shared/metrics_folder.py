"""The snapshots of several processes of one machine, a file for each, and what they add up to.

What a process counted stays when it ends, so that counters never run backwards: the next of its
part adds it to the part's past.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.metrics import METRICS, PROCESS, Kind, Snapshot, added

WRITE_EVERY_S = 2.0
_PAST = "past"
# Made once, and never written.
_LOCK = ".lock"


class MetricsFolder:
    """Where the processes of an AXIOM_HOME keep their snapshots."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, part: str) -> None:
        """Have a thread write this process's snapshots from now on."""
        self._fold(part)
        threading.Thread(
            target=self._write_on, args=(part, threading.Event()), name="metrics", daemon=True
        ).start()

    def write(self, part: str) -> None:
        """Write this process's snapshot once. Raises: OSError."""
        self._replace(f"{part}.{os.getpid()}.json", PROCESS.snapshot())

    def total(self) -> Snapshot:
        """What all processes counted, those that have ended included."""
        with self._locked():
            return added([self._read(path) for path in sorted(self._folder.glob("*.json"))])

    def since_ns(self) -> int:
        """Since when is counted what `total` gives, on the wall clock."""
        with self._locked():
            return (self._folder / _LOCK).stat().st_mtime_ns

    def _write_on(self, part: str, never: threading.Event) -> None:
        while True:
            with suppress(OSError):  # a full disk is said elsewhere
                self.write(part)
            never.wait(WRITE_EVERY_S)

    def _fold(self, part: str) -> None:
        """Add what processes of this part left behind to its past."""
        with self._locked():
            past = self._folder / f"{part}.{_PAST}.json"
            ended = [
                path
                for path in self._folder.glob(f"{part}.*.json")
                if path != past and not _runs(path.name.split(".")[-2])
            ]
            if not ended:
                return
            together = added([self._read(path) for path in (past, *ended)])
            # A gauge of a process that has ended says nothing.
            lasting = {n: s for n, s in together.items() if METRICS[n].kind is not Kind.GAUGE}
            self._replace(past.name, lasting)
            for path in ended:
                path.unlink(missing_ok=True)

    def _replace(self, name: str, snapshot: Snapshot) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        beside = self._folder / f".{name}.{os.getpid()}.{threading.get_ident()}"
        beside.write_text(json.dumps(snapshot))
        beside.replace(self._folder / name)

    def _read(self, path: Path) -> Snapshot:
        try:
            found: Snapshot = json.loads(path.read_text())
        except (OSError, ValueError):
            return {}  # it is gone, or its disk was full
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True
