"""API keys: made here, shown once, kept as hashes.

A key is `axk_<id>_<secret>`: the id finds the key's document, the secret is 256 random bits. So
much chance needs no slow hash: SHA-256 cannot be searched backwards, and costs microseconds.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from shared.audit import AuditLog
from shared.errors import DocumentMissingError
from shared.ports import Clock, DocumentStore, Filter, Page
from shared.times import timestamp

COLLECTION, USES = "api_keys", "api_key_uses"

# Noted at most so often, so that no key's document is written at each request.
_USE_NOTED_EVERY = timedelta(hours=1)
_KEY = re.compile(r"axk_([0-9a-f]{12})_([0-9A-Za-z_-]{43})")
_SECRET_FIELDS = ("sha256",)


@dataclass(frozen=True, slots=True)
class KeyScope:
    """What a key is good for, within what its user may do."""

    roles: tuple[str, ...] | None = None  # of all that the user has, if None
    addresses: tuple[str, ...] = ()  # IPv4 and IPv6 networks; from anywhere if empty
    expires_at: datetime | None = None  # never if None
    label: str = ""  # for people to tell keys apart


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made; `text` cannot be had again."""

    key_id: str
    text: str


@dataclass(frozen=True, slots=True)
class VerifiedKey:
    """A key that somebody showed, and that is good."""

    key_id: str
    user: str
    scope: KeyScope

    def is_for(self, address: str) -> bool:
        """Whether it may be used from there."""
        if not self.scope.addresses:
            return True
        try:
            known = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped:
            known = known.ipv4_mapped
        return any(known in ipaddress.ip_network(net) for net in self.scope.addresses)


class ApiKeys:
    """The keys in a DocumentStore. Every change is in the audit log."""

    def __init__(self, documents: DocumentStore, clock: Clock) -> None:
        self._documents, self._clock = documents, clock
        self._audit = AuditLog(documents, clock)

    def create(self, user: str, scope: KeyScope | None = None, *, by: str) -> NewKey:
        """Make a key for `user`. `by` is who asks for it."""
        scope = scope or KeyScope()
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        data = {
            "id": key_id,
            "user": user,
            "label": scope.label,
            "roles": None if scope.roles is None else list(scope.roles),
            "addresses": [str(ipaddress.ip_network(a, strict=False)) for a in scope.addresses],
            "expires_at": timestamp(scope.expires_at) if scope.expires_at else None,
            "sha256": _digest(secret).hex(),
            "created_at": timestamp(self._clock.now()),
            "created_by": by,
        }
        self._documents.create(COLLECTION, key_id, data)
        self._audit.add(who=by, what="keys.create", id=key_id, after=user)
        return NewKey(key_id, f"axk_{key_id}_{secret}")

    def any_exists(self) -> bool:
        """Whether a key was ever made and not revoked."""
        return self._documents.count(COLLECTION) > 0

    def list(self, user: str = "", *, limit: int = 100, cursor: str | None = None) -> Page:
        """Keys, of one user or all, the newest first; with `last_used_at`, to the hour, and without
        what they are checked by. Raises: ValueError for a foreign cursor.
        """
        where = [Filter("user", "==", user)] if user else []
        page = self._documents.query(
            COLLECTION, where, order_by="created_at", descending=True, limit=limit, cursor=cursor
        )
        shown = [replace(found, data=self._shown(found.data)) for found in page.documents]
        return Page(shown, page.cursor)

    def read(self, key_id: str) -> Mapping[str, Any]:
        """One key as `list` shows it. Raises: DocumentMissingError."""
        found = self._documents.get(COLLECTION, key_id)
        if found is None:
            raise DocumentMissingError(COLLECTION, key_id)
        return self._shown(found.data)

    def rotate(self, key_id: str, *, by: str, overlap: timedelta = timedelta(0)) -> NewKey:
        """Make a key that is good for the same, and let the old one expire after `overlap`.

        Raises: DocumentMissingError; DocumentChangedError if two do so at once.
        """
        found = self._documents.get(COLLECTION, key_id)
        if found is None:
            raise DocumentMissingError(COLLECTION, key_id)
        ends = timestamp(self._clock.now() + overlap)
        ends = min(ends, found.data["expires_at"] or ends)
        self._documents.replace(
            COLLECTION, key_id, {**found.data, "expires_at": ends}, found.version
        )
        made = self.create(found.data["user"], _scope(found.data), by=by)
        self._audit.add(who=by, what="keys.rotate", id=key_id, after=made.key_id)
        return made

    def revoke(self, key_id: str, *, by: str) -> None:
        """The key is refused from now on; a key that is not there is no error."""
        if self._documents.get(COLLECTION, key_id) is not None:
            self._audit.add(who=by, what="keys.revoke", id=key_id)
        self._documents.delete(COLLECTION, key_id)
        self._documents.delete(USES, key_id)

    def revoke_all_of(self, user: str, *, by: str) -> int:
        """Revoke every key of a user; how many they were."""
        count = 0
        while found := self.list(user, limit=500).documents:
            for one in found:
                self.revoke(one.key, by=by)
                count += 1
        return count

    def verify(self, text: str) -> VerifiedKey | None:
        """Whose key `text` is; None if nobody's. Takes the same time for near and far misses."""
        parts = _KEY.fullmatch(text)
        if parts is None:
            return None
        key_id, secret = parts.groups()
        found = self._documents.get(COLLECTION, key_id)
        expected = bytes.fromhex(found.data["sha256"]) if found else bytes(32)
        if not hmac.compare_digest(expected, _digest(secret)) or found is None:
            return None
        scope = _scope(found.data)
        if scope.expires_at is not None and self._clock.now() >= scope.expires_at:
            return None
        return VerifiedKey(key_id, found.data["user"], scope)

    def note_use(self, key_id: str) -> None:
        """Remember that the key is in use, to the hour."""
        now = self._clock.now()
        known = self._documents.get(USES, key_id)
        if known is None or known.data["at"] <= timestamp(now - _USE_NOTED_EVERY):
            self._documents.put(USES, key_id, {"at": timestamp(now)})

    def _shown(self, data: Mapping[str, Any]) -> dict[str, Any]:
        used = self._documents.get(USES, data["id"])
        shown = {name: value for name, value in data.items() if name not in _SECRET_FIELDS}
        return {**shown, "last_used_at": used.data["at"][:13] + ":00:00Z" if used else None}


def is_equal_text(one: str, other: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell how near they are."""
    return hmac.compare_digest(_digest(one), _digest(other))


def _scope(data: Mapping[str, Any]) -> KeyScope:
    return KeyScope(
        roles=None if data["roles"] is None else tuple(data["roles"]),
        addresses=tuple(data["addresses"]),
        expires_at=datetime.fromisoformat(data["expires_at"]) if data["expires_at"] else None,
        label=data["label"],
    )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
