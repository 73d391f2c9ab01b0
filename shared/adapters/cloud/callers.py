"""Who calls a function: OIDC tokens that Google signs for Pub/Sub, Cloud Scheduler and services.

docs/cloud.md says what is asked of a token.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
from collections.abc import Collection, Mapping
from typing import Any

import requests
from google.auth import jwt
from google.auth.exceptions import GoogleAuthError

from shared.adapters.cloud.environment import Oidc
from shared.errors import StorageUnavailableError
from shared.pipeline.push import CallerRefusedError, HeaderFields
from shared.ports import Clock

_ISSUERS = ("accounts.google.com", "https://accounts.google.com")
# What Cloud Run puts in the place of a signature that it has checked.
_REMOVED = "SIGNATURE_REMOVED_BY_GOOGLE"
_CLOCK_SKEW_S = 30
_LONGEST_TOKEN = 16 * 1024
_DEFAULT_KEPT_S, _LONGEST_KEPT_S = 3600.0, 86400.0
# A token that names a key that we do not know has us look for newer keys, so often at the most.
_LOOK_AGAIN_AFTER_S = 60.0
_TIMEOUT_S = 10.0

Claims = Mapping[str, Any]


class Certificates:
    """Google's public keys, as X.509 certificates by key id, kept for as long as its answer says.

    Where they cannot be had again the known ones go on, for a day at the most.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self._url, self._clock = url, clock
        self._lock = threading.Lock()
        self._known: Mapping[str, str] = {}
        self._asked_at_s = self._got_at_s = float("-inf")
        self._kept_s = 0.0

    def by_key_id(self, wanted: str) -> Mapping[str, str]:
        """All of them, newer ones if `wanted` is not there. Raises: StorageUnavailableError."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            is_old = now_s - self._got_at_s > self._kept_s
            is_missing = wanted not in self._known
            may_ask = now_s - self._asked_at_s > _LOOK_AGAIN_AFTER_S or not self._known
            if is_old or (is_missing and may_ask):
                self._asked_at_s = now_s
                self._get(now_s)
            return self._known

    def _get(self, now_s: float) -> None:
        try:
            answer = requests.get(self._url, timeout=_TIMEOUT_S, allow_redirects=False)
            answer.raise_for_status()
            found = answer.json()
            if not isinstance(found, dict) or not found:
                raise ValueError("no certificates")
        except (requests.RequestException, ValueError) as error:
            if self._known and now_s - self._got_at_s < _LONGEST_KEPT_S:
                return
            raise StorageUnavailableError(
                f"Google's certificates for tokens cannot be had: {type(error).__name__}"
            ) from None
        asked = re.search(r"max-age=(\d{1,9})", answer.headers.get("Cache-Control", ""))
        self._kept_s = min(float(asked[1]) if asked else _DEFAULT_KEPT_S, _LONGEST_KEPT_S)
        self._known, self._got_at_s = found, now_s


class TokenCheck:
    """Lets the callers in that the settings name; a `CallerCheck`."""

    def __init__(
        self,
        oidc: Oidc,
        audiences: Collection[str],
        callers: Collection[str],
        certificates: Certificates,
        clock: Clock,
    ) -> None:
        self._oidc, self._certificates, self._clock = oidc, certificates, clock
        # Not sets: a claim may be of any type.
        self._audiences, self._callers = tuple(audiences), tuple(callers)

    def __call__(self, headers: HeaderFields) -> None:
        """Raises: CallerRefusedError; StorageUnavailableError if it cannot be found out now."""
        scheme, _, token = (headers.get("authorization") or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > _LONGEST_TOKEN:
            raise CallerRefusedError(401, "no bearer token")
        claims = self._claims(token)
        now_s = self._clock.now().timestamp()
        expires_at_s = claims.get("exp")
        if not isinstance(expires_at_s, int | float) or expires_at_s < now_s - _CLOCK_SKEW_S:
            raise CallerRefusedError(401, "the token has expired")
        if claims.get("iss") not in _ISSUERS:
            raise CallerRefusedError(401, "the token is not of accounts.google.com")
        if claims.get("aud") not in self._audiences:
            raise CallerRefusedError(401, "the token is for another audience")
        if claims.get("email_verified") is not True or claims.get("email") not in self._callers:
            raise CallerRefusedError(403, "the token is of another service account")

    def _claims(self, token: str) -> Claims:
        header, payload, signature = _parts(token)
        if signature == _REMOVED and self._oidc is Oidc.PLATFORM:
            return payload
        certificates = self._certificates.by_key_id(str(header.get("kid", "")))
        try:
            # Its own checks of time and audience are left to us, who have a clock and several
            # audiences; the signature counts here.
            jwt.decode(token, certs=certificates, clock_skew_in_seconds=_CLOCK_SKEW_S)
        except (GoogleAuthError, ValueError, TypeError):
            raise CallerRefusedError(401, "the token is not signed by Google, or not now") from None
        return payload


def _parts(token: str) -> tuple[Claims, Claims, str]:
    parts = token.split(".")
    if len(parts) != 3:
        raise CallerRefusedError(401, "not a token")
    return _json(parts[0]), _json(parts[1]), parts[2]


def _json(part: str) -> Claims:
    try:
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CallerRefusedError(401, "not a token")
    return found
