"""Has what a process counts written soon, and not each time: many changes are one write."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Final

from shared.errors import AxiomError

log = logging.getLogger(__name__)

# A store that is away is given up after a minute: a process has to end before that.
_LONGEST_END_S: Final = 5.0


class WrittenSoon:
    """Calls `write`, in a thread of its own, for what has changed. Thread-safe.

    When the process ends, what is left is written: on Cloud Run no thread runs between requests.
    """

    def __init__(self, what: str, write: Callable[[], None], *, after_s: float) -> None:
        """`write` raises AxiomError if it cannot now: it is called again after the next change.

        `what` says in the log what waits then.
        """
        self._what, self._write, self._after_s = what, write, after_s
        self._lock = threading.Lock()
        self._writer: threading.Thread | None = None
        self._is_due = False
        self._at_once = threading.Event()

    def has_changed(self) -> None:
        """Have it written `after_s` from the first change on."""
        with self._lock:
            if self._writer is None:
                atexit.register(_close, weakref.ref(self))
            if not self._is_due:
                self._is_due, self._at_once = True, threading.Event()
                self._writer = threading.Thread(target=self._write_soon, daemon=True)
                self._writer.start()

    def close(self) -> None:
        """Write what is left, unless that takes more than a few seconds; never raises."""
        with self._lock:
            writer = self._writer
            self._at_once.set()
        if writer is not None:
            writer.join(_LONGEST_END_S)

    def _write_soon(self) -> None:
        self._at_once.wait(self._after_s)
        with self._lock:
            self._is_due = False
        self._try()

    def _try(self) -> None:
        try:
            self._write()
        except AxiomError as error:
            log.warning(f"{self._what} wait to be written", extra={"code": error.code})


def _close(written: weakref.ref[WrittenSoon]) -> None:
    still = written()
    if still is not None:
        still.close()
