"""What lies in a folder of Part 10 files, kept in a file of SQLite beside it.

The folder is the truth. A folder within it that has changed since it was looked at, as its time of
modification tells, is listed again, and of its files those are read that are new. So whoever puts
files there or takes them away tells nobody.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, cast

from msgspec import Struct

from shared.adapters.embedded.database import Database
from shared.dicom.header import Header, read_header
from shared.dicom.query import (
    PATIENT_ID,
    SERIES_INSTANCE_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    Found,
)
from shared.dicom.showing import shown
from shared.errors import PermanentError, SourceUnavailableError, StorageUnavailableError
from shared.ports import Buffer, ObjectReader

log = logging.getLogger(__name__)

# What each Instance shows without its file being opened: what is mostly asked for.
KEPT: Final = frozenset(
    {
        *(STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID, PATIENT_ID),
        *("00100010", "00100021", "00100030", "00100040", "00101010"),
        *("00080020", "00080030", "00080050", "00080090", "00081030", "00200010"),
        *("00080060", "0008103E", "00080021", "00080031", "00200011", "00180015", "00080080"),
        *("00080016", "00200013", "00080023", "00080033", "00280008", "00280010", "00280011"),
    }
)

_SOP_CLASS_UID, _MODALITY = "00080016", "00080060"
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS folders (path TEXT PRIMARY KEY, seen_ns INTEGER) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS files (
        path TEXT PRIMARY KEY, folder TEXT, version TEXT, patient TEXT, study TEXT, series TEXT,
        instance TEXT, sop_class TEXT, modality TEXT, shown TEXT
    )""",
    "CREATE INDEX IF NOT EXISTS files_of_folders ON files (folder)",
    "CREATE INDEX IF NOT EXISTS files_of_studies ON files (study, series, instance)",
    "CREATE INDEX IF NOT EXISTS files_of_series ON files (series, instance)",
    "CREATE INDEX IF NOT EXISTS files_of_instances ON files (instance)",
    "CREATE INDEX IF NOT EXISTS files_of_patients ON files (patient, study)",
)
_LOOK_EVERY_S: Final = 1.0
_WRITTEN_AT_ONCE: Final = 200
# Times of modification are no finer than this everywhere: what changed just now may change again
# without its time telling.
_SETTLED_NS: Final = 2_000_000_000
_PIECE_BYTES: Final = 1 << 18


class File(Struct, frozen=True):
    """A file of an Instance; `shown` has what of KEPT the Instance has."""

    path: str
    patient: str
    study: str
    series: str
    instance: str
    sop_class: str
    shown: Found


