"""Searching several stores at once for a person: each in a thread of its own, so that one that
hangs or fails keeps nobody else waiting.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

from msgspec import Struct

from shared.config.entities import (
    Configuration,
    DicomwebDestination,
    GoogleHealthcareDestination,
)
from shared.config.sources import DicomwebSource, DimseQrSource, GoogleHealthcareSource
from shared.dicom.query import Match, Query
from shared.errors import AxiomError, SourceMisconfiguredError
from shared.pipeline import received_search
from shared.pipeline.ports import Ports
from shared.pipeline.received_search import ReceivedSearch

log = logging.getLogger(__name__)

SearchedEntity = (
    DicomwebSource
    | DimseQrSource
    | GoogleHealthcareSource
    | DicomwebDestination
    | GoogleHealthcareDestination
)

DONE, FAILED, TIMED_OUT = "done", "failed", "timed-out"

# Matches that wait for whoever asked; then the stores wait.
_MOST_WAITING: Final = 1000
_LOOK_EVERY_S: Final = 0.1


class Searched(Protocol):
    """A store that is searched. Its methods raise SourceUnavailableError and its kin."""

    def find(self, query: Query) -> Iterator[Match | None]:
        """What fits; None while it is asked, so that whoever waits can have a look around. A
        generator that is closed has the store asked to stop.
        """

    def stop(self) -> None:
        """From another thread: have what is under way end soon."""

    def close(self) -> None:
        """Release connections."""


class Candidate(Struct, frozen=True):
    """A store that can be searched. `is_source`: what it shows can be pulled from it."""

    name: str
    type: str
    is_source: bool


class Shown(Struct, frozen=True):
    """One entity that a store shows."""

    source: str
    match: Match


class Ended(Struct, frozen=True):
    """A store has said all that it is asked for, or will say no more."""

    source: str
    state: str
    matches: int = 0
    has_more: bool = False
    s: float = 0.0
    error: AxiomError | None = None


def candidates(configuration: Configuration) -> list[Candidate]:
    """All that can be searched, in the order of the configuration: enabled sources, what listeners
    stand in front of, and what was received here.
    """
    found = {
        entity.name: Candidate(entity.name, entity.type, is_source=True)
        for entity in configuration.sources
        if entity.enabled and isinstance(entity, SearchedEntity)
    }
    for listener in configuration.listeners:
        services = listener.query_retrieve
        if listener.enabled and services is not None and services.store not in found:
            entity = _entity(services.store, configuration)
            if entity is not None:
                found[entity.name] = Candidate(entity.name, entity.type, is_source=False)
    return [*found.values(), Candidate(received_search.NAME, "received", is_source=False)]


class Browsing:
    """One search of several stores. Used by one thread; to be closed in any case.

    `limit` matches of each store are shown after the first `skip[store]`, which were shown before.
    """

    def __init__(
        self,
        ports: Ports,
        query: Query,
        sources: Sequence[str],
        *,
        limit: int,
        timeout_s: float,
        skip: Mapping[str, int],
    ) -> None:
        self._clock = ports.clock
        self._queue: queue.Queue[Shown | Ended] = queue.Queue(_MOST_WAITING)
        began_s = ports.clock.monotonic_s()
        self._until_s = began_s + timeout_s
        self._asked = [
            _Asked(
                name,
                _opener(name, ports, timeout_s),
                query,
                self._queue,
                skip=skip.get(name, 0),
                limit=limit,
                elapsed=lambda: ports.clock.monotonic_s() - began_s,
            )
            for name in sources
        ]
        self._running = {one.source: one for one in self._asked}
        for one in self._asked:
            one.start()

    def events(self) -> Iterator[Shown | Ended | None]:
        """What the stores show as it comes, an end for each; None when there was nothing lately."""
        while self._running:
            if self._clock.monotonic_s() >= self._until_s:
                yield from self._late()
                return
            try:
                event = self._queue.get(timeout=_LOOK_EVERY_S)
            except queue.Empty:
                yield None
                continue
            if isinstance(event, Ended):
                del self._running[event.source]
            yield event

    def close(self) -> None:
        """Have all that is still asked stop; nobody waits for it."""
        for one in self._asked:
            one.stop()

    def _late(self) -> Iterator[Shown | Ended]:
        # What had come in time is shown still.
        with suppress(queue.Empty):
            while True:
                event = self._queue.get_nowait()
                if isinstance(event, Ended):
                    del self._running[event.source]
                yield event
        for one in self._running.values():
            one.stop()
            yield one.end(TIMED_OUT)
        self._running.clear()


class _Asked(threading.Thread):
    """One store that is asked."""

    def __init__(
        self,
        source: str,
        opened: Callable[[], Searched],
        query: Query,
        told: queue.Queue[Shown | Ended],
        *,
        skip: int,
        limit: int,
        elapsed: Callable[[], float],
    ) -> None:
        super().__init__(name="browse", daemon=True)
        self.source = source
        self._open, self._query, self._told = opened, query, told
        self._skip, self._limit, self._elapsed = skip, limit, elapsed
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._store: Searched | None = None
        self._count = 0

    def run(self) -> None:
        """Called by the thread: tell what the store shows, and that it has ended."""
        try:
            ended = self.end(DONE, has_more=self._ask())
        except AxiomError as error:
            ended = self.end(FAILED, error=error)
        except Exception as error:
            # A bug's own text may hold Values.
            log.error("a search failed", extra={"error": type(error).__name__})
            unclear = SourceMisconfiguredError(self.source, "it cannot be searched, see the log")
            ended = self.end(FAILED, error=unclear)
        self._tell(ended)

    def stop(self) -> None:
        """Have it end; at once if the store lets itself be interrupted."""
        with self._lock:
            if self._stopped.is_set():
                return
            self._stopped.set()
            store = self._store
        if store is not None:
            store.stop()

    def end(self, state: str, *, has_more: bool = False, error: AxiomError | None = None) -> Ended:
        """How it is by now."""
        return Ended(self.source, state, self._count, has_more, self._elapsed(), error)

    def _ask(self) -> bool:
        """True if there is more than what was wanted."""
        store = self._open()
        try:
            with self._lock:
                self._store = store
                if self._stopped.is_set():
                    return False
            return self._tell_all(store)
        finally:
            with self._lock:
                self._store = None
            store.close()

    def _tell_all(self, store: Searched) -> bool:
        found = store.find(self._query)
        seen = 0
        try:
            for match in found:
                if self._stopped.is_set():
                    return False
                if match is None:
                    continue
                seen += 1
                if seen > self._skip + self._limit:
                    return True
                if seen > self._skip:
                    self._tell(Shown(self.source, match))
                    self._count += 1
        finally:
            close = getattr(found, "close", None)
            if close is not None:
                close()
        return False

    def _tell(self, event: Shown | Ended) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._told.put(event, timeout=_LOOK_EVERY_S)
                return


def _opener(name: str, ports: Ports, timeout_s: float) -> Callable[[], Searched]:
    if name == received_search.NAME:
        return lambda: ReceivedSearch(ports.documents, ports.objects)

    def opened() -> Searched:
        entity = _entity(name, ports.configuration.get())
        if entity is None or ports.open_search is None:
            raise SourceMisconfiguredError(name, "it cannot be searched")
        within_s = min(entity.timeout_s, timeout_s)
        return ports.open_search(entity.model_copy(update={"timeout_s": within_s}))

    return opened


def _entity(name: str, configuration: Configuration) -> SearchedEntity | None:
    for entity in (configuration.source(name), configuration.destination(name)):
        if isinstance(entity, SearchedEntity):
            return entity
    return None
