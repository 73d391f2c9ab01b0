"""A peer that is asked over HTTP: how we sign in, send, and understand that it will not.

A redirect to another server is not followed, and no answer is believed beyond its first megabyte.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Final
from urllib.parse import urljoin

import requests

from shared.adapters.destinations import outcomes
from shared.adapters.destinations.authorization import Authorization, UnusableSecretError
from shared.adapters.destinations.multipart import Body
from shared.adapters.destinations.outcomes import Outcome, Verdict
from shared.adapters.guarded_http import GuardedAdapter, origin_of
from shared.errors import AxiomError, SecretMissingError

_LONGEST_ANSWER_BYTES: Final = 1 << 20
PIECE_BYTES: Final = 1 << 16
_LONGEST_RETRY_AFTER_S: Final = 3600.0
_UNAUTHORIZED: Final = 401
_REDIRECTS_THAT_KEEP_THE_METHOD: Final = frozenset({307, 308})


class HttpPeer:
    """A destination's server below `base_url`. Connections are kept and reused."""

    def __init__(
        self,
        name: str,
        *,
        base_url: str,
        authorization: Authorization,
        timeout_s: float = 60.0,
        max_connections: int = 4,
        session: requests.Session | None = None,
    ) -> None:
        """`timeout_s` limits each wait for the server: connect, take bytes, answer. A `session`
        may sign in by itself; it is closed with the destination.
        """
        self._name, self._base_url = name, base_url.rstrip("/")
        self._authorization, self._timeout_s = authorization, timeout_s
        self._session = session or requests.Session()
        # A server's cookies are nothing to us, and threads share the session.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers["User-Agent"] = "axiom-flow"
        adapter = GuardedAdapter(pool_connections=1, pool_maxsize=max_connections)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def close(self) -> None:
        """As Destination."""
        self._session.close()

    def _failure(
        self, verdict: Verdict, response: requests.Response, words: str = ""
    ) -> AxiomError:
        text = ", ".join(filter(None, [f"HTTP {response.status_code}", words]))
        wait = retry_after_s(response.headers, datetime.now(UTC))
        return outcomes.failure(verdict, self._name, text, retry_after_s=wait)

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Body | None = None,
    ) -> Iterator[requests.Response]:
        """Send; once more with a newer secret after a 401, or to where the same server redirects.

        Raises: DestinationMisconfiguredError for a redirect to another server.
        """
        url = self._base_url + path
        response = self._send(method, url, headers, body)
        try:
            if response.status_code == _UNAUTHORIZED and self._authorization.renew():
                response.close()
                response = self._send(method, url, headers, body)
            if response.is_redirect:
                target = urljoin(url, response.headers["Location"])
                if response.status_code not in _REDIRECTS_THAT_KEEP_THE_METHOD or origin_of(
                    target
                ) != origin_of(url):
                    # Whoever answers there was not configured, and shall see neither the Instance
                    # nor the secret.
                    raise self._failure(
                        outcomes.http_status(response.status_code),
                        response,
                        f"to {origin_of(target)[1]}",
                    )
                response.close()
                response = self._send(method, target, headers, body)
            yield response
        finally:
            response.close()

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None
    ) -> requests.Response:
        return self._session.request(
            method,
            url,
            data=body,
            headers=headers,
            auth=self._authorization,
            timeout=self._timeout_s,
            allow_redirects=False,
            stream=True,
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SecretMissingError as error:
            verdict = Verdict(Outcome.MISCONFIGURED, str(error))
            raise outcomes.failure(verdict, self._name) from error
        except (requests.RequestException, OSError, UnusableSecretError) as error:
            # The text of these errors may quote the URL with whatever is in it.
            raise outcomes.failure(outcomes.client_error(error), self._name) from error


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """The server's wish in seconds (RFC 9110 10.2.3), an hour at most; None if it has none."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return min(float(text), _LONGEST_RETRY_AFTER_S)
    try:
        wanted = parsedate_to_datetime(text)
        seconds = (wanted.replace(tzinfo=wanted.tzinfo or UTC) - now).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), _LONGEST_RETRY_AFTER_S)


def read(response: requests.Response) -> bytes:
    """The start of the answer, 1 MiB at most: much more than one Instance's answer takes."""
    body = bytearray()
    deadline_s = time.monotonic() + 60
    for piece in response.iter_content(PIECE_BYTES):
        body += piece
        if len(body) > _LONGEST_ANSWER_BYTES or time.monotonic() > deadline_s:
            break
    return bytes(body)