class FolderIndex:
    """The Instances below `root`. Thread-safe; other processes may have the same `path` open.

    Every method raises SourceUnavailableError.
    """

    def __init__(self, name: str, root: Path, path: Path) -> None:
        """`name` is what errors call it."""
        self._name, self._root = name, root
        self._database = Database(path, _SCHEMA)
        self._path = path
        self._refreshing = threading.Lock()
        self._looked_at_s = float("-inf")

    def refresh(self) -> Iterator[None]:
        """Look at what has changed, one step at a time: the first time all files are read."""
        while not self._refreshing.acquire(timeout=0.1):
            yield
        try:
            now_s = time.monotonic()
            if now_s - self._looked_at_s >= _LOOK_EVERY_S:
                yield from self._look()
                self._looked_at_s = now_s
        finally:
            self._refreshing.release()

    def pages(self, column: str, where: str, values: Sequence[str]) -> Iterator[File]:
        """One File for each value of a column but "", in their order."""
        last = ""
        while True:
            rows = self.query(
                f"SELECT MIN(path), patient, study, series, instance, sop_class, shown, {column}"  # noqa: S608
                f" FROM files WHERE instance != '' AND {where} AND {column} > ?"
                f" GROUP BY {column} ORDER BY {column} LIMIT 500",
                [*values, last],
            )
            for path, patient, study, series, instance, sop_class, text, _ in rows:
                yield File(path, patient, study, series, instance, sop_class, json.loads(text))
            if not rows:
                return
            last = rows[-1][-1]

    def query(self, sql: str, values: Sequence[str]) -> list[tuple[Any, ...]]:
        """What a SELECT gives."""
        with _Errors(self._name), self._database.reading() as connection:
            return list(connection.execute(sql, values))

    def path_of(self, study: str, instance: str) -> str | None:
        """The file of an Instance, below the root."""
        sql = "SELECT path FROM files WHERE instance = ? AND study = ? ORDER BY path LIMIT 1"
        rows = self.query(sql, [instance, study])
        return rows[0][0] if rows else None

    def header(self, path: str) -> Header | None:
        """That of a file; None if it is gone or cannot be read."""
        try:
            return self._header(path)
        except OSError:
            return None

    @contextmanager
    def opened(self, path: str) -> Iterator[Iterator[Buffer] | None]:
        """The bytes of a file, to be read in the block; None if it is gone."""
        try:
            file = _Open(self._root / path)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise SourceUnavailableError(self._name, error.strerror or "") from error
        with file:
            yield self._pieces(file)

    def close(self) -> None:
        """Release what is open."""
        self._database.close()

    # ---- inside

    def _header(self, path: str) -> Header | None:
        with _Open(self._root / path) as file:
            try:
                return read_header(cast("ObjectReader", file))
            except PermanentError:
                return None

    def _pieces(self, file: _Open) -> Iterator[Buffer]:
        offset = 0
        with _Errors(self._name):
            while piece := file.read_at(offset, _PIECE_BYTES):
                yield piece
                offset += len(piece)

    def _look(self) -> Iterator[None]:
        with _Errors(self._name):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        known = dict(self.query("SELECT path, seen_ns FROM folders", ()))
        waiting = deque(["", *filter(None, known)])
        done: set[str] = set()
        while waiting:
            folder = waiting.popleft()
            if folder in done:
                continue
            done.add(folder)
            try:
                changed_ns = (self._root / folder).lstat().st_mtime_ns
                if known.get(folder) != changed_ns:
                    waiting.extend((yield from self._list(folder, changed_ns)))
            except (FileNotFoundError, NotADirectoryError):
                if not folder and known:
                    # A volume that is not mounted, say: what was known of it may come again.
                    raise SourceUnavailableError(self._name, "its folder is not there") from None
                self._forget(folder)
            except OSError as error:
                raise SourceUnavailableError(self._name, error.strerror or "") from error
            if len(done) % _WRITTEN_AT_ONCE == 0:
                yield

    def _list(self, folder: str, changed_ns: int) -> Generator[None, None, list[str]]:
        """Look at the files of one folder; the folders in it."""
        is_settled = changed_ns < time.time_ns() - _SETTLED_NS
        sql = "SELECT path, version FROM files WHERE folder = ?"
        gone = dict(self.query(sql, [folder]))
        folders: list[str] = []
        new: list[tuple[str, ...]] = []
        unread = 0
        with os.scandir(self._root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith(".") or not _is_text(path):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_file(follow_symlinks=False):
                    try:
                        stat = entry.stat(follow_symlinks=False)
                        version = f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"
                        if gone.get(path) != version:
                            new.append(self._row(path, folder, version))
                            yield
                    except FileNotFoundError:
                        continue
                    except OSError:
                        unread += 1
                    gone.pop(path, None)
                if len(new) == _WRITTEN_AT_ONCE:
                    self._write(new, [], folder, 0)
                    new = []
        if unread:
            # Not where: names may hold a patient's.
            log.warning("files cannot be read", extra={"store": self._name, "files": unread})
        is_done = is_settled and not unread
        self._write(new, list(gone), folder, changed_ns if is_done else 0, folders)
        return folders

    def _row(self, path: str, folder: str, version: str) -> tuple[str, ...]:
        """What is kept of a file. One that is no Instance has no UID. Raises: OSError."""
        header = self._header(path)
        found = {tag: value for tag in KEPT if header and (value := shown(header, tag))}

        def text(tag: str) -> str:
            values = found[tag]["Value"] if tag in found else []
            value = str(values[0]).strip() if values else ""
            return value.encode("utf-8", "replace").decode()

        named = (PATIENT_ID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID)
        columns = (*named, _SOP_CLASS_UID, _MODALITY)
        return (
            path,
            folder,
            version,
            *map(text, columns),
            json.dumps(found, separators=(",", ":")),
        )

    def _write(
        self,
        new: Sequence[tuple[str, ...]],
        gone: Sequence[str],
        folder: str,
        seen_ns: int,
        folders: Sequence[str] = (),
    ) -> None:
        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in gone])
            connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", new
            )
            connection.execute("INSERT OR REPLACE INTO folders VALUES (?, ?)", (folder, seen_ns))
            # Together: this folder is not listed again for the sake of those in it, by nobody.
            connection.executemany(
                "INSERT OR IGNORE INTO folders VALUES (?, 0)", [(path,) for path in folders]
            )

        self._change(write)

    def _forget(self, folder: str) -> None:
        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM files WHERE folder = ?", (folder,))
            connection.execute("DELETE FROM folders WHERE path = ?", (folder,))

        self._change(write)

    def _change(self, write: Callable[[sqlite3.Connection], None]) -> None:
        with _Errors(self._name):
            # What a power cut undoes is looked at again.
            self._database.write(write, may_be_lost=True)


class _Errors:
    """Turns what goes wrong with the index or the disk into the error of a store."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, tb: object) -> None:
        if isinstance(error, OSError | StorageUnavailableError):
            words = error.strerror if isinstance(error, OSError) else str(error)
            raise SourceUnavailableError(self._name, words or "") from error


class _Open:
    """An open file, with as much of an ObjectReader as reading it takes. Raises: OSError."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        self.name, self.size = "stored", os.fstat(self._file).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._file, length, offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False  # no name that we gave
    return True
