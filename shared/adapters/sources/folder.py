"""A folder and all below it. Links are not followed, hidden files and folders not looked at."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from shared.adapters.destinations import outcomes
from shared.adapters.sources.failures import failure
from shared.adapters.sources.files import File


class Folder:
    """Files, below `root`."""

    def __init__(
        self, name: str, root: Path, *, settle_s: float, now: Callable[[], datetime]
    ) -> None:
        """Files changed in the last `settle_s` seconds are left for later."""
        self._name, self._root = name, root
        self._settle_s, self._now = settle_s, now

    def list(self) -> Iterator[File]:
        """As Files; folder by folder."""
        self.check()
        oldest_s = self._now().timestamp() - self._settle_s
        for folder, folders, names in os.walk(self._root):
            folders[:] = sorted(one for one in folders if not one.startswith("."))
            group = os.path.relpath(folder, self._root)
            for name in sorted(names):
                if name.startswith("."):
                    continue
                path = Path(folder, name)
                with suppress(OSError):
                    found = path.lstat()
                    if stat.S_ISREG(found.st_mode) and found.st_mtime <= oldest_s:
                        relative = os.path.relpath(path, self._root)
                        yield File(relative, group, found.st_size, _version(found))

    def open(self, file: File) -> IO[bytes] | None:
        """As Files."""
        try:
            number = os.open(self._root / file.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failure(outcomes.client_error(error), self._name) from None
        opened = os.fdopen(number, "rb")
        if _version(os.fstat(number)) != file.version:
            opened.close()
            return None
        return opened

    def delete(self, file: File) -> None:
        """As Files."""
        path = self._root / file.name
        try:
            if _version(path.lstat()) == file.version:
                path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise failure(outcomes.client_error(error), self._name) from None

    def check(self) -> str:
        """As Files."""
        try:
            os.scandir(self._root).close()
        except FileNotFoundError as error:
            # From the configuration, unlike the names of files: it may be told.
            raise failure(outcomes.client_error(error), self._name, str(self._root)) from None
        except OSError as error:
            raise failure(outcomes.client_error(error), self._name) from None
        return "the folder can be read"

    def close(self) -> None:
        """As Files: nothing is open."""


def _version(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"
