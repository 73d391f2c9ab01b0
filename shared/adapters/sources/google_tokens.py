"""Access tokens of Google's, as whom this process runs: Application Default Credentials."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING

from requests import PreparedRequest

from shared.adapters.destinations import outcomes
from shared.adapters.destinations.authorization import Authorization
from shared.adapters.destinations.google_session import credentials_for
from shared.adapters.sources.failures import failure
from shared.errors import (
    DestinationMisconfiguredError,
    DestinationUnavailableError,
    SourceMisconfiguredError,
    SourceUnavailableError,
)

if TYPE_CHECKING:
    from google.auth.credentials import Credentials


class GoogleTokens(Authorization):
    """Sets a bearer token, which it has Google give when it has none that lasts.

    Looks for credentials when it is first needed, so that a machine without them says so then.
    """

    def __init__(self, source: str, url: str, *, timeout_s: float = 60.0) -> None:
        """A server at `url` without TLS is shown no token."""
        super().__init__(lambda: None)
        self._source, self._url, self._timeout_s = source, url, timeout_s
        self._token_lock = threading.Lock()
        self._credentials: Credentials | None = None

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """As Authorization. Raises: SourceUnavailableError and its kin."""
        with self._token_lock:
            if self._credentials is None:
                self._credentials = self._found()
            if not self._credentials.valid:
                self._refresh_token(self._credentials)
            self._credentials.apply(request.headers)  # type: ignore[no-untyped-call]
        return request

    def renew(self) -> bool:
        """Have another token given: the server did not take the last one."""
        with self._token_lock:
            if self._credentials is None:
                return False
            before = self._credentials.token
            self._refresh_token(self._credentials)
            return bool(self._credentials.token != before)

    def _found(self) -> Credentials:
        try:
            return credentials_for(self._source, self._url)
        except DestinationMisconfiguredError as error:
            raise SourceMisconfiguredError(*error.args) from None
        except DestinationUnavailableError as error:
            raise SourceUnavailableError(*error.args) from None

    def _refresh_token(self, credentials: Credentials) -> None:
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        try:
            request = functools.partial(Request(), timeout=self._timeout_s)
            credentials.refresh(request)  # type: ignore[no-untyped-call]
        except GoogleAuthError as error:
            raise failure(outcomes.client_error(error), self._source) from error
