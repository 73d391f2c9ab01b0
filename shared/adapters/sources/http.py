"""Requests to a DICOMweb server that is a source: signed, bounded in time, judged by one table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlencode, urljoin

import requests
from urllib3.exceptions import HTTPError

from shared.adapters.destinations import outcomes
from shared.adapters.destinations.authorization import Authorization, UnusableSecretError
from shared.adapters.destinations.http_peer import retry_after_s
from shared.adapters.destinations.outcomes import Outcome, Verdict
from shared.adapters.guarded_http import GuardedAdapter, origin_of
from shared.adapters.sources.failures import failure
from shared.errors import SecretMissingError, SourceUnavailableError

Query = Sequence[tuple[str, str]]

_PIECE_BYTES = 1 << 18
_LONGEST_DOCUMENT_BYTES = 256 << 20
# However slowly a document trickles in, it is here by then.
_LONGEST_DOCUMENT_S = 600.0
_UNAUTHORIZED = 401
_NO_DICOMWEB = Verdict(Outcome.MISCONFIGURED, "answers, but not as a DICOMweb server")


class SourceServer:
    """The server below `base_url`. Thread-safe; connections are kept and reused."""

    def __init__(
        self,
        name: str,
        base_url: str,
        authorization: Authorization,
        *,
        timeout_s: float,
        max_connections: int,
    ) -> None:
        """`timeout_s` limits each wait for the server."""
        self.name = name
        self._base_url = base_url.rstrip("/")
        self._authorization, self._timeout_s = authorization, timeout_s
        self._session = requests.Session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers["User-Agent"] = "axiom-flow"
        self._adapter = GuardedAdapter(pool_connections=1, pool_maxsize=max_connections)
        self._session.mount("http://", self._adapter)
        self._session.mount("https://", self._adapter)

    def documents(self, path: str, query: Query) -> list[Mapping[str, Any]] | None:
        """The DICOM JSON objects that a search gives (PS3.18 Annex F); None if there is no such
        resource.

        Raises: SourceUnavailableError and its kin.
        """
        with self.get(path, {"Accept": "application/dicom+json"}, query) as response:
            if response.status_code in (requests.codes.no_content, requests.codes.not_found):
                return [] if response.status_code == requests.codes.no_content else None
            self.check_status(response)
            body = self._read(response)
        try:
            found = json.loads(body) if body.strip() else []
        except (ValueError, RecursionError):
            raise self.no_dicomweb(response) from None
        if isinstance(found, dict):
            found = [found]
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self.no_dicomweb(response)
        return found

    @contextmanager
    def get(
        self, path: str, headers: Mapping[str, str], query: Query = ()
    ) -> Iterator[requests.Response]:
        """The response to a GET, whatever its status; its body is read within the block.

        Raises: SourceUnavailableError and its kin, also for what goes wrong in the block.
        """
        url = self._base_url + path
        with self.errors():
            response = self._send(url, headers, query)
            try:
                if response.status_code == _UNAUTHORIZED and self._authorization.renew():
                    response.close()
                    response = self._send(url, headers, query)
                if response.is_redirect:
                    target = urljoin(url, response.headers["Location"])
                    if origin_of(target) != origin_of(url):
                        # Whoever answers there was not configured, and shall not see the secret.
                        verdict = outcomes.http_status(response.status_code)
                        raise failure(verdict, self.name, f"to {origin_of(target)[1]}")
                    response.close()
                    response = self._send(target, headers, ())
                yield response
            finally:
                response.close()

    def check_status(self, response: requests.Response) -> None:
        """Raises: SourceUnavailableError and its kin unless the answer is a success."""
        verdict = outcomes.http_status(response.status_code)
        if (
            verdict.outcome is not Outcome.SUCCESS
            and response.status_code != requests.codes.partial
        ):
            wait_s = retry_after_s(response.headers, datetime.now(UTC))
            words = f"HTTP {response.status_code}"
            raise failure(verdict, self.name, words, retry_after_s=wait_s)

    def no_dicomweb(self, response: requests.Response) -> Exception:
        """What to raise for an answer that is something else, somebody's login page for one."""
        kind = response.headers.get("Content-Type", "no Content-Type").split(";")[0][:64]
        words = f"HTTP {response.status_code}, {outcomes.printable(kind)}"
        return failure(_NO_DICOMWEB, self.name, words)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what goes wrong with the server within the block into errors of sources."""
        try:
            yield
        except SecretMissingError as error:
            verdict = Verdict(Outcome.MISCONFIGURED, str(error))
            raise failure(verdict, self.name) from error
        except (requests.RequestException, OSError, HTTPError, UnusableSecretError) as error:
            # The text of these errors may quote the URL with whatever is in it.
            if isinstance(error, HTTPError):
                raise SourceUnavailableError(self.name, "answer cut short") from error
            raise failure(outcomes.client_error(error), self.name) from error

    def interrupt(self) -> None:
        """From another thread: have the requests that are under way end at once, with an error."""
        self._adapter.interrupt()

    def close(self) -> None:
        """Release connections."""
        self._session.close()

    def _send(self, url: str, headers: Mapping[str, str], query: Query) -> requests.Response:
        return self._session.get(
            url,
            # Wild cards as they are: Orthanc's plugin, for one, does not decode them.
            params=urlencode(list(query), safe="*?"),
            headers={"Accept-Encoding": "identity", **headers},
            auth=self._authorization,
            timeout=self._timeout_s,
            allow_redirects=False,
            stream=True,
        )

    def _read(self, response: requests.Response) -> bytes:
        body = bytearray()
        deadline_s = time.monotonic() + _LONGEST_DOCUMENT_S
        for piece in response.iter_content(_PIECE_BYTES):
            body += piece
            if len(body) > _LONGEST_DOCUMENT_BYTES:
                raise failure(
                    Verdict(Outcome.PERMANENT, "the answer is too long"), self.name, "QIDO-RS"
                )
            if time.monotonic() > deadline_s:
                raise SourceUnavailableError(self.name, "the answer does not end")
        return bytes(body)
