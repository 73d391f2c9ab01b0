"""A folder of `.wl` files: a data set for each scheduled procedure step, as wlmscpfs keeps them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from shared.dicom.matching import matches
from shared.dicom.query import Found, Key, Match, found_of
from shared.errors import SourceMisconfiguredError, SourceRefusedError, SourceUnavailableError

log = logging.getLogger(__name__)

_SUFFIX: Final = ".wl"
_MOST_FILES: Final = 20_000
_LARGEST_FILE_BYTES: Final = 1 << 20
_SCHEDULED_PROCEDURE_STEP_SEQUENCE: Final = "00400100"

_Signature = tuple[int, int, int]


class FolderOfSteps:
    """A Worklist. A file is read again when it has changed; what is no step is left out.

    Whoever writes a file does so under another name and renames it: there is no lock.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._lock = threading.Lock()
        self._known: dict[str, tuple[_Signature, Found | None]] = {}

    def find(self, keys: Sequence[Key]) -> Iterator[Match | None]:
        """As Worklist."""
        for found in self._steps():
            fits = found is not None and all(matches(key, found) for key in keys)
            yield Match(found) if found is not None and fits else None

    def close(self) -> None:
        """As Worklist: nothing is open."""

    def _steps(self) -> Iterator[Found | None]:
        signatures = self._signatures()
        with self._lock:
            for gone in self._known.keys() - signatures.keys():
                del self._known[gone]
        unreadable = 0
        for file, signature in sorted(signatures.items()):
            with self._lock:
                known = self._known.get(file)
            if known is None or known[0] != signature:
                known = signature, self._read(file, signature)
                with self._lock:
                    self._known[file] = known
                unreadable += known[1] is None
            yield known[1]
        if unreadable:
            # Their names may hold a patient's.
            log.warning(
                "some files of a worklist are no scheduled procedure steps",
                extra={"worklist": self._name, "files": unreadable},
            )

    def _signatures(self) -> dict[str, _Signature]:
        found: dict[str, _Signature] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith(".") or not name.lower().endswith(_SUFFIX):
                        continue
                    if not entry.is_file():
                        continue
                    status = entry.stat()
                    found[name] = status.st_mtime_ns, status.st_size, status.st_ino
                    if len(found) > _MOST_FILES:
                        raise SourceRefusedError(self._name, f"more than {_MOST_FILES} files")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceMisconfiguredError(self._name, "its folder is not there") from error
        except OSError as error:
            words = f"its folder cannot be read: {error.strerror}"
            raise SourceUnavailableError(self._name, words) from error
        return found

    def _read(self, file: str, signature: _Signature) -> Found | None:
        import pydicom

        if signature[1] > _LARGEST_FILE_BYTES:
            return None
        try:
            # With or without a preamble and File Meta Information.
            found = found_of(
                pydicom.dcmread(self._folder / file, force=True, stop_before_pixels=True)
            )
        except Exception:
            # The decoder raises whatever it stumbles over; each time the file is at fault.
            return None
        # Whatever bytes there are may be read as some data set.
        return found if _SCHEDULED_PROCEDURE_STEP_SEQUENCE in found else None
