"""How we sign in to a DICOMweb server: not at all, with Basic, or with a bearer token."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable

from requests import PreparedRequest

_KEPT_S = 60.0


class UnusableSecretError(Exception):
    """The secret cannot stand in an HTTP header; the text does not quote it."""


class Authorization:
    """Sets the Authorization header of a request. Reads the secret when it is first needed, and
    again after a minute, so that a newer version of it soon counts.
    """

    def __init__(self, header: Callable[[], str | None]) -> None:
        """`header` reads the secret and gives the header's value, None for no header."""
        self._read = header
        self._lock = threading.Lock()
        self._value: str | None = None
        self._read_at_s: float | None = None

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """As `requests` wants it. Raises: SecretMissingError, UnusableSecretError."""
        value = self._current()
        if value is not None:
            request.headers["Authorization"] = value
        return request

    def renew(self) -> bool:
        """Read the secret now; True if it is another one than before. Raises as above."""
        with self._lock:
            before = self._value
            self._refresh()
            return self._value != before

    def _current(self) -> str | None:
        with self._lock:
            if self._read_at_s is None or time.monotonic() - self._read_at_s > _KEPT_S:
                self._refresh()
            return self._value

    def _refresh(self) -> None:
        self._value = self._read()
        self._read_at_s = time.monotonic()


def none() -> Authorization:
    """No Authorization header, also not one from somebody's ~/.netrc."""
    return Authorization(lambda: None)


def basic(username: str, password: Callable[[], str]) -> Authorization:
    """RFC 7617, in UTF-8."""
    return Authorization(
        lambda: "Basic " + base64.b64encode(f"{username}:{password()}".encode()).decode()
    )


def bearer(token: Callable[[], str]) -> Authorization:
    """RFC 6750."""

    def header() -> str:
        text = token().strip()
        if not text.isascii() or not text.isprintable():
            raise UnusableSecretError
        return f"Bearer {text}"

    return Authorization(header)
