"""Objects as files below one folder: an object's name is its path."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from crc32c import crc32c as extended_crc32c

from shared.adapters.embedded.directories import sync_directory
from shared.adapters.embedded.group_commit import GroupCommit
from shared.adapters.names import check_object_name
from shared.errors import ObjectExistsError, ObjectMissingError, StorageUnavailableError
from shared.ports import Buffer, StoredObject

_PIECE_BYTES = 1024 * 1024
_MAX_BUFFERS_AT_ONCE = 1024  # IOV_MAX of Linux
# "~" is in no object's name, so nothing in this folder is an object.
_UNFINISHED = "~unfinished"
_NEVER = 0
_CRC32C_ATTRIBUTE = "user.crc32c"


class FolderObjectStore:
    """ObjectStore of the embedded mode, for any number of processes on one machine.

    A new object is a file without a name (O_TMPFILE) that is synced, then linked under its name,
    whose directory is synced last: no crash leaves a part of an object or an object without its
    bytes, and a link never replaces. Where the file system cannot do that, the file is made in
    `~unfinished/`; what a killed process left there goes at the next start.

    `stat` finds the CRC32C in an extended attribute, or where there is none, by reading the object.
    An object and a folder of objects cannot share a name: the later one gets ObjectExistsError.
    `delete` leaves the folder, and a power cut may bring back what was just deleted.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        # Joined as text where each Instance passes: a Path costs as much as the system call.
        self._root_path = os.fspath(root)
        self._lock = Lock()
        self._directories: dict[str, _Directory] = {}  # those in use
        self._durable: set[str] = set()
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            sync_directory(root.parent)
            (root / _UNFINISHED).mkdir(exist_ok=True, mode=0o700)
            _sweep(root / _UNFINISHED)
            self._links_nameless = _can_link_nameless(root, root / _UNFINISHED)
        except OSError as error:
            raise _unavailable(error, str(root)) from error

    def create(self, name: str) -> FolderObjectWriter:
        """Start an object."""
        check_object_name(name)
        try:
            if self._links_nameless:
                return FolderObjectWriter(self, name, _open_nameless(self._root_path), None)
            return FolderObjectWriter(self, name, *_open_named(self._root / _UNFINISHED))
        except OSError as error:
            raise _unavailable(error, name) from error

    def open(self, name: str) -> FolderObjectReader:
        """Open an object. Raises: ObjectMissingError; StorageUnavailableError."""
        check_object_name(name)
        with _missing_or_unavailable(name):
            fd = os.open(self._root / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode):
                    raise ObjectMissingError(name)
                return FolderObjectReader(name, fd, found.st_size)
            except BaseException:
                os.close(fd)
                raise

    def stat(self, name: str) -> StoredObject:
        """Size and CRC32C. Raises: ObjectMissingError; StorageUnavailableError."""
        with self.open(name) as reader, _missing_or_unavailable(name):
            crc32c = _recorded_crc32c(reader.fileno())
            if crc32c is None:
                crc32c = 0
                for piece in reader.stream():
                    crc32c = extended_crc32c(piece, crc32c)
            return StoredObject(name, reader.size, crc32c)

    def delete(self, name: str) -> None:
        """Delete; a missing object is no error."""
        check_object_name(name)
        with suppress(ObjectMissingError), _missing_or_unavailable(name):
            os.unlink(self._root / name)

    def list(self, prefix: str = "") -> Iterator[str]:
        """Names that start with `prefix`, in ascending order; one directory at a time in memory."""
        folder, _, _ = prefix.rpartition("/")
        if folder:
            check_object_name(folder)
        return _names(self._root, f"{folder}/" if folder else "", prefix)

    def free_bytes(self) -> int | None:
        """What the file system still gives to this user."""
        try:
            found = os.statvfs(self._root)
        except OSError as error:
            raise _unavailable(error, str(self._root)) from error
        return found.f_bavail * found.f_frsize

    def used_bytes(self, folder: str) -> int:
        """How large all objects below a folder are together; walks through them."""
        total = 0
        for directory, _, names in os.walk(self._root / folder):
            for name in names:
                with suppress(FileNotFoundError):
                    total += os.stat(f"{directory}/{name}").st_size
        return total

    def _link(self, source: str, name: str) -> None:
        """Give the file `source` its name, durably. Raises: ObjectExistsError; OSError."""
        folder, _, last = name.rpartition("/")
        directory = self._enter(folder)
        try:
            try:
                # With a directory's descriptor os.link is linkat(2), which follows /proc/self/fd.
                os.link(source, last, dst_dir_fd=directory.fd, follow_symlinks=True)
            except FileExistsError:
                # The caller may take that for success, so the other one's name has to be durable.
                directory.sync()
                raise ObjectExistsError(name) from None
            try:
                directory.sync()
            except OSError:
                with suppress(OSError):
                    os.unlink(last, dir_fd=directory.fd)
                raise
        finally:
            self._leave(folder, directory)

    def _enter(self, folder: str) -> _Directory:
        """The directory, itself durable, opened once for all who use it at the same time."""
        with self._lock:
            directory = self._directories.get(folder)
            if directory is None:
                directory = self._directories[folder] = self._open_directory(folder)
            directory.users += 1
            return directory

    def _leave(self, folder: str, directory: _Directory) -> None:
        with self._lock:
            directory.users -= 1
            if directory.users:
                return
            del self._directories[folder]
        os.close(directory.fd)

    def _open_directory(self, folder: str) -> _Directory:
        if folder not in self._durable:
            self._make_durable(folder)
        try:
            return _Directory(f"{self._root_path}/{folder}")
        except FileNotFoundError:  # somebody cleaned up by hand
            self._durable.clear()
            self._make_durable(folder)
            return _Directory(f"{self._root_path}/{folder}")

    def _make_durable(self, folder: str) -> None:
        path = self._root
        for part in filter(None, folder.split("/")):
            parent, path = path, path / part
            try:
                path.mkdir(exist_ok=True, mode=0o700)
            except FileExistsError:
                raise ObjectExistsError(folder) from None
            sync_directory(parent)
        self._durable.add(folder)


