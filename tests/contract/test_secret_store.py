"""What every SecretStore promises."""

from __future__ import annotations

import pytest

from shared.errors import SecretMissingError
from shared.ports import SecretStore


class TestSecretStore:
    """A new adapter is one more param of the `secrets` fixture."""

    @pytest.mark.parametrize("value", ["s3cret", "zwei\r\nZeilen\n", "ключ \N{KEY}"])
    def test_gives_back_what_was_put(self, secrets: SecretStore, value: str) -> None:
        secrets.put("peer-password", value)
        assert secrets.get("peer-password") == value

    def test_refuses_an_empty_value(self, secrets: SecretStore) -> None:
        with pytest.raises(ValueError):
            secrets.put("key", "")
        with pytest.raises(SecretMissingError):
            secrets.get("key")

    def test_the_newest_version_counts(self, secrets: SecretStore) -> None:
        secrets.put("key", "old")
        secrets.put("key", "new")
        assert secrets.get("key") == "new"

    def test_a_missing_secret_is_told(self, secrets: SecretStore) -> None:
        with pytest.raises(SecretMissingError):
            secrets.get("missing")

    def test_delete_removes_all_versions(self, secrets: SecretStore) -> None:
        secrets.put("key", "old")
        secrets.put("key", "new")
        secrets.delete("key")
        secrets.delete("key")
        with pytest.raises(SecretMissingError):
            secrets.get("key")

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "../x", "a\n", "x" * 256, "~a"])
    def test_refuses_other_names(self, secrets: SecretStore, name: str) -> None:
        with pytest.raises(ValueError):
            secrets.get(name)
        with pytest.raises(ValueError):
            secrets.put(name, "value")
        with pytest.raises(ValueError):
            secrets.delete(name)
