"""Who may make which request: decided here and nowhere else. What is not named open is closed."""

from __future__ import annotations

from flask import Flask, Response, g, request

from shared.web.keys import ApiKeys, Principal
from shared.web.problems import ProblemError

# What needs no key: the health of the system, and the API's documentation, which a browser opens
# without one. Neither tells anything of patients or of the configuration.
OPEN_BLUEPRINTS = frozenset({"health", "documentation"})

_CHALLENGE = {"WWW-Authenticate": 'Api-Key realm="axiom-flow"'}


def install(app: Flask, keys: ApiKeys) -> None:
    """Have `app` refuse every request without a valid key, unknown paths included."""

    def authenticate() -> None:
        presented = _presented_key()
        if presented is None:
            if request.blueprint in OPEN_BLUEPRINTS:
                return
            raise ProblemError(
                401,
                "unauthenticated",
                "The request has no API key.",
                hint="Send the header `Authorization: Api-Key KEY`.",
                headers=_CHALLENGE,
            )
        principal = keys.verify(presented)
        if principal is None:
            raise ProblemError(
                401,
                "unauthenticated",
                "The API key is not valid.",
                hint="It may have been revoked, or lost characters on its way here.",
                headers=_CHALLENGE,
            )
        g.principal = principal

    def protect(response: Response) -> Response:
        headers = response.headers
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("X-Frame-Options", "DENY")
        headers.setdefault("Referrer-Policy", "no-referrer")
        headers.setdefault("Cache-Control", "no-store")
        headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        return response

    app.before_request(authenticate)
    app.after_request(protect)


def principal() -> Principal:
    """Who makes the request at hand."""
    found: Principal = g.principal
    return found


def is_authenticated() -> bool:
    """Whether the request has a valid key: only in what is open may it have none."""
    return "principal" in g


def acting() -> str:
    """Who makes the request at hand, as records name it."""
    found = principal()
    return f"{found.name} (key {found.key_id})"


def _presented_key() -> str | None:
    scheme, _, key = request.headers.get("Authorization", "").strip().partition(" ")
    # Bearer is what other systems' DICOMweb clients can send (RFC 6750), ours among them.
    if scheme.lower() not in ("api-key", "bearer") or not key.strip():
        key = request.headers.get("X-API-Key", "")
    # WSGI hands bytes over as Latin-1 (PEP 3333); a preset key may be beyond ASCII.
    return key.strip().encode("latin-1", "replace").decode("utf-8", "replace") or None
