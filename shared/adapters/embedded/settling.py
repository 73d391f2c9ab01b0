"""Commits what the work on messages has written, and settles the messages: many at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from threading import Lock

from msgspec import Struct

from shared import crash_points
from shared.adapters.embedded.deferral import OvertakenError
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.lanes import Work
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.errors import AxiomError
from shared.ports import Outgoing

log = logging.getLogger(__name__)

# No more is kept back than this.
_MOST = 64
_MOST_BYTES = 8 * 1024 * 1024
_BUS_DOWN_WAIT_S = 1.0


class Settlement(Struct, frozen=True):
    """What is to become of a message, with all that the work on it has written: gone, or due again
    in `later_s` seconds, or at once as if it had not been leased if it was not begun. If it
    `goes_on` its work does, as soon as what that has written is durable.
    """

    work: Work
    later_s: float | None = None
    publish: Outgoing | None = None
    was_begun: bool = True
    goes_on: bool = False


class Settler:
    """Takes Settlements from any thread, and carries out all of them in whichever calls `settle`.

    Documents are durable before anything is published or acknowledged, and before work goes on. One
    message's documents are all written or none, and whatever is wrong with them hurts no other.
    """

    def __init__(
        self,
        bus: SqliteMessageBus,
        documents: SqliteDocumentStore | None,
        *,
        go_on: Callable[[Collection[Work]], None],
        failed: Callable[[Work, Exception], None],
        settled: Callable[[Collection[Work]], None],
    ) -> None:
        """`go_on` is told whose work may go on, `failed` whose documents were not written and why,
        with OvertakenError if others were quicker, and `settled` whose messages are settled.
        """
        self._bus, self._documents = bus, documents
        self._go_on, self._failed, self._settled = go_on, failed, settled
        self._lock = Lock()
        self._turn = Lock()
        self._waiting: list[Settlement] = []
        self._bytes = 0
        self._since_s = 0.0
        self._not_before_s = 0.0

    def add(self, settlements: Sequence[Settlement]) -> None:
        """Have them carried out with the next `settle`."""
        with self._lock:
            if not self._waiting:
                self._since_s = time.monotonic()
            self._waiting += settlements
            self._bytes += sum(map(_size, settlements))

    def waits_for_s(self) -> float:
        """For how long something has waited; negative while nothing does, or may be tried."""
        now_s = time.monotonic()
        with self._lock:
            return now_s - self._since_s if self._waiting and now_s >= self._not_before_s else -1.0

    @property
    def is_full(self) -> bool:
        """True if no more is to be kept back."""
        with self._lock:
            return (
                len(self._waiting) >= _MOST or self._bytes >= _MOST_BYTES
            ) and time.monotonic() >= self._not_before_s

    def settle(self) -> bool:
        """Carry out all that was added; False if the bus cannot take it now, and it waits."""
        with self._turn:
            with self._lock:
                batch, self._waiting, self._bytes = self._waiting, [], 0
            kept = self._commit_documents(batch)
            finished = [one for one in kept if not one.goes_on]
            try:
                self._settle(finished)
            except AxiomError as error:
                log.error("messages cannot be settled now", extra={"reason": str(error)})
                with self._lock:
                    self._waiting[:0] = finished
                    self._not_before_s = time.monotonic() + _BUS_DOWN_WAIT_S
                return False
        self._settled([one.work for one in finished])
        return True

    def _commit_documents(self, batch: Sequence[Settlement]) -> list[Settlement]:
        """Those of the batch whose documents are durable."""
        to_write = [one for one in batch if one.work.deferral and one.work.deferral.changes]
        errors = dict(zip(map(id, to_write), self._write(to_write), strict=True))
        kept = []
        for one in batch:
            error = errors.get(id(one))
            if error is None:
                kept.append(one)
            else:
                self._failed(one.work, error)
        if to_write:
            crash_points.reached(crash_points.AFTER_DOCUMENTS)
        going_on = [one.work for one in kept if one.goes_on]
        if going_on:
            self._go_on(going_on)
        return kept

    def _write(self, settlements: Sequence[Settlement]) -> list[Exception | None]:
        if not settlements:
            return []
        assert self._documents is not None
        deferrals = [one.work.deferral for one in settlements if one.work.deferral is not None]
        try:
            errors = self._documents.commit_each([one.changes for one in deferrals])
        except Exception as error:
            if len(settlements) == 1:
                return [error]
            # One of them may be what cannot be written: each alone.
            return [fault for one in settlements for fault in self._write([one])]
        for one in deferrals:
            one.changes = []
        return [None if error is None else OvertakenError() for error in errors]

    def _settle(self, settlements: Sequence[Settlement]) -> None:
        acknowledged, handed_back, later = [], [], []
        publish: list[Outgoing] = []
        for one in settlements:
            message_id = one.work.leased.message_id
            if one.work.deferral is not None:
                publish += one.work.deferral.outgoing
            if one.publish is not None:
                publish.append(one.publish)
            if not one.was_begun:
                handed_back.append(message_id)
            elif one.later_s is not None:
                later.append((message_id, one.later_s))
            else:
                acknowledged.append(message_id)
        self._bus.settle(
            acknowledged=acknowledged, later=later, publish=publish, handed_back=handed_back
        )


def _size(settlement: Settlement) -> int:
    deferral = settlement.work.deferral
    return 0 if deferral is None else sum(len(one.data) for one in deferral.outgoing)
