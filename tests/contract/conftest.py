"""The adapters under contract, each as a fixture; a new one is one more name in `params`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.adapters.embedded.clock import SystemClock
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.adapters.embedded.object_store import FolderObjectStore
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.ports import DocumentStore, ObjectStore, SecretStore


@pytest.fixture
def folder(tmp_path: Path) -> FolderObjectStore:
    """Objects in a folder, linked without ever having had another name."""
    return FolderObjectStore(tmp_path / "objects")


@pytest.fixture
def folder_with_named_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderObjectStore:
    """The same on a file system that has no O_TMPFILE."""
    monkeypatch.setattr(
        "shared.adapters.embedded.object_store._can_link_nameless", lambda *_: False
    )
    return FolderObjectStore(tmp_path / "objects")


@pytest.fixture(params=["folder", "folder_with_named_files"])
def objects(request: pytest.FixtureRequest) -> ObjectStore:
    """Each ObjectStore in turn."""
    store: ObjectStore = request.getfixturevalue(request.param)
    return store


@pytest.fixture
def sqlite_documents(tmp_path: Path) -> Iterator[SqliteDocumentStore]:
    """Documents in SQLite without an index."""
    store = SqliteDocumentStore(tmp_path / "documents.db")
    yield store
    store.close()


@pytest.fixture
def sqlite_documents_with_indices(tmp_path: Path) -> Iterator[SqliteDocumentStore]:
    """Documents in SQLite that are found by index: the answers must not differ."""
    store = SqliteDocumentStore(
        tmp_path / "documents.db", {"things": ["rank", ("colour", "rank"), "mixed"]}
    )
    yield store
    store.close()


@pytest.fixture(params=["sqlite_documents", "sqlite_documents_with_indices"])
def documents(request: pytest.FixtureRequest) -> DocumentStore:
    """Each DocumentStore in turn."""
    store: DocumentStore = request.getfixturevalue(request.param)
    return store


@pytest.fixture
def sqlite_bus(tmp_path: Path) -> Iterator[SqliteMessageBus]:
    """Messages in SQLite."""
    bus = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", SystemClock())
    yield bus
    bus.close()


@pytest.fixture
def files(tmp_path: Path) -> FileSecretStore:
    """Secrets in files."""
    return FileSecretStore(tmp_path / "secrets")


@pytest.fixture(params=["files"])
def secrets(request: pytest.FixtureRequest) -> SecretStore:
    """Each SecretStore in turn."""
    store: SecretStore = request.getfixturevalue(request.param)
    return store
