"""Audit messages for a repository, out of a spool that survives its absence.

An entry of the audit log is spooled in the same transaction as it is written, so nothing waits for
the repository, and what a process that is killed has audited is sent by another. A message may
come twice, never not at all while the spool has room.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, Protocol

from shared import metrics
from shared.audit import SPOOL
from shared.pipeline.audit_message import audit_message
from shared.ports import Clock, DocumentStore

log = logging.getLogger(__name__)

# An audit message has a kilobyte or so.
MAX_SPOOLED: Final = 100_000
_BATCH: Final = 200
_REST_S: Final = 30.0  # after a failure


class Collector(Protocol):
    """Where audit messages go."""

    def send(self, messages: Sequence[tuple[str, str]]) -> None:
        """Send some, each with its time (ISO 8601). Raises: OSError."""


class Forwarder:
    """Empties the spool; one for each process that does so."""

    def __init__(self, documents: DocumentStore, clock: Clock, collector: Collector) -> None:
        self._documents, self._clock, self._collector = documents, clock, collector
        self._rests_until_s = float("-inf")
        self._failed = False

    def run(self, *, for_s: float) -> None:
        """Send what is spooled, oldest first, for about so long; a collector that is away is left
        alone for half a minute. Raises: StorageUnavailableError.
        """
        now_s = self._clock.monotonic_s()
        if now_s < self._rests_until_s:
            return
        while self._clock.monotonic_s() < now_s + for_s:
            found = self._documents.query(SPOOL, limit=_BATCH).documents
            if not found:
                return
            try:
                self._collector.send(
                    [(str(one.data["when"]), audit_message(one.data)) for one in found]
                )
            except OSError as error:
                self._rest(error)
                return
            self._forget([one.key for one in found], "sent")
            if self._failed:
                log.info("the collector of audit messages takes them again")
                self._failed = False

    def _rest(self, error: OSError) -> None:
        if not self._failed:
            log.warning(
                "the collector of audit messages takes none",
                extra={"reason": error.strerror or type(error).__name__},
            )
        self._failed = True
        self._rests_until_s = self._clock.monotonic_s() + _REST_S
        too_many = self._documents.count(SPOOL) - MAX_SPOOLED
        while too_many > 0:
            found = self._documents.query(SPOOL, limit=min(too_many, _BATCH)).documents
            if not found:
                return
            self._forget([one.key for one in found], "lost")
            too_many -= len(found)

    def _forget(self, keys: Sequence[str], outcome: str) -> None:
        for key in keys:
            self._documents.delete(SPOOL, key)
        metrics.PROCESS.count(metrics.AUDIT_MESSAGES, outcome, amount=len(keys))
