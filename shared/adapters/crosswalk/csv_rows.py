"""Rows of a CSV file, read whole and again whenever the file has changed."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shared.adapters.crosswalk.rows import Index, Keys, Outputs, keys_of
from shared.config.crosswalks import CrosswalkMap, CsvSource
from shared.errors import CrosswalkMisconfiguredError, CrosswalkUnavailableError
from shared.ports import Clock

MAX_FILE_BYTES: Final = 256 << 20
_LOOK_EVERY_S: Final = 1.0

_Signature = tuple[int, int, int]


class CsvRows:
    """Rows for one map over one file; a changed file counts within a second.

    A file that is wrong anywhere answers nothing: a row that has slipped by one column would give
    one patient another's identity.
    """

    def __init__(self, entity: CrosswalkMap, source: CsvSource, folder: Path, clock: Clock) -> None:
        self._entity, self._source, self._clock = entity, source, clock
        self._path = folder / source.path
        self._lock = threading.Lock()
        self._index = Index(entity.name)
        self._signature: _Signature | None = None
        self._looked_at_s = float("-inf")

    def find(self, keys: Keys) -> Outputs | None:
        """As `Rows.find`."""
        return self._current().find(keys)

    def all_rows(self) -> Iterator[tuple[int, Outputs]]:
        """Every row that has its keys, whether others have them too or not, with the line of the
        file that it ends on.

        Raises: CrosswalkUnavailableError, CrosswalkMisconfiguredError.
        """
        with self._told():
            for line, _, outputs in self._read():
                yield line, outputs

    def _current(self) -> Index:
        with self._lock:
            now_s = self._clock.monotonic_s()
            if now_s - self._looked_at_s < _LOOK_EVERY_S:
                return self._index
            with self._told():
                found = self._path.stat()
                signature = (found.st_mtime_ns, found.st_size, found.st_ino)
                if signature != self._signature:
                    rows = ((keys, outputs) for _, keys, outputs in self._read())
                    index = Index(self._entity.name, rows)
                    self._index, self._signature = index, signature
            self._looked_at_s = now_s
            return self._index

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CrosswalkUnavailableError(
                self._entity.name, f"its file cannot be read: {error.strerror}"
            ) from None

    def _read(self) -> Iterator[tuple[int, Keys, Outputs]]:
        if self._path.stat().st_size > MAX_FILE_BYTES:
            raise self._wrong(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
        # A byte order mark, which spreadsheets write, is not part of the first column's name.
        encoding = "utf-8-sig" if self._source.encoding == "utf-8" else self._source.encoding
        line = 0
        try:
            with self._path.open(encoding=encoding, newline="") as file:
                reader = csv.reader(file, delimiter=self._source.delimiter, strict=True)
                header = next(reader, [])
                matched = [self._place(header, match.column) for match in self._entity.match]
                given = [self._place(header, output.column) for output in self._entity.outputs]
                for row in reader:
                    line = reader.line_num
                    if not row:
                        continue
                    if len(row) != len(header):
                        reason = f"line {line} has {len(row)} fields, the header {len(header)}"
                        raise self._wrong(reason)
                    keys = keys_of(self._entity, [row[place] for place in matched])
                    if keys is not None:
                        yield line, keys, tuple(row[place] or None for place in given)
        except UnicodeError:
            raise self._wrong(f"the file is not {self._source.encoding}") from None
        except csv.Error:
            raise self._wrong(f"the file is no CSV after line {line}") from None

    def _place(self, header: Sequence[str], column: str) -> int:
        if header.count(column) != 1:
            times = "no" if column not in header else "more than one"
            raise self._wrong(f"the file's header has {times} column {column!r}")
        return header.index(column)

    def _wrong(self, reason: str) -> CrosswalkMisconfiguredError:
        return CrosswalkMisconfiguredError(self._entity.name, reason)
