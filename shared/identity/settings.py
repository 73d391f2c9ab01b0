"""How people and machines are known, as the environment says it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from shared.environment import preset_api_key

GOOGLE = "https://accounts.google.com"
IAP_ISSUER = "https://cloud.google.com/iap"
IAP_JWKS_URL = "https://www.gstatic.com/iap/verify/public_key-jwk"


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """The settings; what is empty is switched off."""

    preset_key: str | None = None  # AXIOM_API_KEY: an admin's, of any form
    admin_email: str = ""  # AXIOM_ADMIN_EMAIL: an admin once the issuer vouches for it
    oidc_issuer: str = GOOGLE  # AXIOM_OIDC_ISSUER
    # AXIOM_OIDC_AUDIENCES: of ID tokens that are taken; the client's own id is one of them.
    oidc_audiences: tuple[str, ...] = ()
    oidc_client_id: str = ""  # AXIOM_OIDC_CLIENT_ID: switches the login flow on
    # AXIOM_OIDC_CLIENT_SECRET: the name of a secret in the secret store.
    oidc_client_secret: str = ""
    iap_audience: str = ""  # AXIOM_IAP_AUDIENCE: switches Identity-Aware Proxy on
    iap_jwks_url: str = IAP_JWKS_URL  # AXIOM_IAP_JWKS_URL
    # AXIOM_PUBLIC_URL: where browsers reach us; the login flow comes back there.
    public_url: str = ""
    # AXIOM_CORS_ORIGINS: pages from there may use the API.
    cors_origins: tuple[str, ...] = ()
    # AXIOM_TRUSTED_PROXIES: how many proxies before us write X-Forwarded-For.
    trusted_proxies: int = 0

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> IdentitySettings:
        """Raises: ValueError naming the setting that is wrong."""
        client_id = environ.get("AXIOM_OIDC_CLIENT_ID", "")
        audiences = _words(environ, "AXIOM_OIDC_AUDIENCES")
        return cls(
            preset_key=preset_api_key(environ),
            admin_email=environ.get("AXIOM_ADMIN_EMAIL", "").strip().lower(),
            oidc_issuer=_url(environ, "AXIOM_OIDC_ISSUER") or GOOGLE,
            oidc_audiences=(*audiences, *([client_id] if client_id else [])),
            oidc_client_id=client_id,
            oidc_client_secret=environ.get("AXIOM_OIDC_CLIENT_SECRET", ""),
            iap_audience=environ.get("AXIOM_IAP_AUDIENCE", ""),
            iap_jwks_url=_url(environ, "AXIOM_IAP_JWKS_URL") or IAP_JWKS_URL,
            public_url=_url(environ, "AXIOM_PUBLIC_URL"),
            cors_origins=_origins(environ),
            trusted_proxies=_count(environ, "AXIOM_TRUSTED_PROXIES"),
        )


def _words(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in environ.get(name, "").split(",") if word.strip())


def _url(environ: Mapping[str, str], name: str) -> str:
    text = environ.get(name, "").rstrip("/")
    if text and not _is_url(text):
        raise ValueError(f"{name} is not a URL such as https://axiom.example")
    return text


def _origins(environ: Mapping[str, str]) -> tuple[str, ...]:
    found = _words(environ, "AXIOM_CORS_ORIGINS")
    for origin in found:
        # `*` would let any page in the world ask with the browser's session.
        if not _is_url(origin) or urlsplit(origin).path:
            raise ValueError(
                "AXIOM_CORS_ORIGINS has origins such as https://viewer.example, no * and no path"
            )
    return found


def _is_url(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _count(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name) or "0"
    if not (text.isascii() and text.isdigit() and int(text) <= 10):
        raise ValueError(f"{name} is a number from 0 to 10")
    return int(text)
