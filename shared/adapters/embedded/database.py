"""A SQLite file that several processes write to, with one fsync for all who commit together."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from shared.adapters.embedded.directories import sync_directory
from shared.adapters.embedded.group_commit import GroupCommit
from shared.errors import AxiomError, StorageUnavailableError

T = TypeVar("T")

_BUSY_TIMEOUT_MS = 10_000
# Readers that are kept open for the next read; more are opened when needed and closed again.
_IDLE_READERS = 8
# 16 MiB of changes before they are copied into the main file: a page that changes all the time (an
# index's, say) is then copied once for many transactions.
_CHECKPOINT_PAGES = 4096
# What a burst made of the write-ahead log is given back to the file system above this.
_KEPT_LOG_BYTES = 64 * 1024 * 1024


class Database:
    """One file in WAL mode: what `write` returned is on disk, unless it was said to need not.

    Connections are opened on first use, so that a process may fork before it. The statements of
    `schema` run whenever the file is opened: each says IF NOT EXISTS.
    """

    def __init__(self, path: Path, schema: Sequence[str]) -> None:
        self._path, self._schema = path, schema
        self._lock = Lock()
        self._idle: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection | None = None
        self._turn_fd = -1
        self._syncs = True  # as the writer is set now
        self._is_ready = False
        self._commits = GroupCommit(self._commit)

    def write(
        self, operation: Callable[[sqlite3.Connection], T], *, may_be_lost: bool = False
    ) -> T:
        """Run `operation` in a transaction that it may share with those of other threads.

        Returns its result once that is durable. With `may_be_lost` a power cut, and nothing less,
        may undo it, with all that was so written since something durable was: that costs no fsync
        of its own, and every process sees it at once all the same. It may raise an AxiomError only
        before it wrote anything; any other error rolls back the whole transaction, for the others
        too.
        Raises: StorageUnavailableError.
        """
        job = _Write(operation, may_be_lost)
        try:
            self._commits.submit(job)
        except (sqlite3.Error, OSError) as error:
            raise StorageUnavailableError(f"{self._path.name}: {error}") from error
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def write_each(
        self, operations: Sequence[Callable[[sqlite3.Connection], object]]
    ) -> list[AxiomError | None]:
        """Run all in one durable transaction, each as a whole or not at all: what each raised.

        An AxiomError undoes the operation that raised it, whatever it wrote before; any other error
        all of them. Raises: StorageUnavailableError.
        """

        def run(connection: sqlite3.Connection) -> list[AxiomError | None]:
            return [_attempt(operation, connection) for operation in operations]

        return self.write(run)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with, alone; sees all that was committed before.

        Raises: StorageUnavailableError for every error of SQLite in the block.
        """
        try:
            with self._lock:
                if not self._is_ready:
                    self._prepare()
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self._open()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise StorageUnavailableError(f"{self._path.name}: {error}") from error
        with self._lock:
            if len(self._idle) < _IDLE_READERS:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle; a later use opens it again."""
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            if self._turn_fd >= 0:
                os.close(self._turn_fd)
                self._turn_fd = -1

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            isolation_level=None,  # transactions begin where this module says so
            check_same_thread=False,  # one thread at a time uses it
            cached_statements=256,
        )
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_KEPT_LOG_BYTES}")
        # Deleted rows are overwritten where that costs no write of its own.
        connection.execute("PRAGMA secure_delete = FAST")
        return connection

    def _prepare(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._turn_fd < 0:
            self._turn_fd = os.open(
                self._path.with_name(f"{self._path.name}-turn"), os.O_RDWR | os.O_CREAT, 0o600
            )
        with self._turn():
            # SQLite gives its log the mode of the file, which therefore comes first. A file that is
            # there is not opened for this: closing it would drop SQLite's own locks.
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            os.chmod(self._path, 0o600)
            connection = self._open()
            try:
                # Only one process at a time can change the journal mode.
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
                if mode != "wal":
                    raise sqlite3.OperationalError("the file system does not allow WAL mode")
                for statement in self._schema:
                    connection.execute(statement)
                sync_directory(self._path.parent)
            except BaseException:
                connection.close()
                raise
        if self._writer is not None:
            self._writer.close()
        self._writer, self._syncs = connection, True
        self._is_ready = True

    def _commit(self, jobs: Sequence[_Write]) -> None:
        with self._lock:
            if self._writer is None or self._turn_fd < 0:
                self._prepare()
            connection = self._writer
        assert connection is not None
        fcntl.flock(self._turn_fd, fcntl.LOCK_EX)
        try:
            try:
                self._sync_at_commit(connection, not all(job.may_be_lost for job in jobs))
                connection.execute("BEGIN IMMEDIATE")
                for job in jobs:
                    try:
                        job.result = job.operation(connection)
                    except AxiomError as error:
                        job.error = error
                connection.execute("COMMIT")
            except BaseException:
                # Closing rolls back, whatever state the connection is in.
                connection.close()
                self._writer = None
                raise
        finally:
            fcntl.flock(self._turn_fd, fcntl.LOCK_UN)

    def _sync_at_commit(self, connection: sqlite3.Connection, syncs: bool) -> None:
        # In WAL mode NORMAL leaves out the fsync of a commit; the next FULL one syncs both.
        if syncs != self._syncs:
            connection.execute(f"PRAGMA synchronous = {'FULL' if syncs else 'NORMAL'}")
            self._syncs = syncs

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for this process's turn to write.

        SQLite alone has the processes poll for its lock with growing sleeps, and one that is late
        starves for half a second; the kernel wakes the next one at once, and lets go of the lock
        when a process dies.
        """
        fcntl.flock(self._turn_fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._turn_fd, fcntl.LOCK_UN)


def _attempt(
    operation: Callable[[sqlite3.Connection], object], connection: sqlite3.Connection
) -> AxiomError | None:
    raised = None
    connection.execute("SAVEPOINT attempt")
    try:
        operation(connection)
    except AxiomError as error:
        raised = error
        connection.execute("ROLLBACK TO attempt")
    connection.execute("RELEASE attempt")
    return raised


class _Write:
    """An operation and what became of it."""

    __slots__ = ("error", "may_be_lost", "operation", "result")

    def __init__(self, operation: Callable[[sqlite3.Connection], Any], may_be_lost: bool) -> None:
        self.operation, self.may_be_lost = operation, may_be_lost
        self.result: Any = None
        self.error: AxiomError | None = None
