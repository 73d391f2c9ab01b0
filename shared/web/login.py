"""Signing in: people by the OpenID Connect code flow, machines by an ID token: /api/v1/auth.

Either way a session token comes of it, good for an hour and renewed for half a day.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from flask import Response, redirect, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from shared.identity.identity import Identity, UnknownUserError
from shared.identity.principal import PRESET
from shared.identity.provider import LoginAttempt
from shared.identity.sessions import NewSession
from shared.identity.tokens import TokenRefusedError
from shared.ports import Clock
from shared.web.access import SESSION_COOKIE, acting, principal
from shared.web.documents_out import json_response
from shared.web.problems import PROBLEM_RESPONSES, ProblemError

URL_PREFIX: Final = "/api/v1/auth"

_ATTEMPT_COOKIE: Final = "axiom_login"
_ATTEMPT_S: Final = 600
_PURPOSE: Final = "login"


class LoginQuery(BaseModel):
    """Where to go once signed in."""

    next: str = Field(default="", max_length=2000, description="A path of ours, with its query")


class CallbackQuery(BaseModel):
    """What the provider sends the browser back with."""

    model_config = ConfigDict(extra="ignore")

    state: str = Field(default="", max_length=500)
    code: str = Field(default="", max_length=4000)
    error: str = Field(default="", max_length=500)


class SessionAnswer(BaseModel):
    """A session token: send it as `Authorization: Bearer TOKEN`."""

    token: str
    expires_at: str


def open_blueprint(identity: Identity, clock: Clock) -> APIBlueprint:
    """The routes that people come to before anybody knows them."""
    routes = APIBlueprint(
        "login",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="login", description="Signing in")],
        abp_responses=PROBLEM_RESPONSES,
    )
    settings = identity.settings

    def redirect_uri() -> str:
        return (settings.public_url or request.host_url.rstrip("/")) + f"{URL_PREFIX}/callback"

    @routes.get("/login", operation_id="log_in", responses={302: None})
    def log_in(query: LoginQuery) -> Response:
        """Send the browser to the provider, if AXIOM_OIDC_CLIENT_ID names a client there."""
        _check_configured(identity)
        attempt = LoginAttempt.begin()
        remembered = identity.sessions.sign(
            _PURPOSE,
            {
                **asdict(attempt),
                "next": query.next if _is_path_of_ours(query.next) else "",
                "exp": int(clock.now().timestamp()) + _ATTEMPT_S,
            },
        )
        url = identity.provider.login_url(attempt, settings.oidc_client_id, redirect_uri())
        answer = _sent_to(url, 302)
        _set_cookie(answer, _ATTEMPT_COOKIE, remembered, _ATTEMPT_S, path=URL_PREFIX)
        return answer

    @routes.get("/callback", operation_id="finish_log_in", responses={200: SessionAnswer})
    def finish_log_in(query: CallbackQuery) -> Response:
        """Where the provider sends the browser back to; a session begins."""
        _check_configured(identity)
        claims = identity.sessions.read(_PURPOSE, request.cookies.get(_ATTEMPT_COOKIE, ""))
        if claims is None or not secrets.compare_digest(
            claims["state"].encode(), query.state.encode()
        ):
            raise _failed("The sign-in was not begun here, or too long ago.")
        if not query.code:
            raise _failed("The provider let nobody in.")
        attempt = LoginAttempt(claims["state"], claims["nonce"], claims["verifier"])
        try:
            known = identity.provider.claims(
                query.code,
                attempt,
                client_id=settings.oidc_client_id,
                client_secret=identity.client_secret,
                redirect_uri=redirect_uri(),
                verifier=identity.tokens,
            )
            who = identity.of_email(known.email, "login", known.issued_at_s)
        except TokenRefusedError as error:
            raise _failed(f"The provider's token proves nothing: {error}.") from None
        except UnknownUserError:
            raise ProblemError(
                403,
                "unknown-user",
                "Nobody here has this e-mail address.",
                hint="Have an administrator add it to a user.",
            ) from None
        session = identity.sessions.issue(who.name)
        assert session is not None  # it begins now
        answer = _sent_to(claims["next"], 303) if claims["next"] else _session_answer(session)
        lasts_s = int(session.expires_at_s - clock.now().timestamp())
        _set_cookie(answer, SESSION_COOKIE, session.token, lasts_s, path="/")
        _set_cookie(answer, _ATTEMPT_COOKIE, "", 0, path=URL_PREFIX)
        return answer

    return routes


def blueprint(identity: Identity, clock: Clock) -> APIBlueprint:
    """The routes of those who are known already."""
    # The paths are those of the caller's session, so they go with those of the caller.
    routes = APIBlueprint(
        "session",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="login", description="Signing in")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    @routes.post("/session", operation_id="start_session", responses={200: SessionAnswer})
    def start_session() -> Response:
        """Exchange an ID token for a session token, or renew one, up to 12 hours after sign-in."""
        who = principal()
        if who.credential not in ("ID token", "proxy", "session"):
            raise ProblemError(
                409,
                "no-session",
                "An API key needs no session.",
                hint="Send the key with each request.",
            )
        since_s = who.signed_in_at_s if who.credential == "session" else None
        session = identity.sessions.issue(who.name, signed_in_at_s=since_s)
        if session is None:
            raise ProblemError(401, "unauthenticated", "The session is over.", hint="Sign in anew.")
        answer = _session_answer(session)
        if SESSION_COOKIE in request.cookies:
            lasts_s = int(session.expires_at_s - clock.now().timestamp())
            _set_cookie(answer, SESSION_COOKIE, session.token, lasts_s, path="/")
        return answer

    @routes.post("/logout", operation_id="log_out", responses={204: None})
    def log_out() -> Response:
        """End all sessions of whoever asks; API keys stay good."""
        if principal() is not PRESET:
            identity.directory.end_sessions(principal().name, by=acting())
            identity.forget()
        answer = Response(status=204)
        _set_cookie(answer, SESSION_COOKIE, "", 0, path="/")
        return answer

    return routes


def _check_configured(identity: Identity) -> None:
    if not identity.settings.oidc_client_id:
        raise ProblemError(
            404,
            "not-found",
            "Signing in with a browser is not set up.",
            hint="Set AXIOM_OIDC_CLIENT_ID and its companions; see docs/identity.md.",
        )


def _failed(detail: str) -> ProblemError:
    return ProblemError(401, "unauthenticated", detail, hint=f"Begin again: {URL_PREFIX}/login")


def _is_path_of_ours(path: str) -> bool:
    """A path alone: `//host` and what browsers take for it would lead elsewhere."""
    is_plain = path.isascii() and path.isprintable() and "\\" not in path
    return is_plain and path.startswith("/") and not path.startswith("//")


def _session_answer(session: NewSession) -> Response:
    expires_at = datetime.fromtimestamp(session.expires_at_s, UTC)
    body: dict[str, Any] = {
        "token": session.token,
        "expires_at": expires_at.isoformat().replace("+00:00", "Z"),
    }
    return json_response(body)


def _sent_to(url: str, status: int) -> Response:
    answer = redirect(url, status, Response)
    assert isinstance(answer, Response)
    return answer


def _set_cookie(answer: Response, name: str, value: str, lasts_s: int, *, path: str) -> None:
    answer.set_cookie(
        name,
        value,
        max_age=lasts_s,
        path=path,
        secure=request.is_secure,
        httponly=True,
        # Not Strict: the provider's page sends the browser back, and it must know us then.
        samesite="Lax",
    )
