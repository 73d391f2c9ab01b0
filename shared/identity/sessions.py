"""Session tokens: what somebody gets who signed in, good for an hour, renewed for half a day.

They are JSON Web Tokens (RFC 7519) signed with HMAC-SHA-256. The signing secret changes every day;
yesterday's is still known, so that a change ends nobody's session.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from typing import Any, Final

import jwt

from shared.errors import DocumentExistsError, SecretMissingError
from shared.ports import Clock, DocumentStore, Filter, SecretStore

COLLECTION: Final = "session_secrets"

LIFETIME_S: Final = 3600
RENEWABLE_S: Final = 12 * 3600
_PERIOD_S: Final = 24 * 3600
_ISSUER: Final = "axiom-flow"
_ALGORITHM: Final = "HS256"
MAX_TOKEN_LENGTH: Final = 16_384


@dataclass(frozen=True, slots=True)
class Session:
    """What a token says, once its signature and time are found good."""

    user: str
    signed_in_at_s: float
    expires_at_s: float


@dataclass(frozen=True, slots=True)
class NewSession:
    """A token that was just made."""

    token: str
    expires_at_s: float


class Sessions:
    """Makes and checks tokens; several processes over the same stores know each other's."""

    def __init__(self, documents: DocumentStore, secret_store: SecretStore, clock: Clock) -> None:
        self._documents, self._secrets, self._clock = documents, secret_store, clock
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}

    def issue(self, user: str, *, signed_in_at_s: float | None = None) -> NewSession | None:
        """A token for `user`, who signed in then (now, if None); None if that is too long ago."""
        now_s = self._clock.now().timestamp()
        began_s = now_s if signed_in_at_s is None else signed_in_at_s
        expires_s = min(now_s + LIFETIME_S, began_s + RENEWABLE_S)
        if expires_s <= now_s:
            return None
        claims = {"sub": user, "exp": int(expires_s), "auth_time": began_s}
        return NewSession(self.sign("session", claims), int(expires_s))

    def verify(self, token: str) -> Session | None:
        """What a token of `issue` says; None for any other, and for one whose time is over."""
        claims = self.read("session", token)
        if claims is None:
            return None
        return Session(claims["sub"], float(claims["auth_time"]), float(claims["exp"]))

    def sign(self, purpose: str, claims: dict[str, Any]) -> str:
        """A token of ours with these claims, `exp` among them; good for that purpose alone."""
        period = self._period()
        payload = {**claims, "iss": _ISSUER, "aud": purpose}
        return jwt.encode(payload, self._secret(period), _ALGORITHM, headers={"kid": period})

    def read(self, purpose: str, token: str) -> dict[str, Any] | None:
        """The claims of a token of `sign` for that purpose; None if it is none, or is over."""
        if len(token) > MAX_TOKEN_LENGTH:
            return None
        try:
            period = jwt.get_unverified_header(token).get("kid")
            if period not in (self._period(), self._period(-1)):
                return None
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret(period),
                [_ALGORITHM],
                audience=purpose,
                issuer=_ISSUER,
                # Our clock judges, which a test can move.
                options={"require": ["exp"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.PyJWTError:
            return None
        return claims if self._clock.now().timestamp() < claims["exp"] else None

    def _period(self, offset: int = 0) -> str:
        return f"{int(self._clock.now().timestamp() // _PERIOD_S) + offset:08d}"

    def _secret(self, period: str) -> str:
        with self._lock:
            if period not in self._known:
                self._known = {
                    known: secret
                    for known, secret in self._known.items()
                    if known >= self._period(-1)
                }
                self._known[period] = self._stored(period)
            return self._known[period]

    def _stored(self, period: str) -> str:
        """The period's secret, made by whoever asks first. Raises: StorageUnavailableError."""
        found = self._documents.get(COLLECTION, period)
        if found is not None:
            return self._secrets.get(found.data["secret"])
        name = f"session-{period}-{secrets.token_hex(4)}"
        value = secrets.token_urlsafe(48)
        self._secrets.put(name, value)
        try:
            self._documents.create(COLLECTION, period, {"period": period, "secret": name})
        except DocumentExistsError:
            # Another process was first; everybody signs with what it made.
            self._secrets.delete(name)
            found = self._documents.get(COLLECTION, period)
            if found is None:
                raise SecretMissingError(name) from None
            return self._secrets.get(found.data["secret"])
        self._forget_old()
        return value

    def _forget_old(self) -> None:
        old = self._documents.query(COLLECTION, [Filter("period", "<", self._period(-1))])
        for document in old.documents:
            self._secrets.delete(document.data["secret"])
            self._documents.delete(COLLECTION, document.key)
