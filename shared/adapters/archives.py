"""What listeners stand in front of: archives and worklists, and whom Instances are moved to."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from shared.adapters.archive import Archive, Store, open_archive
from shared.adapters.destinations.association import Peer
from shared.adapters.destinations.peers import peer_at
from shared.adapters.worklists import Worklist, open_worklist
from shared.config.entities import (
    Configuration,
    DicomwebDestination,
    DimseDestination,
    FilesystemDestination,
    GoogleHealthcareDestination,
)
from shared.config.peers import DimsePeer
from shared.config.query_retrieve import QueryRetrieve
from shared.config.sources import DicomwebSource, GoogleHealthcareSource
from shared.errors import AxiomError, SourceMisconfiguredError
from shared.ports import Clock, SecretStore

if TYPE_CHECKING:
    from shared.adapters.folder_store.archive import FolderArchive


class Archives:
    """The archives by the names of their stores, as configured now. Thread-safe."""

    def __init__(
        self,
        configuration: Callable[[], Configuration],
        secrets: SecretStore,
        clock: Clock,
        home: Path,
        storage_root: Path | None = None,
    ) -> None:
        """`home` is where relative paths of worklists begin and where an index is kept,
        `storage_root` where those of folders begin; None where there are none.
        """
        self._configuration, self._secrets, self._clock = configuration, secrets, clock
        self._home, self._storage_root = home, storage_root
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Store | FilesystemDestination, Archive | FolderArchive]] = {}
        self._worklists: dict[str, tuple[object, Worklist]] = {}

    def of(self, name: str) -> Archive | FolderArchive:
        """The archive of a store; its connections are kept and reused.

        Raises: SourceMisconfiguredError and its kin.
        """
        store = self._store(name)
        with self._lock:
            known = self._open.get(name)
            if known is not None and known[0] == store:
                return known[1]
            archive = self._opened(store)
            # Whoever still asks the former one goes on with connections of its own.
            self._open[name] = store, archive
            return archive

    def matches_fuzzily(self, services: QueryRetrieve) -> bool:
        """Whether the store matches names fuzzily: Google's does, a folder does not, another if
        that is said of it.
        """
        configuration = self._configuration()
        name = services.store
        entity = configuration.source(name) or configuration.destination(name)
        is_google = isinstance(entity, GoogleHealthcareSource | GoogleHealthcareDestination)
        is_folder = isinstance(entity, FilesystemDestination)
        return is_google or (services.fuzzy and not is_folder)

    def worklist(self, name: str) -> Worklist:
        """The worklist of that name; it is kept and reused.

        Raises: SourceMisconfiguredError.
        """
        configuration = self._configuration()
        entity = configuration.worklist(name)
        if entity is None or not entity.enabled:
            raise SourceMisconfiguredError(name, "there is no such worklist, or it is disabled")
        table = configuration.crosswalk_source(entity.source) if entity.type == "table" else None
        with self._lock:
            known = self._worklists.get(name)
            if known is not None and known[0] == (entity, table):
                return known[1]
            if known is not None:
                known[1].close()
            worklist = open_worklist(entity, configuration, self._secrets, self._clock, self._home)
            self._worklists[name] = (entity, table), worklist
            return worklist

    def worklist_faults(self) -> dict[str, str | None]:
        """For each worklist that a listener shows why it cannot be shown now, None if it can be.

        Another SCP is not asked: modalities do that.
        """
        listeners = self._configuration().listeners
        shown = sorted({one.worklist for one in listeners if one.enabled and one.worklist})
        return {name: self._worklist_fault(name) for name in shown}

    def _worklist_fault(self, name: str) -> str | None:
        entity = self._configuration().worklist(name)
        if entity is not None and entity.type == "dimse":
            return None
        try:
            next(iter(self.worklist(name).find(())), None)
        except AxiomError as error:
            return str(error)
        return None

    def move_destination(
        self, services: QueryRetrieve, ae_title: str, *, calling_ae_title: str, timeout_s: float
    ) -> Peer | None:
        """Where that AE listens; None if nobody has said so."""
        given = services.move_destinations.get(ae_title)
        if given is not None:
            return peer_at(
                given,
                self._secrets,
                called_ae_title=ae_title,
                calling_ae_title=calling_ae_title,
                timeout_s=timeout_s,
            )
        for entity in self._configuration().destinations:
            is_it = isinstance(entity, DimseDestination) and entity.ae_title == ae_title
            if is_it and isinstance(entity, DimseDestination) and entity.enabled:
                return peer_at(
                    DimsePeer.at(entity),
                    self._secrets,
                    called_ae_title=ae_title,
                    calling_ae_title=entity.calling_ae_title,
                    timeout_s=entity.timeout_s,
                    max_pdu_size=entity.max_pdu_size,
                )
        return None

    @property
    def max_instance_bytes(self) -> int:
        """No Instance is fetched that is larger."""
        return self._configuration().settings.max_instance_bytes

    def _opened(self, store: Store | FilesystemDestination) -> Archive | FolderArchive:
        if not isinstance(store, FilesystemDestination):
            return open_archive(store, self._secrets, self._clock)
        if self._storage_root is None:
            raise SourceMisconfiguredError(store.name, "no volume is mounted that has its folder")
        from shared.adapters.folder_store.archive import FolderArchive
        from shared.adapters.folder_store.index import FolderIndex

        root = self._storage_root / store.path
        mark = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
        index = FolderIndex(store.name, root, self._home / "folder-index" / f"{mark}.db")
        return FolderArchive(index)

    def _store(self, name: str) -> Store | FilesystemDestination:
        configuration = self._configuration()
        for entity in (configuration.source(name), configuration.destination(name)):
            if isinstance(
                entity,
                DicomwebSource
                | GoogleHealthcareSource
                | DicomwebDestination
                | GoogleHealthcareDestination
                | FilesystemDestination,
            ):
                return entity
        raise SourceMisconfiguredError(name, "there is no such store")
