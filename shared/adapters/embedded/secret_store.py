"""Secrets in files that only their owner reads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from shared.adapters.embedded.directories import sync_directory
from shared.adapters.names import check_secret_name
from shared.errors import SecretMissingError, StorageUnavailableError

# Cannot be a secret's name, so a file that a crash left behind is none.
_UNFINISHED = "~"


class FileSecretStore:
    """SecretStore of the embedded mode: a file of mode 0600 for each secret, holding its newest
    version alone, below a folder of mode 0700.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, name: str) -> str:
        """Raises: SecretMissingError; ValueError for a name that cannot be one."""
        path = self._path(name)
        try:
            return path.read_bytes().decode()
        except FileNotFoundError:
            raise SecretMissingError(name) from None
        except OSError as error:
            raise StorageUnavailableError(f"secret {name}: {error.strerror}") from error

    def put(self, name: str, value: str) -> None:
        """Store atomically: a reader sees the old value or the new one, after a power cut too."""
        path = self._path(name)
        if not value:
            raise ValueError("a secret has at least one character")
        unfinished = ""
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd, unfinished = tempfile.mkstemp(dir=self._root, prefix=_UNFINISHED)  # mode 0600
            with open(fd, "w", encoding="utf-8", newline="") as file:
                file.write(value)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
            unfinished = ""
            sync_directory(self._root)
        except OSError as error:
            raise StorageUnavailableError(f"secret {name}: {error.strerror}") from error
        finally:
            if unfinished:
                Path(unfinished).unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Delete; a missing secret is no error."""
        try:
            self._path(name).unlink(missing_ok=True)
            if self._root.is_dir():
                sync_directory(self._root)
        except OSError as error:
            raise StorageUnavailableError(f"secret {name}: {error.strerror}") from error

    def _path(self, name: str) -> Path:
        check_secret_name(name)
        return self._root / name
