"""A DICOM store of the Cloud Healthcare API, asked for what it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

import requests
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession

from shared.adapters.destinations import outcomes
from shared.adapters.destinations.http_peer import retry_after_s
from shared.adapters.destinations.outcomes import Outcome
from shared.errors import ObjectMissingError, StorageUnavailableError

TERRAFORM_ADDRESS = "module.healthcare.google_healthcare_dicom_store.this"

# Without the last parameter Google would decompress what it sends.
_AS_STORED = "application/dicom; transfer-syntax=*"
_JSON = "application/dicom+json"
_PIECE_BYTES = 1 << 20
# Google's conformance statement knows no 404: what is not there may also be forbidden.
_MISSING = frozenset({403, 404, 410})


class HealthcareDicomStore:
    """DicomStore of the cloud, below the base URL of its DICOMweb services."""

    def __init__(
        self, session: AuthorizedSession, dicomweb_url: str, *, timeout_s: float = 60.0
    ) -> None:
        self._session, self._url, self._timeout_s = session, dicomweb_url, timeout_s

    def search(
        self, level: Literal["studies", "series", "instances"], /, **query: str | int
    ) -> Sequence[Mapping[str, Any]]:
        """One page. Google takes few keys, exact values alone, and a range of Study Date."""
        with self._request("GET", f"/{level}", _JSON, query) as response:
            if response.status_code == requests.codes.no_content:
                return []
            self._expect_success(response)
            found: Sequence[Mapping[str, Any]] = response.json()
            return found

    @contextmanager
    def retrieve(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
    ) -> Iterator[Iterator[bytes]]:
        """The Part 10 file as it is stored, in pieces. Raises: ObjectMissingError."""
        path = _path(study_instance_uid, series_instance_uid, sop_instance_uid)
        with self._request("GET", path, _AS_STORED) as response:
            if response.status_code in _MISSING:
                self._expect_gone(sop_instance_uid)
            self._expect_success(response)
            yield self._pieces(response)

    def delete(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
    ) -> None:
        """Delete one Instance; a missing one is no error."""
        path = _path(study_instance_uid, series_instance_uid, sop_instance_uid)
        with self._request("DELETE", path, "application/json") as response:
            if response.status_code in _MISSING:
                try:
                    self._expect_gone(sop_instance_uid)
                except ObjectMissingError:
                    return
            self._expect_success(response)

    def _expect_gone(self, sop_instance_uid: str) -> None:
        """Raises: ObjectMissingError if it is gone, and not merely forbidden."""
        if not self.search("instances", SOPInstanceUID=sop_instance_uid, limit=1):
            raise ObjectMissingError(sop_instance_uid)

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        # Within a `with` of the caller, so that whatever it raises is told as ours.
        with self._errors():
            yield from response.iter_content(_PIECE_BYTES)

    @contextmanager
    def _request(
        self, method: str, path: str, accept: str, query: Mapping[str, str | int] | None = None
    ) -> Iterator[requests.Response]:
        with (
            self._errors(),
            self._session.request(
                method,
                self._url + path,
                params=query,
                headers={"Accept": accept, "Accept-Encoding": "identity"},
                timeout=self._timeout_s,
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            yield response

    @staticmethod
    @contextmanager
    def _errors() -> Iterator[None]:
        try:
            yield
        except (requests.RequestException, GoogleAuthError, OSError) as error:
            # The text of these errors may quote the URL with whatever is in it.
            meaning = outcomes.client_error(error).meaning
            raise StorageUnavailableError(f"Healthcare API: {meaning}") from error

    @staticmethod
    def _expect_success(response: requests.Response) -> None:
        verdict = outcomes.http_status(response.status_code)
        if verdict.outcome is Outcome.SUCCESS:
            return
        words = f"Healthcare API: {verdict.meaning} ({response.status_code})"
        if verdict.outcome is not Outcome.TRANSIENT:
            words += f": apply {TERRAFORM_ADDRESS}, and the roles on it"
        unavailable = StorageUnavailableError(words)
        unavailable.retry_after_s = retry_after_s(response.headers, datetime.now(UTC))
        raise unavailable


def _path(study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> str:
    return (
        f"/studies/{study_instance_uid}/series/{series_instance_uid}/instances/{sop_instance_uid}"
    )
