"""Who holds leases, and who of them is dead.

A process that leases messages keeps a file locked as long as it lives; the kernel unlocks it when
the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path
from threading import Lock

from shared.errors import StorageUnavailableError

_SUFFIX = ".lessee"


class Lessee:
    """One of those that lease; its file is below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.name = secrets.token_hex(8)
        self._folder = folder
        self._lock = Lock()
        self._fd = -1

    def announce(self) -> None:
        """Be known to be alive from now on. Raises: StorageUnavailableError."""
        with self._lock:
            if self._fd >= 0:
                return
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                for path in self._folder.glob(f"*{_SUFFIX}"):
                    if self.is_dead(path.stem):
                        self.forget(path.stem)
                self._fd = _locked(self._path(self.name))
            except OSError as error:
                raise StorageUnavailableError(f"{self._folder.name}: {error.strerror}") from error

    def is_dead(self, name: str) -> bool:
        """True if the process that announced itself by this name has ended."""
        if name == self.name:
            return False
        try:
            fd = os.open(self._path(name), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def forget(self, name: str) -> None:
        """Take away the file of a dead one."""
        with suppress(OSError):
            self._path(name).unlink()

    def close(self) -> None:
        """Be as dead for the others."""
        with self._lock:
            if self._fd >= 0:
                self.forget(self.name)
                os.close(self._fd)
                self._fd = -1

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"


def _locked(path: Path) -> int:
    """Make the file and lock it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(fd).st_ino:
                    return fd
        except BaseException:
            os.close(fd)
            raise
        # Another took it for a dead one's before it was locked.
        os.close(fd)
