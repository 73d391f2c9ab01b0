"""How each source is: when it was asked and will be, what came, what it said last.

One document for each source, written by whoever polls it, every two seconds at most. It is also the
lease by which of several pollers one asks a source at a time, and it keeps the cursor: up to when
all that a source showed was looked at.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct, field

from shared.config.sources import AnySource
from shared.errors import (
    AxiomError,
    DocumentChangedError,
    DocumentExistsError,
    DocumentMissingError,
)
from shared.pipeline.ports import Ports
from shared.ports import Clock, Document, DocumentStore
from shared.times import timestamp

COLLECTION = "source-states"

# What a source does now.
IDLE, POLLING, WAITING, FAILING, CLOSED, ON_DEMAND, OFF = (
    "idle",
    "polling",
    "waiting",  # too much waits for validation or rules
    "failing",  # it could not be asked; it is tried again at next_poll_at
    "closed",  # outside its schedule
    "on-demand",  # only polled if somebody wants that
    "disabled",
)
# Whoever has not said for so long that it still polls has ended.
LEASE_S = 20.0
_COUNTS = ("found", "queued", "processed", "failed")
_LONGEST_PAUSE_S = 3600.0
_NEW: Mapping[str, Any] = {
    "state": IDLE,
    "poll_began_at": None,
    "poll_ended_at": None,
    "next_poll_at": None,
    "requested_at": None,
    "covered_until": None,
    "failures": 0,
    "failing_since": None,
    "last_error": "",
    "last_code": "",
    "address": "",
    "holder": "",
    "held_until": "",
    "totals": dict.fromkeys(_COUNTS, 0),
    "last_poll": dict.fromkeys(_COUNTS, 0),
    "studies": 0,
}

Data = Mapping[str, Any]


class Lease(Struct):
    """The right to poll a source; `data` is its state as it was last written."""

    source: str
    holder: str
    data: dict[str, Any]
    version: str
    counted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))


class LeaseLostError(Exception):
    """Somebody else polls the source now."""


class SourceStates:
    """The states of sources, as whoever polls them writes them."""

    def __init__(self, documents: DocumentStore, clock: Clock) -> None:
        self._documents, self._clock = documents, clock

    def read(self, source: str) -> Data:
        """What is known; that of a source that was never asked."""
        found = self._documents.get(COLLECTION, source)
        return {**_NEW, **(found.data if found else {})}

    def is_due(self, entity: AnySource) -> bool:
        """True if it is to be polled now, as far as this tells."""
        data, now = self.read(entity.name), timestamp(self._clock.now())
        if self._is_held(data):
            return False
        asked = data["requested_at"]
        if asked and asked > (data["poll_began_at"] or ""):
            return True
        if data["address"] != entity.address or not data["next_poll_at"]:
            return True
        # A shorter interval counts at once.
        ended_at = data["poll_ended_at"] or now
        soonest = datetime.fromisoformat(ended_at) + timedelta(seconds=entity.poll_interval_s)
        is_early = not data["failures"] and timestamp(soonest) <= now
        return data["next_poll_at"] <= now or is_early

    def is_requested(self, source: str) -> bool:
        """True if somebody wants it polled now."""
        data = self.read(source)
        return bool(data["requested_at"]) and data["requested_at"] > (data["poll_began_at"] or "")

    def rest(self, entity: AnySource, state: str) -> None:
        """It is not polled now: `state` says why. Written when that is new."""
        found = self._documents.get(COLLECTION, entity.name)
        data = {**_NEW, **(found.data if found else {})}
        if data["state"] != state and not self._is_held(data):
            self._write(entity.name, found, {**data, "state": state, "next_poll_at": None})

    def take(self, entity: AnySource) -> Lease | None:
        """Begin a poll; None if somebody else is about it."""
        found = self._documents.get(COLLECTION, entity.name)
        data = {**_NEW, **(found.data if found else {})}
        if self._is_held(data):
            return None
        now = self._clock.now()
        holder = secrets.token_hex(8)
        data |= {
            "source": entity.name,
            "state": POLLING,
            "poll_began_at": timestamp(now),
            "holder": holder,
            "held_until": timestamp(now + timedelta(seconds=LEASE_S)),
            "last_poll": dict.fromkeys(_COUNTS, 0),
            "studies": 0,
        }
        if data["address"] != entity.address:
            data |= {"address": entity.address, "covered_until": None}
        stored = self._write(entity.name, found, data)
        return None if stored is None else Lease(entity.name, holder, data, stored.version)

    def renew(
        self, lease: Lease, counts: Mapping[str, int], studies: int, *, waits: bool = False
    ) -> None:
        """Say that the poll goes on, and what it has counted. Raises: LeaseLostError."""
        held_until = timestamp(self._clock.now() + timedelta(seconds=LEASE_S))
        self._progress(lease, counts, studies)
        lease.data |= {"state": WAITING if waits else POLLING, "held_until": held_until}
        self._replace(lease)

    def end(
        self,
        lease: Lease,
        entity: AnySource,
        counts: Mapping[str, int],
        studies: int,
        *,
        covered_until: datetime | None = None,
        error: str = "",
        code: str = "",
        remark: AxiomError | None = None,
        retry_after_s: float | None = None,
        goes_on: bool = False,
    ) -> None:
        """The poll is over. With `covered_until` all that the source showed was looked at; with
        `error` it could not be asked; `remark` is why some Study did not come; `goes_on` if
        the next one is to begin at once; `retry_after_s` is the peer's own wish.

        Raises: LeaseLostError.
        """
        now = self._clock.now()
        self._progress(lease, counts, studies)
        data = lease.data
        failures = data["failures"] + 1 if error else 0
        pause_s = entity.poll_interval_s
        if error:
            pause_s = min(pause_s * 2 ** min(failures - 1, 10), max(_LONGEST_PAUSE_S, pause_s))
        pause_s = max(pause_s, retry_after_s or 0.0)
        if goes_on:
            pause_s = 0.0
        data |= {
            "state": FAILING if error else IDLE,
            "poll_ended_at": timestamp(now),
            "next_poll_at": timestamp(now + timedelta(seconds=pause_s)),
            "failures": failures,
            "failing_since": (data["failing_since"] or timestamp(now)) if error else None,
            "last_error": error or (str(remark) if remark else data["last_error"]),
            "last_code": code or (remark.code if remark else data["last_code"]),
            "holder": "",
            "held_until": "",
        }
        if covered_until is not None:
            data["covered_until"] = timestamp(covered_until)
        self._replace(lease)

    # ---- inside

    def _progress(self, lease: Lease, counts: Mapping[str, int], studies: int) -> None:
        totals = lease.data["totals"]
        lease.data["totals"] = {
            name: totals.get(name, 0) + counts[name] - lease.counted[name] for name in _COUNTS
        }
        lease.counted = dict(counts)
        lease.data["last_poll"] = dict(counts)
        lease.data["studies"] = studies

    def _is_held(self, data: Data) -> bool:
        # One that would end later than any may is of before the clock was set back.
        now = self._clock.now()
        latest = timestamp(now + timedelta(seconds=LEASE_S))
        return bool(data["holder"]) and timestamp(now) < data["held_until"] <= latest

    def _replace(self, lease: Lease) -> None:
        while True:
            try:
                stored = self._documents.replace(
                    COLLECTION, lease.source, lease.data, lease.version
                )
            except DocumentChangedError:
                found = self._documents.get(COLLECTION, lease.source)
                if found is None or found.data["holder"] != lease.holder:
                    raise LeaseLostError(lease.source) from None
                # Somebody has asked for the next poll meanwhile.
                lease.data["requested_at"] = found.data["requested_at"]
                lease.version = found.version
            else:
                lease.version = stored.version
                return

    def _write(self, source: str, found: Document | None, data: Data) -> Document | None:
        """None if somebody else was first."""
        try:
            if found is None:
                return self._documents.create(COLLECTION, source, {**data, "source": source})
            return self._documents.replace(COLLECTION, source, data, found.version)
        except (DocumentChangedError, DocumentExistsError):
            return None


def release_all(documents: DocumentStore) -> None:
    """Whoever held a lease has ended: for the one poller of a machine, when it starts."""
    for document in documents.query(COLLECTION, limit=1000).documents:
        if document.data["holder"]:
            documents.put(COLLECTION, document.key, {**document.data, "holder": ""})


def request_poll(source: str, ports: Ports) -> None:
    """Have a source polled soon, whatever its interval. Raises: DocumentMissingError."""
    if ports.configuration.get().source(source) is None:
        raise DocumentMissingError("sources", source)
    while True:
        found = ports.documents.get(COLLECTION, source)
        data = {
            **_NEW,
            **(found.data if found else {"source": source}),
            "requested_at": timestamp(ports.clock.now()),
        }
        try:
            if found is None:
                ports.documents.create(COLLECTION, source, data)
            else:
                ports.documents.replace(COLLECTION, source, data, found.version)
        except (DocumentChangedError, DocumentExistsError):
            continue
        return


def state_of(source: str, ports: Ports) -> Data:
    """How a source is, for a person. Raises: DocumentMissingError."""
    entity = ports.configuration.get().source(source)
    if entity is None:
        raise DocumentMissingError("sources", source)
    data = SourceStates(ports.documents, ports.clock).read(source)
    shown = {k: v for k, v in data.items() if k not in ("holder", "held_until", "address")}
    if not entity.enabled:
        shown |= {"state": OFF, "next_poll_at": None}
    elif data["state"] in (POLLING, WAITING) and data["held_until"] <= timestamp(ports.clock.now()):
        shown["state"] = IDLE  # whoever polled has ended in the middle
    elif data["state"] == OFF:
        shown["state"] = IDLE if entity.polled else ON_DEMAND
    return {**shown, "source": source, "type": entity.type, "enabled": entity.enabled}
