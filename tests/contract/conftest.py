"""The adapters under contract, each as a fixture; a new one is one more name in `params`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.cloud import firestore

from shared.adapters.cloud.document_store import FirestoreDocumentStore
from shared.adapters.cloud.object_store import BucketObjectStore
from shared.adapters.cloud.secret_store import SecretManagerSecretStore
from shared.adapters.embedded.clock import SystemClock
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.adapters.embedded.object_store import FolderObjectStore
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.ports import DocumentStore, ObjectStore, SecretStore
from tests.google.cloud_storage import cloud_storage
from tests.google.emulators import emulator
from tests.google.secret_manager import secret_manager


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


@pytest.fixture
def bucket() -> Iterator[BucketObjectStore]:
    """Objects in a bucket of Cloud Storage."""
    with cloud_storage() as found:
        yield BucketObjectStore(found)


@pytest.fixture(params=["folder", "folder_with_named_files", "bucket"])
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


@pytest.fixture(scope="session")
def firestore_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where Google's Firestore emulator listens."""
    with emulator("firestore", tmp_path_factory.mktemp("emulator")) as address:
        yield address


@pytest.fixture(scope="session")
def pubsub_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where Google's Pub/Sub emulator listens."""
    with emulator("pubsub", tmp_path_factory.mktemp("emulator")) as address:
        yield address


@pytest.fixture
def firestore_documents(
    firestore_emulator: str, monkeypatch: pytest.MonkeyPatch
) -> FirestoreDocumentStore:
    """Documents in Firestore, in a project of their own."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_emulator)
    return FirestoreDocumentStore(firestore.Client(project=f"demo-{uuid.uuid4().hex[:12]}"))


@pytest.fixture(params=["sqlite_documents", "sqlite_documents_with_indices", "firestore_documents"])
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


@pytest.fixture
def secret_manager_secrets() -> Iterator[SecretManagerSecretStore]:
    """Secrets in Secret Manager."""
    with secret_manager() as client:
        yield SecretManagerSecretStore(client, "test")


@pytest.fixture(params=["files", "secret_manager_secrets"])
def secrets(request: pytest.FixtureRequest) -> SecretStore:
    """Each SecretStore in turn."""
    store: SecretStore = request.getfixturevalue(request.param)
    return store
