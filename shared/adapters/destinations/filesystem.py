"""Delivery into a folder, one file for each Instance.

A file is there whole, durable and under its name, or it is not there. Folders are opened one below
the other without following symbolic links, so that no path can lead out of the root. Modes of
files and folders are left to the umask and to the folders' own set-group-id bit, so that a group
can share them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import cast

from shared.adapters.destinations import outcomes
from shared.adapters.destinations.checksums import crc32c
from shared.adapters.destinations.file_copy import append_range, write_all
from shared.dicom.header import read_header
from shared.dicom.outgoing import FileRange, OutgoingInstance, Part, chunks
from shared.dicom.path_template import DEFAULT_TEMPLATE, PathTemplate
from shared.errors import DestinationMisconfiguredError, InstanceConflictError, PermanentError
from shared.ports import Kept, ObjectReader

_PIECE_BYTES = 1 << 20
# One call copies as much as it can; the kernel itself stops just below 2 GiB.
_O_TMPFILE = getattr(os, "O_TMPFILE", 0)  # Linux
# What a file system says that has no files without names, no hard links.
_UNSUPPORTED = frozenset(
    {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EISDIR, errno.EPERM, errno.EXDEV}
)


class FolderDestination:
    """A Destination that writes Part 10 files below `root`, which is made if it is not there."""

    def __init__(self, name: str, root: Path, template: str = DEFAULT_TEMPLATE) -> None:
        """Raises: DestinationMisconfiguredError if the template is unusable."""
        self._name, self._root = name, root
        try:
            self._template = PathTemplate.parse(template)
        except ValueError as error:
            raise DestinationMisconfiguredError(name, str(error)) from None
        # Where a file system has no hard links, finding a name free and taking it are two steps.
        self._naming = threading.Lock()

    def deliver(self, instance: OutgoingInstance) -> str:
        """As Destination; returns the path below the root."""
        *folders, file_name = self._template.render(instance)
        parts = instance.part10_parts()
        with self._errors(), self._opened_folder(folders) as folder:
            replaces = instance.replaces and _holds(folder, file_name, instance.sop_instance_uid)
            if replaces or not self._is_stored(folder, file_name, parts, instance.sop_instance_uid):
                self._store(folder, file_name, parts, instance.sop_instance_uid, replaces=replaces)
            place = "/".join([*folders, file_name])
            if instance.replaces and instance.earlier_answer not in ("", place):
                self._delete(instance.earlier_answer, instance.sop_instance_uid)
        return place

    def check(self) -> str:
        """Write, sync and delete a file in the root."""
        with (
            self._errors(),
            self._opened_folder([]) as folder,
            _new_file(folder) as (file, temporary_name),
        ):
            os.write(file, b"axiom")
            os.fsync(file)
            if temporary_name:
                os.unlink(temporary_name, dir_fd=folder)
        return f"{self._root} is writable"

    def taken_before(self, before: datetime) -> Iterator[Kept | None]:
        """As KeepingDestination: files under the very names that the template gives them."""
        with self._errors():
            for folder, _, names in os.walk(self._root):
                for name in names:
                    path = Path(folder, name)
                    yield self._kept(path, before) if not name.startswith(".") else None

    def _kept(self, path: Path, before: datetime) -> Kept | None:
        names = path.relative_to(self._root).parts
        try:
            if path.lstat().st_mtime >= before.timestamp():
                return None
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return None  # gone, or none of ours
        try:
            stored = cast(ObjectReader, _StoredFile(file))
            header = read_header(stored)
            instance = OutgoingInstance(header, stored, header.body_offset, unchanged=True)
            if not self._template.may_give(names, instance):
                return None
        except PermanentError:
            return None
        finally:
            os.close(file)
        uid = instance.sop_instance_uid
        return Kept(uid, partial(self._delete_older, "/".join(names), uid))

    def _delete_older(self, place: str, sop_instance_uid: str) -> None:
        with self._errors():
            self._delete(place, sop_instance_uid)

    def close(self) -> None:
        """Nothing is kept open."""

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise outcomes.failure(outcomes.client_error(error), self._name) from error

    @contextlib.contextmanager
    def _opened_folder(self, names: Iterable[str]) -> Iterator[int]:
        """A descriptor of the folder `names` lead to; what is missing is made, durably."""
        if not self._root.exists():
            self._root.mkdir(parents=True, exist_ok=True)
            _sync_folder(self._root.parent)
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in names:
                inner = _open_or_make(folder, name)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def _delete(self, place: str, sop_instance_uid: str) -> None:
        """Delete a file of this SOP Instance; if there is none any more that is as good."""
        *folders, file_name = names = place.split("/")
        if not {"", ".", ".."}.isdisjoint(names):
            return  # none that a template makes
        with contextlib.ExitStack() as opened, contextlib.suppress(FileNotFoundError):
            folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
            opened.callback(os.close, folder)
            for name in folders:
                folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                opened.callback(os.close, folder)
            if _holds(folder, file_name, sop_instance_uid):
                os.unlink(file_name, dir_fd=folder)
                os.fsync(folder)

    def _is_stored(
        self, folder: int, file_name: str, parts: list[Part], sop_instance_uid: str
    ) -> bool:
        """True if the file is there with these bytes.

        Raises: InstanceConflictError if it is there with others.
        """
        try:
            stored = os.open(file_name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            return False
        try:
            if not _has_bytes(stored, parts):
                raise InstanceConflictError(
                    sop_instance_uid, crc32c(_read(stored)), crc32c(chunks(parts))
                )
            # Whoever wrote it may have ended before it was durable.
            os.fsync(stored)
            os.fsync(folder)
            return True
        finally:
            os.close(stored)

    def _store(
        self,
        folder: int,
        file_name: str,
        parts: list[Part],
        sop_instance_uid: str,
        *,
        replaces: bool,
    ) -> None:
        with _new_file(folder) as (file, temporary_name):
            _write(file, parts)
            os.fsync(file)
            try:
                if replaces:
                    _take_name(folder, file, temporary_name, file_name)
                else:
                    self._give_name(folder, file, temporary_name, file_name)
            except FileExistsError:
                # Another thread or process was faster.
                self._is_stored(folder, file_name, parts, sop_instance_uid)
            finally:
                if temporary_name:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary_name, dir_fd=folder)
        os.fsync(folder)

    def _give_name(self, folder: int, file: int, temporary_name: str, file_name: str) -> None:
        """Raises: FileExistsError if the name is taken; whatever has it is never replaced."""
        if not temporary_name:
            os.link(f"/proc/self/fd/{file}", file_name, dst_dir_fd=folder, follow_symlinks=True)
            return
        try:
            os.link(temporary_name, file_name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            with self._naming:
                if _exists(folder, file_name):
                    raise FileExistsError(errno.EEXIST, "exists") from None
                os.rename(temporary_name, file_name, src_dir_fd=folder, dst_dir_fd=folder)


def _take_name(folder: int, file: int, temporary_name: str, file_name: str) -> None:
    """Rename over whatever has the name: at every moment it is the old file or the new one."""
    name = temporary_name
    if not name:
        name = f".{uuid.uuid4().hex}.part"
        os.link(f"/proc/self/fd/{file}", name, dst_dir_fd=folder, follow_symlinks=True)
    os.rename(name, file_name, src_dir_fd=folder, dst_dir_fd=folder)


def _holds(folder: int, file_name: str, sop_instance_uid: str) -> bool:
    """True if there is a file of that name, and it is of this SOP Instance.

    A template may give two Instances one name: neither may take the place of the other.
    """
    try:
        file = os.open(file_name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    except OSError:
        return False
    try:
        return _StoredFile(file).header_text("SOPInstanceUID") == sop_instance_uid
    finally:
        os.close(file)


class _StoredFile:
    """As much of an ObjectReader as reading a Header takes."""

    def __init__(self, file: int) -> None:
        self.name, self.size = "stored", os.fstat(file).st_size
        self._file = file

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._file, length, offset)

    def header_text(self, keyword: str) -> str | None:
        try:
            return read_header(cast(ObjectReader, self)).text(keyword)
        except PermanentError:
            return None


def _open_or_make(folder: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
        os.fsync(folder)
        return os.open(name, flags, dir_fd=folder)


@contextlib.contextmanager
def _new_file(folder: int) -> Iterator[tuple[int, str]]:
    """A file to write to: its descriptor, and its name, "" where it has none and cannot stay."""
    name = ""
    try:
        if not _O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no files without names")
        # "." is the folder itself.
        file = os.open(".", os.O_RDWR | _O_TMPFILE, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        name = f".{uuid.uuid4().hex}.part"
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
    try:
        yield file, name
    except BaseException:
        if name:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(file)


def _write(file: int, parts: Iterable[Part]) -> None:
    head = b""  # it goes out together with what follows
    for part in parts:
        source = part.reader.fileno() if isinstance(part, FileRange) else None
        if isinstance(part, FileRange) and source is not None:
            append_range(source, part.offset, part.length, file, head)
            head = b""
            continue
        for piece in chunks([part]):
            write_all(file, head)
            head = piece
    write_all(file, head)


def _has_bytes(file: int, parts: list[Part]) -> bool:
    if os.fstat(file).st_size != sum(map(len, parts)):
        return False
    offset = 0
    for piece in chunks(parts):
        if os.pread(file, len(piece), offset) != piece:
            return False
        offset += len(piece)
    return True


def _read(file: int) -> Iterator[bytes]:
    offset = 0
    while piece := os.pread(file, _PIECE_BYTES, offset):
        yield piece
        offset += len(piece)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
