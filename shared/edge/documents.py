"""Documents on the disk of a gateway on premises; some are for the cloud alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared import audit
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.edge.spool import Spool
from shared.pipeline import commitment
from shared.ports import Document, Put

# What is written here, read there, and never changed.
_FOR_THE_CLOUD = frozenset({audit.COLLECTION, audit.SPOOL, commitment.REPORTS})


class SpooledDocuments(SqliteDocumentStore):
    """What others write to a collection for the cloud goes the way of what is received."""

    def __init__(
        self, path: Path, indices: Mapping[str, Sequence[str | Sequence[str]]], spool: Spool
    ) -> None:
        super().__init__(path, indices)
        self._spool = spool

    def create(
        self, collection: str, key: str, data: Mapping[str, Any], *, also: Sequence[Put] = ()
    ) -> Document:
        """As DocumentStore; of two in a collection for the cloud the first counts there, and both
        are success here.
        """
        if collection not in _FOR_THE_CLOUD:
            return super().create(collection, key, data, also=also)
        for put in (Put(collection, key, data), *also):
            self._spool.keep(put.collection, put.key, put.data)
        return Document(key, data, "")