class FolderObjectWriter:
    """ObjectWriter over a file that has no name yet, or one in `~unfinished/`."""

    def __init__(self, store: FolderObjectStore, name: str, fd: int, path: str | None) -> None:
        self.size = 0
        self.crc32c = 0
        self._store, self._name, self._fd, self._path = store, name, fd, path

    def write(self, *buffers: Buffer) -> None:
        """Append the buffers in order."""
        for buffer in buffers:
            # Getting the interpreter back from other threads takes longer than a buffer's CRC.
            self.crc32c = extended_crc32c(buffer, self.crc32c, gil_release_mode=_NEVER)
        try:
            for start in range(0, len(buffers), _MAX_BUFFERS_AT_ONCE):
                self._write_all(buffers[start : start + _MAX_BUFFERS_AT_ONCE])
        except OSError as error:
            raise _unavailable(error, self._name) from error

    def commit(self) -> StoredObject:
        """Sync the bytes, link the name, sync the directory (shared with other writers)."""
        try:
            # A hint for `stat`, which does without it; so it need not be synced, nor succeed.
            with suppress(OSError):
                os.setxattr(self._fd, _CRC32C_ATTRIBUTE, self.crc32c.to_bytes(4, "big"))
            os.fdatasync(self._fd)
            self._store._link(self._path or f"/proc/self/fd/{self._fd}", self._name)
        except OSError as error:
            raise _unavailable(error, self._name) from error
        finally:
            self.discard()
        return StoredObject(self._name, self.size, self.crc32c)

    def discard(self) -> None:
        """Forget what was written; twice is once, after `commit` nothing."""
        if self._path is not None:
            with suppress(OSError):  # it goes at the next start
                os.unlink(self._path)
            self._path = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.discard()

    def _write_all(self, buffers: Sequence[Buffer]) -> None:
        left = sum(map(len, buffers))
        while left:
            written = os.writev(self._fd, buffers)
            self.size += written
            left -= written
            if left:
                buffers = [*_after((memoryview(buffer) for buffer in buffers), written)]


