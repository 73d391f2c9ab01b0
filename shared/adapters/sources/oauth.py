"""Tokens by the client credentials grant of OAuth 2.0 (RFC 6749 4.4)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import requests
from requests import PreparedRequest

from shared.adapters.destinations import outcomes
from shared.adapters.destinations.authorization import Authorization
from shared.adapters.destinations.outcomes import Outcome, Verdict
from shared.adapters.guarded_http import guarded_session
from shared.adapters.sources.failures import failure

# A token that ends sooner is not begun with any more.
_MARGIN_S = 30.0
_KEPT_S = 300.0
_LONGEST_KEPT_S = 86400.0


class ClientCredentials(Authorization):
    """Sets a bearer token, which it fetches from `token_url` when it has none that lasts."""

    def __init__(
        self,
        source: str,
        token_url: str,
        client_id: str,
        client_secret: Callable[[], str],
        *,
        scope: str = "",
        timeout_s: float = 60.0,
    ) -> None:
        super().__init__(lambda: None)
        self._source, self._token_url = source, token_url
        self._client_id, self._client_secret = client_id, client_secret
        self._scope, self._timeout_s = scope, timeout_s
        self._token_lock = threading.Lock()
        self._token, self._until_s = "", 0.0

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """As Authorization. Raises: SecretMissingError; SourceUnavailableError and its kin."""
        with self._token_lock:
            if time.monotonic() >= self._until_s:
                self._fetch()
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def renew(self) -> bool:
        """Fetch another token: the server did not take the last one."""
        with self._token_lock:
            before = self._token
            self._fetch()
            return self._token != before

    def _fetch(self) -> None:
        form = {"grant_type": "client_credentials"}
        if self._scope:
            form["scope"] = self._scope
        try:
            with guarded_session() as session:
                response = session.post(
                    self._token_url,
                    data=form,
                    auth=(self._client_id, self._client_secret()),
                    headers={"Accept": "application/json"},
                    timeout=self._timeout_s,
                    allow_redirects=False,
                )
            answer = response.json() if response.ok else {}
        except requests.JSONDecodeError:
            answer = {}
        except (requests.RequestException, OSError) as error:
            raise failure(outcomes.client_error(error), self._source, "token_url") from error
        if not response.ok:
            verdict = outcomes.http_status(response.status_code)
            if verdict.outcome is not Outcome.TRANSIENT:
                verdict = Verdict(Outcome.MISCONFIGURED, "token_url gives no token")
            raise failure(verdict, self._source, f"HTTP {response.status_code}")
        token = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            verdict = Verdict(Outcome.MISCONFIGURED, "token_url answers without a token")
            raise failure(verdict, self._source)
        lasts = answer.get("expires_in")
        lasts_s = float(lasts) if isinstance(lasts, int | float) else _KEPT_S
        self._token = token
        self._until_s = time.monotonic() + min(max(lasts_s - _MARGIN_S, 1.0), _LONGEST_KEPT_S)
