"""Files as a source: those of a folder or a bucket, and what zip archives among them hold.

Names may hold a patient's: nothing of them leaves this module but a digest. Names within archives
are never used as paths.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import IO, Final, Literal, Protocol

from shared.adapters.sources.archives import Archive
from shared.config.sources import Limits
from shared.errors import SourceRefusedError
from shared.pipeline.file_names import is_archive, is_no_instance
from shared.ports import (
    Buffer,
    FoundInstance,
    FoundStudy,
    MoveProgress,
    Retrieval,
    Retrieved,
)

_PIECE_BYTES: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class File:
    """One file; `version` changes with its bytes, `group` names the files beside it."""

    name: str
    group: str
    size: int
    version: str


class Files(Protocol):
    """A place that holds files. Raises SourceUnavailableError and SourceMisconfiguredError."""

    def list(self) -> Iterator[File]:
        """All that are old enough, those of a group one after the other."""

    def open(self, file: File) -> IO[bytes] | None:
        """The file, which can be sought in; None if it is gone or has changed."""

    def delete(self, file: File) -> None:
        """Delete it, unless it has changed."""

    def check(self) -> str:
        """Its answer in short."""

    def close(self) -> None: ...


class FilesReader:
    """SourceReader of files. A group of files, and an archive, each stand for a Study."""

    moves = False
    unit: Literal["study", "series"] = "study"

    def __init__(self, name: str, files: Files, limits: Limits, *, deletes: bool) -> None:
        self._name, self._files, self._limits, self._deletes = name, files, limits, deletes
        # What the search under way has shown, by digest.
        self._groups: dict[str, dict[str, File]] = {}
        self._archives: dict[str, File] = {}

    def search(self, since: datetime | None) -> Iterator[FoundStudy]:
        """As SourceReader; dates do not count."""
        group: str | None = None
        plain: dict[str, File] = {}
        for file in self._files.list():
            if file.group != group:
                yield from self._group(group, plain)
                group, plain = file.group, {}
            path = PurePosixPath(file.name)
            if is_archive(path.name):
                key = _digest("archive", file.name, file.version)
                self._archives[key] = file
                yield FoundStudy(key, signature=file.version)
            elif not is_no_instance(path.name):
                plain[_digest("file", file.name)] = file
        yield from self._group(group, plain)

    def instances(self, study: FoundStudy) -> Iterable[FoundInstance]:
        """As SourceReader."""
        file = self._archives.get(study.uid)
        if file is None:
            return study.instances or ()
        with self._archive(file) as archive:
            if archive is None:
                return ()
            return [
                FoundInstance(f"{study.uid}-{member.path}", version=member.version)
                for member in archive.members()
                if not is_no_instance(member.name)
            ]

    def find(self, keys: Mapping[str, str]) -> Iterator[FoundStudy]:
        """As SourceReader: what files hold is not known before they are read."""
        raise SourceRefusedError(self._name, "files cannot be asked for a Study")

    def retrieve(self, wanted: Retrieval) -> Iterator[Retrieved]:
        """As SourceReader."""
        file = self._archives.get(wanted.study_instance_uid)
        if file is not None:
            yield from self._members(file, wanted)
            return
        files = self._groups.get(wanted.study_instance_uid, {})
        for one in wanted.instances:
            found = files.get(one.uid)
            opened = self._files.open(found) if found is not None else None
            if opened is not None:
                with opened:
                    yield Retrieved(one.uid, _pieces(opened))

    def move(self, wanted: Retrieval) -> Generator[MoveProgress, None, None]:
        """As SourceReader."""
        raise SourceRefusedError(self._name, "files do not send themselves")

    def done(self, study: FoundStudy, instances: Sequence[FoundInstance]) -> bool:
        """As SourceReader."""
        if not self._deletes:
            return False
        file = self._archives.get(study.uid)
        if file is not None:
            if len(instances) < len(list(self.instances(study))):
                return False  # something of it was refused: that is nowhere else
            self._files.delete(file)
            return True
        files = self._groups.get(study.uid, {})
        for one in instances:
            if one.uid in files:
                self._files.delete(files[one.uid])
        return True

    def check(self) -> str:
        """As SourceReader."""
        return self._files.check()

    def close(self) -> None:
        """As SourceReader."""
        self._files.close()

    # ---- inside

    def _group(self, group: str | None, files: dict[str, File]) -> Iterator[FoundStudy]:
        if not files:
            return
        key = _digest("files", group or "")
        self._groups[key] = files
        instances = [FoundInstance(one, version=file.version) for one, file in files.items()]
        yield FoundStudy(key, instances=tuple(instances))

    def _members(self, file: File, wanted: Retrieval) -> Iterator[Retrieved]:
        uids = {one.uid.rpartition("-")[2]: one.uid for one in wanted.instances}
        with self._archive(file) as archive:
            if archive is None:
                return
            for member in archive.members():
                uid = uids.get(member.path)
                if uid is not None:
                    yield Retrieved(uid, archive.chunks(member))

    @contextmanager
    def _archive(self, file: File) -> Iterator[Archive | None]:
        opened = self._files.open(file)
        if opened is None:
            yield None
            return
        with (
            opened,
            Archive(
                opened,
                self._name,
                max_members=self._limits.max_archive_members,
                max_bytes=self._limits.max_archive_bytes,
            ) as archive,
        ):
            yield archive


def _pieces(file: IO[bytes]) -> Iterator[Buffer]:
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _digest(kind: str, *words: str) -> str:
    text = "\0".join(words).encode("utf-8", "surrogateescape")
    return f"{kind}:{hashlib.blake2b(text, digest_size=12).hexdigest()}"
