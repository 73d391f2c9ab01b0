"""A site with crosswalks: its configuration, and the maps over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from shared.adapters.crosswalk.maps import ConfiguredCrosswalks
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.object_store import FolderObjectStore
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.config.service import ConfigurationService
from tests.fakes import FakeClock


class SqlDatabase(Protocol):
    """What tests need of a database of `tests.databases`."""

    def execute(self, *statements: str) -> None: ...
    def insert(self, table: str, rows: Sequence[Mapping[str, str]]) -> None: ...
    def value(self, query: str) -> Any: ...
    def source(self, name: str = "ris", **settings: Any) -> dict[str, Any]: ...


class Site:
    """The maps of one configuration in one folder; a clock that stands still."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.clock = FakeClock()
        self.folder = home / "crosswalks"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.objects = FolderObjectStore(home / "objects")
        self.documents = SqliteDocumentStore(home / "documents.db")
        self.secrets = FileSecretStore(home / "secrets")
        self.configuration = ConfigurationService(
            self.objects, self.documents, self.secrets, self.clock
        )
        self._opened: list[ConfiguredCrosswalks] = []
        self.crosswalks = self.another_process()

    def another_process(self) -> ConfiguredCrosswalks:
        """Maps over the same home that share no memory with the others."""
        opened = ConfiguredCrosswalks(
            self.configuration, self.secrets, self.objects, self.documents, self.clock, self.folder
        )
        self._opened.append(opened)
        return opened

    def has(self, source: Mapping[str, Any], *maps: Mapping[str, Any]) -> None:
        """Configure one source and these maps."""
        self.configuration.apply(
            {"crosswalk_sources": [source], "crosswalk_maps": list(maps)}, by="test"
        )

    def lookup(self, map_name: str, **keys: str) -> Mapping[str, str] | None:
        return self.crosswalks.lookup(map_name, keys)

    def close(self) -> None:
        for opened in self._opened:
            opened.close()


def new_ids(**settings: Any) -> dict[str, Any]:
    """A map from `old_id` to `new_id` over the table `ids`."""
    return {
        "name": "new-ids",
        "source": "ris",
        "table": "ids",
        "match": [{"column": "old_id", "attribute": "PatientID"}],
        "outputs": [{"column": "new_id"}],
        **settings,
    }
