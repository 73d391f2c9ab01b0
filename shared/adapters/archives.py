"""What listeners stand in front of: the archive of each, and whom its Instances are moved to."""

from __future__ import annotations

import threading
from collections.abc import Callable

from shared.adapters.archive import Archive, Store, open_archive
from shared.adapters.destinations.association import Peer
from shared.adapters.destinations.security import security_of
from shared.config.entities import (
    Configuration,
    DicomwebDestination,
    DimseDestination,
    GoogleHealthcareDestination,
)
from shared.config.query_retrieve import QueryRetrieve
from shared.config.sources import DicomwebSource, GoogleHealthcareSource
from shared.errors import SourceMisconfiguredError
from shared.ports import Clock, SecretStore

# What we let a Storage SCP send to us in one PDU; it only ever answers.
_MAX_PDU_BYTES = 16384


class Archives:
    """The archives by the names of their stores, as configured now. Thread-safe."""

    def __init__(
        self, configuration: Callable[[], Configuration], secrets: SecretStore, clock: Clock
    ) -> None:
        self._configuration, self._secrets, self._clock = configuration, secrets, clock
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Store, Archive]] = {}

    def of(self, name: str) -> Archive:
        """The archive of a store; its connections are kept and reused.

        Raises: SourceMisconfiguredError and its kin.
        """
        store = self._store(name)
        with self._lock:
            known = self._open.get(name)
            if known is not None and known[0] == store:
                return known[1]
            archive = open_archive(store, self._secrets, self._clock)
            # Whoever still asks the former one goes on with connections of its own.
            self._open[name] = store, archive
            return archive

    def move_destination(
        self, services: QueryRetrieve, ae_title: str, *, calling_ae_title: str, timeout_s: float
    ) -> Peer | None:
        """Where that AE listens; None if nobody has said so."""
        given = services.move_destinations.get(ae_title)
        if given is not None:
            return Peer(
                given.host, given.port, ae_title, calling_ae_title, _MAX_PDU_BYTES, timeout_s
            )
        for entity in self._configuration().destinations:
            is_it = isinstance(entity, DimseDestination) and entity.ae_title == ae_title
            if is_it and isinstance(entity, DimseDestination) and entity.enabled:
                security = security_of(
                    entity.tls, host=entity.host, owner=entity.name, secrets=self._secrets
                )
                return Peer(
                    entity.host,
                    entity.port,
                    ae_title,
                    entity.calling_ae_title,
                    entity.max_pdu_size,
                    entity.timeout_s,
                    security,
                )
        return None

    @property
    def max_instance_bytes(self) -> int:
        """No Instance is fetched that is larger."""
        return self._configuration().settings.max_instance_bytes

    def _store(self, name: str) -> Store:
        configuration = self._configuration()
        for entity in (configuration.source(name), configuration.destination(name)):
            if isinstance(
                entity,
                DicomwebSource
                | GoogleHealthcareSource
                | DicomwebDestination
                | GoogleHealthcareDestination,
            ):
                return entity
        raise SourceMisconfiguredError(name, "there is no such DICOMweb store")
