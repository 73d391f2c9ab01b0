"""Under which addresses the gateways of a system are found, where they share one name.

A host that gives no fixed address gives each gateway another one at each start. Each says in the
documents that it is there, and keeps the name's record as the documents say; one that died without
a word is left out after a while.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol

from shared.errors import AxiomError
from shared.ports import Clock, DocumentStore
from shared.times import timestamp

log = logging.getLogger(__name__)

COLLECTION: Final = "gateways"
# So often a gateway says that it is there, and for so long that holds.
EVERY_S: Final = 30.0
_HOLDS_S: Final = 100.0
_MOST = 100


class NameRecord(Protocol):
    """The addresses that one name stands for."""

    def read(self) -> Sequence[str]:
        """In ascending order; none if the name is not there. Raises: StorageUnavailableError."""

    def replace(self, before: Sequence[str], after: Sequence[str]) -> bool:
        """Compare and set; False if the addresses were not `before` any more.

        Raises: StorageUnavailableError.
        """


class Presence:
    """One gateway's part. Used from one thread."""

    def __init__(
        self, address: str, documents: DocumentStore, record: NameRecord, clock: Clock
    ) -> None:
        self._address, self._documents = address, documents
        self._record, self._clock = record, clock
        self._said_at_s = float("-inf")

    def look_after(self) -> None:
        """Say again that we are there, if it is time; to be called every second or so.

        What fails now is tried again the next time.
        """
        now_s = self._clock.monotonic_s()
        if now_s - self._said_at_s < EVERY_S:
            return
        self._said_at_s = now_s
        try:
            at = timestamp(self._clock.now())
            self._documents.put(COLLECTION, self._address, {"at": at})
            self._tell()
        except AxiomError:
            log.exception("the name of the gateways could not be looked after")

    def withdraw(self) -> None:
        """We take no more associations; where this fails the name forgets us by itself."""
        try:
            self._documents.delete(COLLECTION, self._address)
            self._tell()
        except AxiomError:
            log.exception("the name of the gateways could not be withdrawn from")

    def _tell(self) -> None:
        since = timestamp(self._clock.now() - timedelta(seconds=_HOLDS_S))
        found = self._documents.query(COLLECTION, limit=_MOST).documents
        there = sorted(one.key for one in found if str(one.data["at"]) >= since)
        for one in found:
            if one.key not in there:
                self._documents.delete(COLLECTION, one.key)
        before = self._record.read()
        # The last to go leaves the name as it is: whoever comes next takes it over.
        if there and list(before) != there and self._record.replace(before, there):
            log.info("the gateways are found under their name", extra={"gateways": len(there)})
