"""Who may make which request: decided here and nowhere else. What is not named open is closed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from flask import Flask, Response, g, request

from shared.audit import ORIGIN, AuditLog, Origin
from shared.config.entities import Settings
from shared.identity.identity import Identity
from shared.identity.permissions import Permission
from shared.identity.principal import Principal
from shared.ports import Clock
from shared.rates import TokenBuckets
from shared.web import permissions
from shared.web.problems import ProblemError

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

log = logging.getLogger(__name__)

SESSION_COOKIE: Final = "axiom_session"
PROXY_HEADER: Final = "X-Goog-IAP-JWT-Assertion"

_CHALLENGE = {"WWW-Authenticate": 'Api-Key realm="axiom-flow", Bearer realm="axiom-flow"'}
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

# Credentials that are not good, from one address: guessing is hopeless, and cheap for us so.
_FAILURES_PER_S: Final = 5.0
_FAILURES_AT_ONCE: Final = 100.0

# Where a response does not say otherwise itself.
_PROTECTING_HEADERS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)

_CORS_HEADERS: Final = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Accept, If-Match, "
    "If-None-Match, Change-Reason, X-API-Key, Access-Purpose",
    "Access-Control-Max-Age": "600",
}
_MAX_PURPOSE_LENGTH: Final = 200
_CORS_EXPOSED: Final = "ETag, Location, Retry-After, Warning"


def install(app: Flask, identity: Identity, settings: Callable[[], Settings], clock: Clock) -> None:
    """Have `app` refuse every request that is not allowed, those to unknown paths included."""
    buckets = TokenBuckets(clock)

    def admit() -> Response | None:
        if preflight := _preflight(identity):
            return preflight
        needs_no_key = permissions.is_open(request.endpoint)
        address = request.remote_addr or ""
        wait_s = buckets.wait_s(f"failures {address}", _FAILURES_PER_S, _FAILURES_AT_ONCE)
        if wait_s > 0 and not needs_no_key:
            raise _too_many(wait_s)
        found = _who(identity, address)
        if found is None:
            if needs_no_key:
                return None
            if _presented() is not None:
                buckets.take(f"failures {address}", _FAILURES_PER_S, _FAILURES_AT_ONCE)
            raise _unauthenticated()
        g.principal = found
        ORIGIN.set(Origin(address, _purpose()))
        known = settings()
        if known.api_rate_limit_per_s:
            wait_s = buckets.take(
                f"{found.label} {address}", known.api_rate_limit_per_s, known.api_rate_limit_burst
            )
            if wait_s:
                raise _too_many(wait_s)
        if request.endpoint is not None and not needs_no_key:
            _authorize(found, request.endpoint)
        return None

    def forget_origin(_: BaseException | None) -> None:
        ORIGIN.set(Origin())

    def protect(response: Response) -> Response:
        headers = response.headers
        present = {name.lower() for name in headers.keys()}  # noqa: SIM118 (iterating gives pairs)
        for name, value in _PROTECTING_HEADERS:
            if name.lower() not in present:
                headers.add(name, value)
        if request.is_secure:
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        if origin := _allowed_origin(identity):
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = _CORS_EXPOSED
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        if identity.settings.cors_origins:
            response.vary.add("Origin")
        return response

    app.before_request(admit)
    app.after_request(protect)
    app.teardown_request(forget_origin)


def principal() -> Principal:
    """Who makes the request at hand."""
    found: Principal = g.principal
    return found


def is_authenticated() -> bool:
    """Whether it is known who makes the request: only in what is open may it not be."""
    return "principal" in g


def may(*wanted: Permission) -> bool:
    """Whether whoever makes the request may do all of it."""
    return principal().may(*wanted)


def acting() -> str:
    """Who makes the request at hand, as records name it."""
    return principal().label


def note_access(ports: Ports, what: str, id: str, study_uid: str = "") -> None:
    """Note in the audit log that whoever makes the request is shown patients' data.

    What for, they say themselves: `Access-Purpose`.
    """
    AuditLog(ports.documents, ports.clock).add(
        who=acting(), what=what, id=id, study_instance_uid=study_uid
    )


def _purpose() -> str:
    text = request.headers.get("Access-Purpose", "").strip()
    # WSGI hands bytes over as Latin-1 (PEP 3333).
    return text.encode("latin-1", "replace").decode("utf-8", "replace")[:_MAX_PURPOSE_LENGTH]


def _authorize(who: Principal, endpoint: str) -> None:
    needed = permissions.NEEDS.get(endpoint)
    if needed is not None and who.may(*needed):
        return
    log.info("forbidden", extra={"who": who.label, "endpoint": endpoint})
    # The same whether or not what is asked for exists: it is said before anybody looks.
    raise ProblemError(
        403,
        "forbidden",
        "What you signed in with may not do this.",
        hint="GET /api/v1/me shows what it may; an administrator gives roles.",
    )


def _who(identity: Identity, address: str) -> Principal | None:
    presented = _presented()
    if presented is not None:
        return identity.of_credential(presented, address)
    if identity.settings.iap_audience and (assertion := request.headers.get(PROXY_HEADER)):
        return identity.of_proxy(assertion)
    cookie = request.cookies.get(SESSION_COOKIE)
    if cookie and (request.method in _SAFE_METHODS or _is_same_origin()):
        return identity.of_credential(cookie, address)
    return None


def _is_same_origin() -> bool:
    """Whether a page of ours made the request: other pages' come with the cookie as well."""
    origin = request.headers.get("Origin")
    if origin is not None:
        return origin == request.host_url.rstrip("/")
    return request.headers.get("Sec-Fetch-Site") == "same-origin"


def _presented() -> str | None:
    """The credential of the header that has one."""
    scheme, _, text = request.headers.get("Authorization", "").strip().partition(" ")
    # Bearer is what other systems' DICOMweb clients can send (RFC 6750), ours among them.
    if scheme.lower() not in ("api-key", "bearer") or not text.strip():
        text = request.headers.get("X-API-Key", "")
    # WSGI hands bytes over as Latin-1 (PEP 3333); a preset key may be beyond ASCII.
    return text.strip().encode("latin-1", "replace").decode("utf-8", "replace") or None


def _unauthenticated() -> ProblemError:
    if _presented() is None:
        detail = "The request has no API key."
        hint = "Send the header `Authorization: Api-Key KEY`."
    else:
        detail = "The API key is not valid."
        hint = (
            "It may have expired, been revoked, be meant for other addresses, or have lost "
            "characters on its way here."
        )
    return ProblemError(401, "unauthenticated", detail, hint=hint, headers=_CHALLENGE)


def _too_many(wait_s: float) -> ProblemError:
    return ProblemError(
        429,
        "too-many-requests",
        "There were too many requests.",
        hint="Go on after the time that Retry-After says, and more slowly.",
        headers={"Retry-After": str(max(1, round(wait_s)))},
    )


def _allowed_origin(identity: Identity) -> str | None:
    origin = request.headers.get("Origin")
    return origin if origin in identity.settings.cors_origins else None


def _preflight(identity: Identity) -> Response | None:
    """The answer to a browser that asks what another origin's page may do; it has no key yet."""
    is_one = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    if not is_one or _allowed_origin(identity) is None:
        return None
    return Response(status=204, headers=_CORS_HEADERS)
