"""How many places of each listener are taken, counted over all processes of the gateway.

The counts lie in memory that the processes share: a row for each process, which it alone writes,
and a column for each listener.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

# Listeners at the same time, those included whose last associations still run.
MAX_LISTENERS = 4096

_COUNT_BYTES = 4


class SharedPlaces:
    """The counts, as the process of `row` sees them. `fd` is inherited by the others."""

    def __init__(self, fd: int, *, row: int, rows: int) -> None:
        self.fd = fd
        self._row, self.rows = row, rows
        # Reading or writing one of them is one access to memory: none is ever seen half written.
        self._counts = memoryview(mmap.mmap(fd, _size(rows))).cast("I")
        self._lock = threading.Lock()

    @classmethod
    def create(cls, rows: int) -> SharedPlaces:
        """New counts, all 0; whoever creates them has no places of its own."""
        fd = os.memfd_create("axiom-places")
        os.ftruncate(fd, _size(rows))
        return cls(fd, row=0, rows=rows)

    @contextmanager
    def others(self, column: int) -> Iterator[int]:
        """How many places of a listener the other processes have; as long as the block runs, none
        of them takes another.
        """
        # The lock of the file is one for all threads of a process, and goes when it dies.
        with self._lock:
            fcntl.lockf(self.fd, fcntl.LOCK_EX)
            try:
                yield sum(self._read(row, column) for row in range(self.rows) if row != self._row)
            finally:
                fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def have(self, column: int, places: int) -> None:
        """Say how many places this process has; more than before only within `others`."""
        self._write(self._row, column, places)

    def free_column(self, taken: Collection[int]) -> int:
        """A column that is not `taken` and in which nobody counts anything.

        Raises: OSError if there is none.
        """
        for column in range(MAX_LISTENERS):
            if column not in taken and not any(self._read(row, column) for row in range(self.rows)):
                return column
        raise OSError(errno.ENFILE, "too many listeners")

    def forget(self, row: int) -> None:
        """The process of that row has ended."""
        for column in range(MAX_LISTENERS):
            self._write(row, column, 0)

    def _read(self, row: int, column: int) -> int:
        return self._counts[row * MAX_LISTENERS + column]

    def _write(self, row: int, column: int, places: int) -> None:
        self._counts[row * MAX_LISTENERS + column] = places


def _size(rows: int) -> int:
    return _COUNT_BYTES * rows * MAX_LISTENERS
