"""The queue's own time, which a correction of the wall clock does not move.

A wall clock that is set back by an hour would else keep all that waits for an hour, and one that is
set forward would end every lease and spend every retry budget at once.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from threading import Lock

from shared.adapters.embedded.database import Database
from shared.ports import Clock

SCHEMA = (
    # What to add to the monotonic clock of a boot, the same for all its processes.
    "CREATE TABLE IF NOT EXISTS queue_time (boot TEXT PRIMARY KEY, offset_ms INTEGER NOT NULL)",
)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class QueueTime:
    """Milliseconds that run with the monotonic clock: the wall clock's when the machine started to
    use the queue, or later ones if the queue knows of later ones already.

    All processes of one boot agree on it, as Linux gives them one monotonic clock. Where the boot
    has no name each process goes by the wall clock at its own start.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._lock = Lock()
        self._offset_ms: int | None = None

    def now_ms(self) -> int:
        """Raises: StorageUnavailableError, the first time alone."""
        with self._lock:
            if self._offset_ms is None:
                self._offset_ms = self._agreed_offset_ms()
            return self._offset_ms + self._monotonic_ms()

    def _agreed_offset_ms(self) -> int:
        wall_ms = round(self._clock.now().timestamp() * 1000)
        boot = _boot()
        if not boot:
            return wall_ms - self._monotonic_ms()
        with self._database.reading() as connection:
            known = _offset_of(connection, boot)
        if known is not None:
            return known

        def agree(connection: sqlite3.Connection) -> int:
            newest = connection.execute(
                "SELECT published_ms FROM messages ORDER BY id DESC LIMIT 1"
            ).fetchone()
            start_ms = max(wall_ms, newest[0] if newest else 0)
            connection.execute("DELETE FROM queue_time WHERE boot != ?", (boot,))
            connection.execute(
                "INSERT OR IGNORE INTO queue_time VALUES (?, ?)",
                (boot, start_ms - self._monotonic_ms()),
            )
            found = _offset_of(connection, boot)
            assert found is not None
            return found

        return self._database.write(agree)

    def _monotonic_ms(self) -> int:
        return round(self._clock.monotonic_s() * 1000)


def _boot() -> str:
    with suppress(OSError):
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return ""


def _offset_of(connection: sqlite3.Connection, boot: str) -> int | None:
    row = connection.execute("SELECT offset_ms FROM queue_time WHERE boot = ?", (boot,)).fetchone()
    return None if row is None else int(row[0])
