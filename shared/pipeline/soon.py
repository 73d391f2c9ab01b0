"""Has what a process counts written soon, and not each time: many changes are one write."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable

from shared.errors import AxiomError

log = logging.getLogger(__name__)


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
        self._timer: threading.Timer | None = None
        self._ends_with_process = False

    def has_changed(self) -> None:
        """Have it written `after_s` from the first change on."""
        with self._lock:
            if not self._ends_with_process:
                self._ends_with_process = True
                atexit.register(_close, weakref.ref(self))
            if self._timer is None:
                self._timer = threading.Timer(self._after_s, self._on_time)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Write what is left; never raises."""
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._try()

    def _on_time(self) -> None:
        with self._lock:
            self._timer = None
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
