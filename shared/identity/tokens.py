"""Tokens that others sign: OpenID Connect ID tokens, and the header of Identity-Aware Proxy.

Both are JSON Web Tokens whose keys their issuer publishes (RFC 7517). Signature, algorithm, issuer,
audience and times are checked (OpenID Connect Core 3.1.3.7); what is in doubt is refused.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt

from shared.errors import Category, TransientError
from shared.identity.sessions import MAX_TOKEN_LENGTH
from shared.identity.settings import GOOGLE
from shared.ports import Clock

# Gives the JSON that a URL serves. Raises: IdentityProviderUnavailableError.
Fetch = Callable[[str], Mapping[str, Any]]

# Asymmetric alone: with HMAC, a published key would be good for signing (RFC 8725 3.1).
_ALGORITHMS: Final = ("RS256", "ES256")
_LEEWAY_S: Final = 60
_KEYS_LAST_S: Final = 3600
# A key id that is not known has the keys fetched again, but no stranger can have it done often.
_REFRESH_AFTER_S: Final = 30
_MAX_DOCUMENT_BYTES: Final = 1 << 20
_FETCH_TIMEOUT_S: Final = 10


class IdentityProviderUnavailableError(TransientError):
    """Who signs the tokens does not answer. args: which document of theirs, what went wrong."""

    code = "identity-provider-unavailable"
    category = Category.NETWORK
    hint = "Try again in a moment; API keys go on working meanwhile."
    template = "{}: {}"


class TokenRefusedError(Exception):
    """A token that proves nothing; args: why, without what it says."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says."""

    email: str
    issued_at_s: float
    nonce: str


class IssuerKeys:
    """The keys that an issuer publishes, fetched when they are needed and kept for an hour."""

    def __init__(self, url: Callable[[], str], fetch: Fetch, clock: Clock) -> None:
        self._url, self._fetch, self._clock = url, fetch, clock
        self._lock = threading.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at_s = float("-inf")

    def key(self, key_id: str) -> jwt.PyJWK:
        """Raises: TokenRefusedError if there is none; IdentityProviderUnavailableError."""
        with self._lock:
            age_s = self._clock.monotonic_s() - self._fetched_at_s
            if age_s > _KEYS_LAST_S or (key_id not in self._keys and age_s > _REFRESH_AFTER_S):
                try:
                    self._keys = _read_keys(self._fetch(self._url()))
                    self._fetched_at_s = self._clock.monotonic_s()
                except IdentityProviderUnavailableError:
                    if key_id not in self._keys:
                        raise
            if key_id not in self._keys:
                raise TokenRefusedError("it is signed with a key that its issuer does not publish")
            return self._keys[key_id]


class TokenVerifier:
    """Checks the tokens of one issuer for some audiences."""

    def __init__(
        self,
        issuer: str,
        audiences: tuple[str, ...],
        keys: IssuerKeys,
        clock: Clock,
        *,
        requires_verified_email: bool = True,
    ) -> None:
        self._issuers = [issuer]
        if issuer == GOOGLE:
            self._issuers.append(issuer.removeprefix("https://"))  # older ones of Google's
        self._audiences, self._keys, self._clock = audiences, keys, clock
        self._requires_verified_email = requires_verified_email

    def is_of_ours(self, token: str) -> bool:
        """Whether a token says that it is of this issuer; nothing of it is checked."""
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
        except jwt.PyJWTError:
            return False
        return claims.get("iss") in self._issuers

    def verify(self, token: str) -> Claims:
        """What the token says. Raises: TokenRefusedError; IdentityProviderUnavailableError."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise TokenRefusedError("it is too long")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in _ALGORITHMS or not isinstance(header.get("kid"), str):
                raise TokenRefusedError("it is not signed as it should be")
            claims = jwt.decode(
                token,
                self._keys.key(header["kid"]),
                [header["alg"]],
                audience=list(self._audiences),
                issuer=self._issuers,
                options={
                    "require": ["exp", "iat", "iss", "aud", "sub"],
                    # Our clock judges, which a test can move.
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.InvalidAudienceError:
            raise TokenRefusedError("it is meant for another audience") from None
        except jwt.InvalidIssuerError:
            raise TokenRefusedError("it is of another issuer") from None
        except jwt.PyJWTError as error:
            raise TokenRefusedError(type(error).__name__) from None
        return self._judged(claims)

    def _judged(self, claims: Mapping[str, Any]) -> Claims:
        now_s = self._clock.now().timestamp()
        times = {name: claims.get(name, now_s) for name in ("exp", "iat", "nbf")}
        if not all(isinstance(at, int | float) for at in times.values()):
            raise TokenRefusedError("its times are no numbers")
        if now_s >= times["exp"] + _LEEWAY_S:
            raise TokenRefusedError("its time is over")
        if times["iat"] > now_s + _LEEWAY_S or times["nbf"] > now_s + _LEEWAY_S:
            raise TokenRefusedError("its time has not come")
        email = claims.get("email")
        if not isinstance(email, str) or not email:
            raise TokenRefusedError("it has no e-mail address")
        if self._requires_verified_email and claims.get("email_verified") is not True:
            raise TokenRefusedError("its e-mail address is not verified")
        nonce = claims.get("nonce")
        return Claims(email.lower(), times["iat"], nonce if isinstance(nonce, str) else "")


def fetch_json(url: str) -> Mapping[str, Any]:
    """What a URL serves, within limits of time and size.

    Raises: IdentityProviderUnavailableError.
    """
    import requests

    where = url.partition("?")[0]
    try:
        with requests.get(
            url, timeout=_FETCH_TIMEOUT_S, stream=True, allow_redirects=False
        ) as response:
            if response.status_code != requests.codes.ok:
                raise IdentityProviderUnavailableError(where, f"status {response.status_code}")
            body = response.raw.read(_MAX_DOCUMENT_BYTES + 1, decode_content=True)
            document = json.loads(body[:_MAX_DOCUMENT_BYTES])
    except (requests.RequestException, OSError, ValueError, RecursionError) as error:
        raise IdentityProviderUnavailableError(where, type(error).__name__) from None
    if not isinstance(document, dict):
        raise IdentityProviderUnavailableError(where, "no JSON object")
    return document


def _read_keys(document: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    found: dict[str, jwt.PyJWK] = {}
    for key in document.get("keys") or ():
        if isinstance(key, dict) and isinstance(key.get("kid"), str):
            try:
                found[key["kid"]] = jwt.PyJWK(key)
            except jwt.PyJWTError:
                continue  # of a kind that we do not know, among others that we may
    return found