class FolderObjectReader:
    """ObjectReader over an open file: what was opened stays readable when it is deleted.

    Whoever reads while another thread closes it gets StorageUnavailableError, and never the bytes
    of the file that the descriptor's number stands for next.
    """

    def __init__(self, name: str, fd: int, size: int) -> None:
        self.name, self.size = name, size
        self._fd = fd
        self._lock = Lock()

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end."""
        length = max(0, min(length, self.size - offset))
        with _missing_or_unavailable(self.name), self._lock:
            data = os.pread(self._fd, length, offset)
            if len(data) == length:
                return data
            # Linux gives at most 2 GiB at once.
            parts = [data]
            while data:
                length, offset = length - len(data), offset + len(data)
                data = os.pread(self._fd, length, offset)
                parts.append(data)
            return b"".join(parts)

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from `offset` in pieces of at most 1 MiB."""
        end = self.size if length is None else min(self.size, offset + length)
        while offset < end:
            piece = self.read_at(offset, min(_PIECE_BYTES, end - offset))
            if not piece:
                return
            yield piece
            offset += len(piece)

    def fileno(self) -> int:
        """The open file, for sendfile(2)."""
        return self._fd

    def close(self) -> None:
        """Close the file; twice is once."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


class _Directory:
    """An open directory; one fsync serves all who linked into it before that fsync began."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.users = 0
        self._syncs: GroupCommit[None] = GroupCommit(lambda _: os.fsync(self.fd))

    def sync(self) -> None:
        self._syncs.submit(None)


def _names(root: Path, folder: str, prefix: str) -> Iterator[str]:
    try:
        with os.scandir(root / folder) as entries:
            # A folder sorts by the "/" that its objects' names have after it.
            found = sorted(
                f"{folder}{entry.name}/" if entry.is_dir() else f"{folder}{entry.name}"
                for entry in entries
                if entry.name != _UNFINISHED
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unavailable(error, folder) from error
    for name in found:
        if name.endswith("/"):
            if name.startswith(prefix) or prefix.startswith(name):
                yield from _names(root, name, prefix)
        elif name.startswith(prefix):
            yield name


def _after(views: Iterable[memoryview], written: int) -> Iterator[memoryview]:
    """What remains of `views` once their first `written` bytes are gone."""
    for view in views:
        if written < len(view):
            yield view[written:]
        written = max(0, written - len(view))


def _recorded_crc32c(fd: int) -> int | None:
    try:
        return int.from_bytes(os.getxattr(fd, _CRC32C_ATTRIBUTE), "big")
    except OSError:
        return None


def _open_nameless(directory: str | Path) -> int:
    return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _open_named(directory: Path) -> tuple[int, str]:
    """A file that `_sweep` of another process leaves alone while this one has it open."""
    fd, path = tempfile.mkstemp(dir=directory)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        os.unlink(path)
        raise
    return fd, path


def _can_link_nameless(root: Path, unfinished: Path) -> bool:
    probe = unfinished / f"probe-{os.getpid()}"
    try:
        fd = _open_nameless(root)
    except OSError:
        return False
    try:
        directory_fd = os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.link(
                f"/proc/self/fd/{fd}", probe.name, dst_dir_fd=directory_fd, follow_symlinks=True
            )
        except FileExistsError:
            return True
        except OSError:
            return False
        finally:
            os.close(directory_fd)
        probe.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)


def _sweep(unfinished: Path) -> None:
    """Delete the files that no living process has open."""
    for path in unfinished.iterdir():
        with suppress(FileNotFoundError, BlockingIOError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)


@contextmanager
def _missing_or_unavailable(name: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ObjectMissingError(name) from None
    except OSError as error:
        raise _unavailable(error, name) from error


def _unavailable(error: OSError, name: str) -> StorageUnavailableError:
    return StorageUnavailableError(f"{name}: {error.strerror or error}")
