"""API keys: found by their id, compared as hashes, gone when revoked."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.web.keys import COLLECTION, ApiKeys
from shared.web.wsgi import create_app
from tests.fakes import FakeClock
from tests.unit.web_fakes import FakeReception, fake_ports


@pytest.fixture
def documents(tmp_path: Path) -> SqliteDocumentStore:
    return SqliteDocumentStore(tmp_path / "documents.db")


@pytest.fixture
def keys(documents: SqliteDocumentStore) -> ApiKeys:
    return ApiKeys(documents, FakeClock())


class TestApiKeys:
    def test_knows_whose_a_key_is(self, keys: ApiKeys) -> None:
        made = keys.create("radiology", roles=("admin",), by="test")
        known = keys.verify(made.text)
        assert known is not None
        assert (known.name, known.key_id, known.roles) == ("radiology", made.key_id, ("admin",))

    def test_stores_no_secret(self, keys: ApiKeys, documents: SqliteDocumentStore) -> None:
        """Who reads the documents must not be able to sign in with what is there."""
        made = keys.create("radiology", by="test")
        stored = documents.get(COLLECTION, made.key_id)
        assert stored is not None
        assert made.text.split("_", 2)[2] not in str(stored.data)

    def test_refuses_a_key_with_another_secret(self, keys: ApiKeys) -> None:
        one, two = keys.create("one", by="test"), keys.create("two", by="test")
        mixed = f"axk_{one.key_id}_{two.text.split('_', 2)[2]}"
        assert keys.verify(mixed) is None

    @pytest.mark.parametrize(
        "text",
        ["", "axk", "axk__", "axk_000000000000_" + "a" * 43, "axk_../../etc_" + "a" * 43, "ä" * 99],
    )
    def test_refuses_what_is_no_key(self, keys: ApiKeys, text: str) -> None:
        assert keys.verify(text) is None

    def test_refuses_a_revoked_key(self, keys: ApiKeys) -> None:
        made = keys.create("radiology", by="test")
        assert keys.any_exists()
        keys.revoke(made.key_id)
        assert keys.verify(made.text) is None
        assert not keys.any_exists()

    def test_takes_a_preset_key_of_any_form_beside_the_others(
        self, documents: SqliteDocumentStore
    ) -> None:
        keys = ApiKeys(documents, FakeClock(), preset="correct horse")
        made = keys.create("radiology", by="test")
        assert keys.verify("correct horse") is not None
        assert keys.verify(made.text) is not None
        assert keys.verify("correct") is None

    def test_takes_a_preset_key_beyond_ascii_over_http(self, tmp_path: Path) -> None:
        app = create_app(fake_ports(tmp_path, FakeReception()), preset_key="schlüssel")
        key = "Api-Key schlüssel".encode().decode("latin-1")
        response = app.test_client().get("/nowhere", headers={"Authorization": key})
        assert response.status_code == 404

    def test_forgets_a_preset_key_with_its_setting(self, documents: SqliteDocumentStore) -> None:
        ApiKeys(documents, FakeClock(), preset="old").verify("old")
        assert ApiKeys(documents, FakeClock(), preset="new").verify("old") is None
        assert ApiKeys(documents, FakeClock(), preset="").verify("") is None
