"""What was answered for is there after a crash, and nothing half-made is ever seen."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shared.adapters.embedded.clock import SystemClock
from shared.adapters.embedded.database import Database
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.adapters.embedded.object_store import FolderObjectStore
from shared.errors import DocumentExistsError, ObjectMissingError, StorageUnavailableError
from shared.ports import Outgoing


class SystemCalls:
    """The order of the calls that make a file and its name durable, noted as they happen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        for name in ("fdatasync", "fsync", "link", "writev"):
            monkeypatch.setattr(os, name, self._noting(name, getattr(os, name)))

    def _noting(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            self.made.append(name)
            return result

        return noting


class TestObjects:
    """Bytes first, then the name, then the directory."""

    def test_bytes_are_synced_before_the_name_exists_and_that_before_commit_returns(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FolderObjectStore(tmp_path)
        with store.create("a/first") as writer:
            writer.commit()
        calls = SystemCalls(monkeypatch)
        with store.create("a/b") as writer:
            writer.write(b"bytes")
            writer.commit()
        assert calls.made == ["writev", "fdatasync", "link", "fsync"]

    def test_a_new_folder_is_synced_in_each_of_its_parents(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FolderObjectStore(tmp_path)
        calls = SystemCalls(monkeypatch)
        with store.create("2026/11/21/a") as writer:
            writer.commit()
        # Three folders are made; the last sync is that of the name itself.
        assert calls.made == ["fdatasync", "fsync", "fsync", "fsync", "link", "fsync"]

    def test_writers_at_the_same_time_share_the_sync_of_a_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FolderObjectStore(tmp_path)
        with store.create("a/first") as writer:
            writer.commit()
        syncing, release, linked = threading.Event(), threading.Event(), threading.Semaphore(0)
        syncs = 0
        fsync, link = os.fsync, os.link

        def slow_fsync(fd: int) -> None:
            nonlocal syncs
            syncs += 1
            syncing.set()
            assert release.wait(120)
            fsync(fd)

        def noting_link(*arguments: Any, **options: Any) -> None:
            link(*arguments, **options)
            linked.release()

        monkeypatch.setattr(os, "fsync", slow_fsync)
        monkeypatch.setattr(os, "link", noting_link)

        def commit(number: int) -> None:
            with store.create(f"a/{number}") as writer:
                writer.commit()

        with ThreadPoolExecutor(9) as pool:
            first = pool.submit(commit, 0)
            assert syncing.wait(120)
            others = [pool.submit(commit, number) for number in range(1, 9)]
            for _ in range(9):
                assert linked.acquire(timeout=120)
            directory = store._directories["a"]
            while len(directory._syncs._waiting) < 8:
                pass
            release.set()
            for future in (first, *others):
                future.result(10)
        assert syncs == 2

    @pytest.mark.parametrize("failing", ["fdatasync", "link", "fsync"])
    def test_a_failed_commit_leaves_nothing_to_see(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        store = FolderObjectStore(tmp_path)
        with store.create("a/first") as writer:
            writer.commit()

        def fail(*_: Any, **__: Any) -> None:
            raise OSError(errno.EIO, "I/O error")

        with store.create("a/b") as writer:
            writer.write(b"bytes")
            with monkeypatch.context() as broken:
                broken.setattr(os, failing, fail)
                with pytest.raises(StorageUnavailableError):
                    writer.commit()
        with pytest.raises(ObjectMissingError):
            store.open("a/b")
        with store.create("a/b") as writer:
            writer.commit()

    def test_a_full_disk_is_an_outage_not_a_crash(self, tmp_path: Path) -> None:
        store = FolderObjectStore(tmp_path)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with store.create("big") as writer:
                writer.write(bytes(90_000))
                with pytest.raises(StorageUnavailableError):
                    writer.write(bytes(50_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        assert list(store.list()) == []

    def test_the_next_start_sweeps_what_a_killed_process_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """But not what another living process is writing."""
        monkeypatch.setattr(
            "shared.adapters.embedded.object_store._can_link_nameless", lambda *_: False
        )
        store = FolderObjectStore(tmp_path)
        left_over = tmp_path / "~unfinished" / "tmp-left-over"
        left_over.write_bytes(b"half an object")
        with store.create("alive") as writer:
            writer.write(b"whole")
            FolderObjectStore(tmp_path)
            assert not left_over.exists()
            writer.commit()
        assert list(store.list()) == ["alive"]
        assert list((tmp_path / "~unfinished").iterdir()) == []

    def test_stat_reads_the_object_where_no_checksum_was_kept(self, tmp_path: Path) -> None:
        store = FolderObjectStore(tmp_path)
        with store.create("a") as writer:
            writer.write(b"123456789")
            writer.commit()
        with suppress(OSError):  # the file system keeps none: just the case in question
            os.removexattr(tmp_path / "a", "user.crc32c")
        assert store.stat("a").crc32c == 0xE3069283  # the check value of CRC-32C

    def test_a_folder_that_somebody_deleted_is_made_again(self, tmp_path: Path) -> None:
        store = FolderObjectStore(tmp_path)
        for _ in range(2):
            with store.create("a/b/c") as writer:
                writer.commit()
            store.delete("a/b/c")
            (tmp_path / "a/b").rmdir()
            (tmp_path / "a").rmdir()

    def test_that_is_closed_by_another_thread_gives_no_other_bytes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The number of its descriptor may belong to another object the moment it is free."""
        store = FolderObjectStore(tmp_path)
        with store.create("a/b") as writer:
            writer.write(b"bytes")
            writer.commit()
        reader = store.open("a/b")
        closer = threading.Thread(target=reader.close)
        pread = os.pread

        def close_meanwhile(fd: int, length: int, offset: int) -> bytes:
            closer.start()
            closer.join(0.1)
            return pread(fd, length, offset)

        monkeypatch.setattr(os, "pread", close_meanwhile)
        assert reader.read_at(0, 5) == b"bytes"
        closer.join()
        monkeypatch.undo()
        with pytest.raises(StorageUnavailableError):
            reader.read_at(0, 5)


class TestDatabase:
    """Transactions that threads and processes share."""

    def test_is_synced_at_every_commit(self, tmp_path: Path) -> None:
        database = Database(tmp_path / "x.db", ["CREATE TABLE IF NOT EXISTS t (n INTEGER)"])
        with database.reading() as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        modes = database.write(
            lambda connection: connection.execute("PRAGMA synchronous").fetchone()
        )
        assert modes == (2,)
        database.close()

    def test_one_that_fails_does_not_take_the_others_along(self, tmp_path: Path) -> None:
        database = Database(
            tmp_path / "x.db", ["CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)"]
        )

        def insert(connection: sqlite3.Connection, number: int) -> None:
            if number % 3 == 0:
                raise DocumentExistsError("t", str(number))
            connection.execute("INSERT INTO t VALUES (?)", (number,))

        def attempt(number: int) -> bool:
            try:
                database.write(lambda connection: insert(connection, number))
            except DocumentExistsError:
                return False
            return True

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(attempt, range(90)))
        assert won == [number % 3 != 0 for number in range(90)]
        with database.reading() as connection:
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (60,)
        database.close()

    def test_an_unexpected_error_rolls_back_and_the_next_write_works(self, tmp_path: Path) -> None:
        database = Database(tmp_path / "x.db", ["CREATE TABLE IF NOT EXISTS t (n INTEGER)"])

        def insert_then_fail(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO t VALUES (1)")
            raise sqlite3.OperationalError("database or disk is full")

        with pytest.raises(StorageUnavailableError):
            database.write(insert_then_fail)
        database.write(lambda connection: connection.execute("INSERT INTO t VALUES (2)"))
        with database.reading() as connection:
            assert connection.execute("SELECT n FROM t").fetchall() == [(2,)]
        database.close()

    def test_a_foreign_writer_that_never_ends_is_an_outage(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shared.adapters.embedded.database._BUSY_TIMEOUT_MS", 10)
        database = Database(tmp_path / "x.db", ["CREATE TABLE IF NOT EXISTS t (n INTEGER)"])
        database.write(lambda connection: None)
        other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailableError):
            database.write(lambda connection: None)
        other.execute("ROLLBACK")
        database.write(lambda connection: None)
        other.close()
        database.close()

    def test_nobody_else_can_read_it_nor_its_log(self, tmp_path: Path) -> None:
        """Rows hold Values of patients, and the write-ahead log holds rows."""
        database = Database(tmp_path / "x.db", ["CREATE TABLE IF NOT EXISTS t (n INTEGER)"])
        database.write(lambda connection: connection.execute("INSERT INTO t VALUES (1)"))
        modes = {path.name: path.stat().st_mode & 0o077 for path in tmp_path.iterdir()}
        database.close()
        assert {"x.db", "x.db-wal", "x.db-shm"} <= set(modes)
        assert not any(modes.values()), modes

    def test_what_is_no_database_is_an_outage(self, tmp_path: Path) -> None:
        (tmp_path / "x.db").write_bytes(b"no database at all" * 100)
        store = SqliteDocumentStore(tmp_path / "x.db")
        with pytest.raises(StorageUnavailableError):
            store.get("things", "a")
        with pytest.raises(StorageUnavailableError):
            store.put("things", "a", {})

    def test_a_killed_process_does_not_keep_the_turn(self, tmp_path: Path) -> None:
        database = Database(tmp_path / "x.db", ["CREATE TABLE IF NOT EXISTS t (n INTEGER)"])
        database.write(lambda connection: None)
        code = (
            "import fcntl, sys, time\n"
            "file = open(sys.argv[1])\n"
            "fcntl.flock(file, fcntl.LOCK_EX)\n"
            "print('held', flush=True)\n"
            "time.sleep(60)\n"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "x.db-turn")], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == b"held\n"
            with open(tmp_path / "x.db-turn") as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            child.kill()
            child.wait()
        database.write(lambda connection: None)
        database.close()


# Stores as fast as it can from four threads and says what it was promised, one name a line.
_WRITER = """
import sys, threading
from pathlib import Path
from shared.adapters.embedded.clock import SystemClock
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.adapters.embedded.object_store import FolderObjectStore
from shared.ports import Outgoing

home, round_ = Path(sys.argv[1]), sys.argv[2]
objects = FolderObjectStore(home / "objects")
documents = SqliteDocumentStore(home / "documents.db")
bus = SqliteMessageBus(home / "queue.db", home / "run", SystemClock())
lock = threading.Lock()

def work(thread):
    number = 0
    while True:
        name = f"{round_}-{thread}-{number}"
        with objects.create(f"received/{name}") as writer:
            writer.write(name.encode(), bytes(20_000))
            writer.commit()
        documents.create("receipts", name, {"name": name})
        bus.publish([Outgoing("received", name.encode() + bytes(5_000))])
        with lock:
            print(name, flush=True)
        number += 1

for thread in range(4):
    threading.Thread(target=work, args=(thread,)).start()
"""


class TestKill:
    """Nothing that was confirmed is missing, however the process ended."""

    @pytest.mark.parametrize("processes", [1, 3])
    def test_everything_confirmed_is_there_after_sigkill(
        self, tmp_path: Path, processes: int
    ) -> None:
        confirmed: list[str] = []
        for round_ in range(4):
            children = [
                subprocess.Popen(
                    [sys.executable, "-c", _WRITER, str(tmp_path), f"{round_}.{number}"],
                    stdout=subprocess.PIPE,
                    cwd=Path(__file__).parents[3],
                    text=True,
                )
                for number in range(processes)
            ]
            for child in children:
                assert child.stdout is not None
                confirmed += [child.stdout.readline().strip() for _ in range(20)]
            for child in children:
                child.kill()
            for child in children:
                output, _ = child.communicate()
                # A last line without its end was cut off while it was printed.
                confirmed += [line.strip() for line in output.splitlines(True) if line[-1] == "\n"]
        assert len(set(confirmed)) == len(confirmed) >= 80 * processes

        objects = FolderObjectStore(tmp_path / "objects")
        documents = SqliteDocumentStore(tmp_path / "documents.db")
        bus = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", SystemClock())
        published = {
            message.data.rstrip(b"\0").decode()
            for message in bus.lease(["received"], limit=1_000_000, lease_s=60)
        }
        assert set(confirmed) <= published
        for name in confirmed:
            with objects.open(f"received/{name}") as reader:
                assert reader.read_at(0, reader.size) == name.encode() + bytes(20_000)
            document = documents.get("receipts", name)
            assert document is not None
            assert document.data == {"name": name}
        assert not list((tmp_path / "objects" / "~unfinished").iterdir())
        bus.publish([Outgoing("received", b"the next")])
        bus.close()
        documents.close()


def test_processes_compare_and_set_without_losing_one(tmp_path: Path) -> None:
    """Three processes count to the same number together."""
    store = SqliteDocumentStore(tmp_path / "documents.db")
    store.create("counters", "n", {"n": 0})
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from shared.adapters.embedded.document_store import SqliteDocumentStore\n"
        "from shared.errors import DocumentChangedError\n"
        "store = SqliteDocumentStore(Path(sys.argv[1]))\n"
        "done = 0\n"
        "while done < 50:\n"
        "    read = store.get('counters', 'n')\n"
        "    try:\n"
        "        store.replace('counters', 'n', {'n': read.data['n'] + 1}, read.version)\n"
        "        done += 1\n"
        "    except DocumentChangedError:\n"
        "        pass\n"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "documents.db")],
            cwd=Path(__file__).parents[3],
        )
        for _ in range(3)
    ]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    read = store.get("counters", "n")
    assert read is not None
    assert read.data == {"n": 150}
    store.close()


class TestWritesThatMayBeLost:
    """A lease or an acknowledgement that a power cut takes is given again: it needs no sync."""

    def test_sync_nothing_unless_something_durable_is_in_the_same_transaction(
        self, tmp_path: Path
    ) -> None:
        database = Database(tmp_path / "some.db", [])
        normal, full = 1, 2  # of PRAGMA synchronous

        def setting(connection: sqlite3.Connection) -> int:
            (value,) = connection.execute("PRAGMA synchronous").fetchone()
            return int(value)

        assert database.write(setting) == full
        assert database.write(setting, may_be_lost=True) == normal
        assert database.write(setting) == full
        assert database.write(setting, may_be_lost=True) == normal
        database.close()
        assert database.write(setting) == full

    def test_are_seen_by_others_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "some.db"
        database = Database(path, ["CREATE TABLE IF NOT EXISTS numbers (number INTEGER)"])
        database.write(
            lambda connection: connection.execute("INSERT INTO numbers VALUES (7)"),
            may_be_lost=True,
        )
        with Database(path, []).reading() as other:
            assert other.execute("SELECT number FROM numbers").fetchall() == [(7,)]
