"""The crosswalk maps of the current configuration, each built once and kept while unchanged."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shared.adapters.crosswalk.cache import AnswerCache
from shared.adapters.crosswalk.copies import COLLECTION, CopiedRows, fingerprint
from shared.adapters.crosswalk.csv_rows import CsvRows
from shared.adapters.crosswalk.rows import Outputs, Rows, keys_of
from shared.adapters.crosswalk.transformations import transformed
from shared.config.crosswalks import AnyCrosswalkSource, CrosswalkMap, CsvSource
from shared.config.service import ConfigurationService
from shared.errors import AxiomError, CrosswalkMisconfiguredError
from shared.logs import describe
from shared.pipeline.crosswalks import CrosswalkStatus
from shared.ports import Clock, DocumentStore, ObjectStore, SecretStore

if TYPE_CHECKING:
    from shared.adapters.crosswalk.sql_rows import Database

log = logging.getLogger(__name__)

# How long the background may sleep, which is how late it sees a map that is new.
_LONGEST_SLEEP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Built:
    entity: CrosswalkMap
    source: AnyCrosswalkSource
    rows: Rows
    cache: AnswerCache | None


class ConfiguredCrosswalks:
    """`shared.pipeline.crosswalks.Crosswalks` over databases and CSV files.

    Relative paths of sources lie below `folder`. From the first lookup in a map with `sync` on, a
    thread takes the copies that are due.
    """

    def __init__(
        self,
        configuration: ConfigurationService,
        secrets: SecretStore,
        objects: ObjectStore,
        documents: DocumentStore,
        clock: Clock,
        folder: Path,
    ) -> None:
        self._configuration, self._secrets = configuration, secrets
        self._objects, self._documents = objects, documents
        self._clock, self._folder = clock, folder
        self._lock = threading.Lock()
        self._maps: dict[str, _Built] = {}
        self._databases: dict[str, tuple[AnyCrosswalkSource, Database]] = {}
        self._closed = threading.Event()
        self._background: threading.Thread | None = None

    def lookup(self, map_name: str, keys: Mapping[str, str]) -> Mapping[str, str] | None:
        """As `CrosswalkLookup.lookup`."""
        built = self._built(map_name)
        entity = built.entity
        wanted = [match.column for match in entity.match]
        if keys.keys() != set(wanted):
            reason = f"is looked up by {', '.join(wanted)}, and by nothing else"
            raise CrosswalkMisconfiguredError(map_name, reason)
        texts = [transformed(keys[match.column], match.transformations) for match in entity.match]
        found = keys_of(entity, texts)
        if found is None:
            return None
        if built.cache is None:
            return _named(entity, built.rows.find(found))
        is_known, outputs = built.cache.get(found)
        if not is_known:
            outputs = built.rows.find(found)
            built.cache.put(found, outputs)
        return _named(entity, outputs)

    def sync(self, map_name: str) -> CrosswalkStatus:
        """As `Crosswalks.sync`."""
        rows = self._built(map_name, serves=False).rows
        if not isinstance(rows, CopiedRows):
            raise CrosswalkMisconfiguredError(map_name, "has no `sync`: it asks its source itself")
        rows.sync()
        return next(status for status in self.status() if status.map_name == map_name)

    def status(self) -> Sequence[CrosswalkStatus]:
        """As `Crosswalks.status`."""
        return [self._status(entity) for entity in self._configuration.get().crosswalk_maps]

    def sync_due(self) -> float:
        """Take every copy that is due; seconds until the next one is.

        What fails is in the status of its map, and is tried again.
        """
        next_s = _LONGEST_SLEEP_S
        for entity in self._configuration.get().crosswalk_maps:
            if entity.sync is None or not entity.enabled:
                continue
            try:
                rows = self._built(entity.name, serves=False).rows
                assert isinstance(rows, CopiedRows)
                if rows.due_in_s() <= 0:
                    rows.sync()
                    log.info("crosswalk copied", extra={"crosswalk": entity.name})
                next_s = min(next_s, rows.due_in_s())
            except AxiomError as error:
                log.warning(
                    "crosswalk not copied", extra={"crosswalk": entity.name, "code": error.code}
                )
        return max(next_s, 1.0)

    def close(self) -> None:
        """As `Crosswalks.close`."""
        self._closed.set()
        with self._lock:
            background = self._background
            databases = [database for _, database in self._databases.values()]
            self._databases.clear()
            self._maps.clear()
        if background is not None:
            background.join(timeout=1.0)
        for database in databases:
            database.close()

    def _built(self, name: str, *, serves: bool = True) -> _Built:
        """The map as configured now. Raises: CrosswalkMisconfiguredError.

        `serves` says that it is to answer, which for a copy means to keep it fresh from now on.
        """
        configuration = self._configuration.get()
        entity = configuration.crosswalk_map(name)
        source = configuration.crosswalk_source(entity.source) if entity is not None else None
        if entity is None or source is None:
            raise CrosswalkMisconfiguredError(name, "there is no crosswalk map of this name")
        if not (entity.enabled and source.enabled):
            what = "map" if source.enabled else "source"
            raise CrosswalkMisconfiguredError(name, f"the {what} is not enabled")
        with self._lock:
            built = self._maps.get(name)
            if built is None or (built.entity, built.source) != (entity, source):
                built = self._maps[name] = self._build(entity, source)
            if entity.sync is not None and serves:
                self._start_background()
        return built

    def _build(self, entity: CrosswalkMap, source: AnyCrosswalkSource) -> _Built:
        if isinstance(source, CsvSource):
            in_memory = CsvRows(entity, source, self._folder, self._clock)
            return _Built(entity, source, in_memory, None)
        database = self._database(source)
        if entity.sync is not None:
            copied = CopiedRows(
                entity, source, database.all_rows, self._objects, self._documents, self._clock
            )
            return _Built(entity, source, copied, None)
        cache = AnswerCache(entity.cache, self._clock)
        return _Built(entity, source, database.rows(entity), cache)

    def _database(self, source: AnyCrosswalkSource) -> Database:
        from shared.adapters.crosswalk.sql_rows import Database

        assert not isinstance(source, CsvSource)
        known = self._databases.get(source.name)
        if known is not None and known[0] == source:
            return known[1]
        if known is not None:
            known[1].close()
        database = Database(source, self._secrets, self._folder)
        self._databases[source.name] = (source, database)
        return database

    def _status(self, entity: CrosswalkMap) -> CrosswalkStatus:
        source = self._configuration.get().crosswalk_source(entity.source)
        known: Mapping[str, object] = {}
        if entity.sync is not None and source is not None:
            document = self._documents.get(COLLECTION, entity.name)
            if document is not None and document.data["made_of"] == fingerprint(entity, source):
                known = document.data
        return CrosswalkStatus(
            map_name=entity.name,
            source=entity.source,
            type=source.type if source is not None else "",
            enabled=entity.enabled and source is not None and source.enabled,
            is_copied=entity.sync is not None,
            **{field: known.get(field) for field in _OF_COPIES},  # type: ignore[arg-type]
        )

    def _start_background(self) -> None:
        if self._background is None:
            self._background = threading.Thread(
                target=self._keep_fresh, name="crosswalk-sync", daemon=True
            )
            self._background.start()

    def _keep_fresh(self) -> None:
        sleep_s = 1.0  # the lookup that started this takes the first copy itself
        while not self._closed.wait(sleep_s):
            try:
                sleep_s = self.sync_due()
            except Exception as error:
                # One bad round must not end all the later ones.
                log.error("crosswalk copies are not kept fresh", extra={"error": describe(error)})
                sleep_s = _LONGEST_SLEEP_S


_OF_COPIES: Final = ("rows", "synced_at", "failed_at", "error")


def _named(entity: CrosswalkMap, outputs: Outputs | None) -> dict[str, str] | None:
    if outputs is None:
        return None
    named = {}
    for output, text in zip(entity.outputs, outputs, strict=True):
        after = None if text is None else transformed(text, output.transformations)
        if after is not None:
            named[output.called] = after
    return named
