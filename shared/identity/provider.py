"""The OpenID Connect provider that people sign in with: its addresses, and the code flow.

The flow is the authorization code flow (OpenID Connect Core 3.1) with PKCE (RFC 7636) and a nonce.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from shared.identity.tokens import (
    Claims,
    Fetch,
    IdentityProviderUnavailableError,
    TokenRefusedError,
    TokenVerifier,
)

_TIMEOUT_S: Final = 15


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """What we remember between sending somebody to the provider and seeing them come back."""

    state: str
    nonce: str
    verifier: str  # of PKCE

    @classmethod
    def begin(cls) -> LoginAttempt:
        """A new one that nobody can guess."""
        return cls(secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48))


class Provider:
    """A provider by its issuer; its addresses are read from its discovery document, once."""

    def __init__(self, issuer: str, fetch: Fetch) -> None:
        self._issuer, self._fetch = issuer, fetch
        self._document: Mapping[str, Any] | None = None

    def jwks_url(self) -> str:
        """Where it publishes its keys. Raises: IdentityProviderUnavailableError."""
        return self._address("jwks_uri")

    def login_url(self, attempt: LoginAttempt, client_id: str, redirect_uri: str) -> str:
        """Where to send a browser. Raises: IdentityProviderUnavailableError."""
        digest = hashlib.sha256(attempt.verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "scope": "openid email",
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{self._address('authorization_endpoint')}?{urlencode(query)}"

    def claims(
        self,
        code: str,
        attempt: LoginAttempt,
        *,
        client_id: str,
        client_secret: Callable[[], str],
        redirect_uri: str,
        verifier: TokenVerifier,
    ) -> Claims:
        """Exchange the code that the browser came back with, and say who it is.

        Raises: TokenRefusedError; IdentityProviderUnavailableError; SecretMissingError.
        """
        import requests

        form = {
            "grant_type": "authorization_code",
            "code": code,
            "client_id": client_id,
            "client_secret": client_secret(),
            "redirect_uri": redirect_uri,
            "code_verifier": attempt.verifier,
        }
        try:
            response = requests.post(
                self._address("token_endpoint"),
                data=form,
                timeout=_TIMEOUT_S,
                allow_redirects=False,
            )
            if response.status_code in (400, 401, 403):
                raise TokenRefusedError("the provider does not take the code")
            response.raise_for_status()
            answer = response.json()
        except (requests.RequestException, OSError, ValueError) as error:
            raise IdentityProviderUnavailableError("token endpoint", type(error).__name__) from None
        token = answer.get("id_token") if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise TokenRefusedError("the provider gave no ID token")
        claims = verifier.verify(token)
        if not secrets.compare_digest(claims.nonce, attempt.nonce):
            raise TokenRefusedError("its nonce is of another attempt")
        return claims

    def _address(self, name: str) -> str:
        if self._document is None:
            document = self._fetch(f"{self._issuer}/.well-known/openid-configuration")
            if document.get("issuer") != self._issuer:
                raise IdentityProviderUnavailableError(
                    "discovery document", "it is of another issuer"
                )
            self._document = document
        found = self._document.get(name)
        if not isinstance(found, str):
            raise IdentityProviderUnavailableError("discovery document", f"it has no {name}")
        return found
