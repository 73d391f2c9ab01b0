"""Who it is: one answer for keys, sessions, ID tokens and Identity-Aware Proxy."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.identity.directory import Directory
from shared.identity.keys import ApiKeys, VerifiedKey, is_equal_text
from shared.identity.permissions import ALL
from shared.identity.principal import PRESET, Principal
from shared.identity.provider import Provider
from shared.identity.sessions import Sessions
from shared.identity.settings import IAP_ISSUER, IdentitySettings
from shared.identity.tokens import (
    Fetch,
    IssuerKeys,
    TokenRefusedError,
    TokenVerifier,
    fetch_json,
)
from shared.ports import Clock, DocumentStore, SecretStore

# How late a change of users, roles and keys may take effect elsewhere.
_KEEP_S: Final = 1.0
_MOST_KEPT: Final = 4096


class UnknownUserError(Exception):
    """A good token of somebody who is no user here, or none that is enabled."""


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    until_s: float
    key: VerifiedKey | None


class Identity:
    """Knows who shows what; one for each process that serves, used by all its threads."""

    def __init__(
        self,
        documents: DocumentStore,
        secret_store: SecretStore,
        clock: Clock,
        settings: IdentitySettings,
        fetch: Fetch = fetch_json,
    ) -> None:
        self.settings = settings
        self.directory = Directory(documents, clock)
        self.keys = ApiKeys(documents, clock)
        self.sessions = Sessions(documents, secret_store, clock)
        self.provider = Provider(settings.oidc_issuer, fetch)
        self.tokens = TokenVerifier(
            settings.oidc_issuer,
            settings.oidc_audiences,
            IssuerKeys(self.provider.jwks_url, fetch, clock),
            clock,
        )
        self._proxy = TokenVerifier(
            IAP_ISSUER,
            (settings.iap_audience,),
            IssuerKeys(lambda: settings.iap_jwks_url, fetch, clock),
            clock,
            requires_verified_email=False,  # the proxy lets nobody in whose is not
        )
        self._secrets, self._clock = secret_store, clock
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def of_credential(self, text: str, address: str) -> Principal | None:
        """Whose key, session or ID token this is, shown from that address; None if nobody's.

        Raises: IdentityProviderUnavailableError.
        """
        known = self._remembered(text, self._look_up)
        if known is None or (known.key is not None and not known.key.is_for(address)):
            return None
        return known.principal

    def of_proxy(self, assertion: str) -> Principal | None:
        """Who stands behind `X-Goog-IAP-JWT-Assertion`; None if it proves nothing.

        Raises: IdentityProviderUnavailableError.
        """

        def look_up(text: str) -> tuple[Principal, VerifiedKey | None] | None:
            return self._of_token(self._proxy, text, "proxy"), None

        return found.principal if (found := self._remembered(assertion, look_up)) else None

    def of_email(self, email: str, credential: str, signed_in_at_s: float) -> Principal:
        """Who has that address, which an issuer vouches for. Raises: UnknownUserError."""
        user = self.directory.user_of_email(email)
        if user is not None and user["enabled"]:
            permissions = self.directory.permissions_of(user["roles"])
            return Principal(user["name"], credential, permissions, signed_in_at_s=signed_in_at_s)
        # A user of that address who was switched off stays so, whatever the setting says.
        if user is None and email == self.settings.admin_email:
            return Principal(email, credential, ALL, signed_in_at_s=signed_in_at_s)
        raise UnknownUserError(email)

    def client_secret(self) -> str:
        """What we show the provider. Raises: SecretMissingError."""
        name = self.settings.oidc_client_secret
        return self._secrets.get(name) if name else ""

    def forget(self) -> None:
        """Have what was changed here take effect here at once."""
        with self._lock:
            self._known.clear()

    # ---- inside

    def _remembered(
        self,
        text: str,
        look_up: Callable[[str], tuple[Principal, VerifiedKey | None] | None],
    ) -> _Known | None:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        now_s = self._clock.monotonic_s()
        with self._lock:
            known = self._known.get(digest)
        if known is not None and now_s < known.until_s:
            return known
        try:
            found = look_up(text)
        except (TokenRefusedError, UnknownUserError):
            found = None
        if found is None:
            return None
        principal, key = found
        if key is not None:
            self.keys.note_use(key.key_id)
        known = _Known(principal, now_s + _KEEP_S, key)
        with self._lock:
            self._known[digest] = known
            self._known.move_to_end(digest)
            if len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)
        return known

    def _look_up(self, text: str) -> tuple[Principal, VerifiedKey | None] | None:
        preset = self.settings.preset_key
        if preset and is_equal_text(preset, text):
            return PRESET, None
        key = self.keys.verify(text)
        if key is not None:
            principal = self._of_key(key)
            return None if principal is None else (principal, key)
        if text.count(".") != 2:
            return None
        if self.settings.oidc_audiences and self.tokens.is_of_ours(text):
            return self._of_token(self.tokens, text, "ID token"), None
        principal = self._of_session(text)
        return None if principal is None else (principal, None)

    def _of_key(self, key: VerifiedKey) -> Principal | None:
        user = self.directory.user(key.user)
        if user is None or not user["enabled"]:
            return None
        permissions = self.directory.permissions_of(user["roles"])
        scope = key.scope
        if scope.roles is not None:
            permissions &= self.directory.permissions_of(scope.roles)
        limited = bool(scope.roles is not None or scope.addresses or scope.expires_at)
        return Principal(key.user, f"key {key.key_id}", permissions, limited)

    def _of_session(self, text: str) -> Principal | None:
        session = self.sessions.verify(text)
        if session is None:
            return None
        if session.user == self.settings.admin_email:
            try:
                return self.of_email(session.user, "session", session.signed_in_at_s)
            except UnknownUserError:
                return None
        user = self.directory.user(session.user)
        if user is None or not user["enabled"]:
            return None
        ended_at = user.get("sessions_end_at")
        if ended_at and session.signed_in_at_s <= datetime.fromisoformat(ended_at).timestamp():
            return None
        permissions = self.directory.permissions_of(user["roles"])
        return Principal(
            session.user, "session", permissions, signed_in_at_s=session.signed_in_at_s
        )

    def _of_token(self, verifier: TokenVerifier, text: str, credential: str) -> Principal:
        """Raises: TokenRefusedError, UnknownUserError, IdentityProviderUnavailableError."""
        claims = verifier.verify(text)
        return self.of_email(claims.email, credential, claims.issued_at_s)
