"""API keys: found by their id, compared as hashes, limited, rotated, gone when revoked."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.errors import DocumentMissingError
from shared.identity.keys import COLLECTION, USES, ApiKeys, KeyScope
from shared.identity.settings import IdentitySettings
from shared.web.wsgi import create_app
from tests.fakes import FakeClock
from tests.unit.web_fakes import FakeReception, fake_ports


@pytest.fixture
def documents(tmp_path: Path) -> SqliteDocumentStore:
    return SqliteDocumentStore(tmp_path / "documents.db")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def keys(documents: SqliteDocumentStore, clock: FakeClock) -> ApiKeys:
    return ApiKeys(documents, clock)


class TestApiKeys:
    def test_knows_whose_a_key_is(self, keys: ApiKeys) -> None:
        made = keys.create("radiology", KeyScope(roles=("viewer",)), by="test")
        known = keys.verify(made.text)
        assert known is not None
        assert (known.user, known.key_id) == ("radiology", made.key_id)
        assert known.scope.roles == ("viewer",)

    def test_stores_and_shows_no_secret(
        self, keys: ApiKeys, documents: SqliteDocumentStore
    ) -> None:
        """Who reads the documents must not be able to sign in with what is there."""
        made = keys.create("radiology", by="test")
        stored = documents.get(COLLECTION, made.key_id)
        assert stored is not None
        secret = made.text.split("_", 2)[2]
        shown = str(keys.read(made.key_id)) + str(keys.list())
        assert secret not in str(stored.data) + shown
        assert stored.data["sha256"] not in shown

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
        keys.revoke(made.key_id, by="test")
        keys.revoke(made.key_id, by="test")
        assert keys.verify(made.text) is None
        assert not keys.any_exists()

    def test_refuses_a_key_whose_time_is_over(self, keys: ApiKeys, clock: FakeClock) -> None:
        scope = KeyScope(expires_at=clock.now() + timedelta(hours=1))
        made = keys.create("radiology", scope, by="test")
        assert keys.verify(made.text) is not None
        clock.advance(3600)
        assert keys.verify(made.text) is None

    @pytest.mark.parametrize(
        ("address", "is_for_it"),
        [
            ("10.1.2.3", True),
            ("::ffff:10.1.2.3", True),
            ("10.2.0.1", False),
            ("2001:db8::7", True),
            ("", False),
            ("nonsense", False),
        ],
    )
    def test_is_good_from_its_networks_alone(
        self, keys: ApiKeys, address: str, is_for_it: bool
    ) -> None:
        scope = KeyScope(addresses=("10.1.2.99/16", "2001:db8::/32"))
        known = keys.verify(keys.create("ct", scope, by="test").text)
        assert known is not None
        assert known.is_for(address) is is_for_it

    def test_rotates_to_a_key_that_is_good_for_the_same(
        self, keys: ApiKeys, clock: FakeClock
    ) -> None:
        scope = KeyScope(roles=("uploader",), addresses=("10.0.0.0/8",), label="CT 1")
        old = keys.create("ct", scope, by="test")
        new = keys.rotate(old.key_id, by="test", overlap=timedelta(minutes=5))
        renewed = keys.verify(new.text)
        assert renewed is not None
        assert (renewed.user, renewed.scope) == ("ct", scope)
        assert keys.verify(old.text) is not None
        clock.advance(300)
        assert keys.verify(old.text) is None
        assert keys.verify(new.text) is not None

    def test_rotating_does_not_prolong_the_old_key(self, keys: ApiKeys, clock: FakeClock) -> None:
        scope = KeyScope(expires_at=clock.now() + timedelta(minutes=1))
        old = keys.create("ct", scope, by="test")
        keys.rotate(old.key_id, by="test", overlap=timedelta(days=1))
        clock.advance(60)
        assert keys.verify(old.text) is None

    def test_rotates_none_that_is_not_there(self, keys: ApiKeys) -> None:
        with pytest.raises(DocumentMissingError):
            keys.rotate("0" * 12, by="test")

    def test_notes_its_use_to_the_hour_and_writes_that_no_oftener(
        self, keys: ApiKeys, documents: SqliteDocumentStore, clock: FakeClock
    ) -> None:
        made = keys.create("ct", by="test")
        assert keys.read(made.key_id)["last_used_at"] is None
        keys.note_use(made.key_id)
        first = documents.get(USES, made.key_id)
        clock.advance(600)
        keys.note_use(made.key_id)
        assert documents.get(USES, made.key_id) == first
        clock.advance(3600)
        keys.note_use(made.key_id)
        assert keys.read(made.key_id)["last_used_at"] == "2026-11-21T11:00:00Z"


class TestPresetKey:
    """AXIOM_API_KEY: of any form, and valid as long as the setting says so."""

    @pytest.mark.parametrize(
        ("preset", "key", "status"),
        [
            ("correct horse", "correct horse", 404),
            ("schlüssel", "schlüssel", 404),
            ("correct horse", "correct", 401),
            ("correct horse", "", 401),
            ("", "", 401),
        ],
    )
    def test_is_an_administrators(self, tmp_path: Path, preset: str, key: str, status: int) -> None:
        app = create_app(fake_ports(tmp_path, FakeReception()), IdentitySettings(preset_key=preset))
        header = f"Api-Key {key}".encode().decode("latin-1")
        response = app.test_client().get("/nowhere", headers={"Authorization": header})
        assert response.status_code == status
