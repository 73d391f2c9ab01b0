"""API keys: made here, shown once, kept as hashes.

A key is `axk_<id>_<secret>`: the id finds the key's document, the secret is 256 random bits. So
much chance needs no slow hash: SHA-256 cannot be searched backwards, and costs microseconds.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from shared.pipeline.times import timestamp
from shared.ports import Clock, DocumentStore

COLLECTION = "api_keys"
ADMIN = "admin"

_KEY = re.compile(r"axk_([0-9a-f]{12})_([0-9A-Za-z_-]{43})")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request."""

    name: str
    key_id: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made; `text` cannot be had again."""

    key_id: str
    text: str


class ApiKeys:
    """The keys in a DocumentStore, and one more that the environment may preset."""

    def __init__(
        self, documents: DocumentStore, clock: Clock, *, preset: str | None = None
    ) -> None:
        """`preset` is an admin key of any form; it is valid while this process has it."""
        self._documents, self._clock = documents, clock
        self._preset_digest = _digest(preset) if preset else None

    def create(self, name: str, *, roles: Sequence[str] = (ADMIN,), by: str) -> NewKey:
        """Make a key for `name` to use. `by` is who asks for it."""
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        self._documents.create(
            COLLECTION,
            key_id,
            {
                "id": key_id,
                "name": name,
                "roles": list(roles),
                "sha256": _digest(secret).hex(),
                "created_at": timestamp(self._clock.now()),
                "created_by": by,
            },
        )
        return NewKey(key_id, f"axk_{key_id}_{secret}")

    def any_exists(self) -> bool:
        """Whether a key was ever made and not revoked."""
        return self._documents.count(COLLECTION) > 0

    def revoke(self, key_id: str) -> None:
        """The key is refused from now on; a key that is not there is no error."""
        self._documents.delete(COLLECTION, key_id)

    def verify(self, text: str) -> Principal | None:
        """Whose key `text` is; None if nobody's. Takes the same time for near and far misses."""
        if self._preset_digest is not None and hmac.compare_digest(
            self._preset_digest, _digest(text)
        ):
            return Principal("preset", "preset", (ADMIN,))
        parts = _KEY.fullmatch(text)
        if parts is None:
            return None
        key_id, secret = parts.groups()
        found = self._documents.get(COLLECTION, key_id)
        expected = bytes.fromhex(found.data["sha256"]) if found else bytes(32)
        if not hmac.compare_digest(expected, _digest(secret)) or found is None:
            return None
        return Principal(found.data["name"], key_id, tuple(found.data["roles"]))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
