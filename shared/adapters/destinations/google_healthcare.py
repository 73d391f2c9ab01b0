"""Delivery into a DICOM store of the Google Cloud Healthcare API, by its STOW-RS.

It departs from other servers in this: equal bytes again are a success there and other bytes a 409
that says so in words, with the same Failure Reason as an Instance that it will never take. What it
has cannot be replaced, but deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import requests

from shared.adapters.destinations import authorization, outcomes
from shared.adapters.destinations.dicomweb import DicomwebDestination, instance_path
from shared.adapters.destinations.google_session import credentials_for
from shared.adapters.destinations.outcomes import Outcome
from shared.adapters.destinations.stow_answer import Failed
from shared.dicom.outgoing import OutgoingInstance
from shared.errors import InstanceConflictError, PermanentError

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

_PROCESSING_FAILURE = 0x0110
_GONE = frozenset({200, 204, 403, 404})


class HealthcareDestination(DicomwebDestination):
    """A Destination that is a DICOM store; `base_url` is that of its DICOMweb services."""

    def __init__(
        self,
        name: str,
        *,
        base_url: str,
        timeout_s: float = 60.0,
        max_connections: int = 4,
        batch_instances: int = 1,
        batch_bytes: int = 0,
        tier: str | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """What is stored is moved to the storage class `tier`; without it, it has the store's own.

        Raises: DestinationMisconfiguredError where the process has no credentials.
        """
        if credentials is None:
            credentials = credentials_for(name, base_url)
        from google.auth.transport.requests import AuthorizedSession

        super().__init__(
            name,
            base_url=base_url,
            authorization=authorization.none(),
            timeout_s=timeout_s,
            max_connections=max_connections,
            # Each has its class set by a request of its own.
            batch_instances=1 if tier else batch_instances,
            batch_bytes=batch_bytes,
            # Signs each request, and once more with a new token after a 401: the body is iterated
            # over anew, whole.
            session=AuthorizedSession(credentials),
        )
        self._tier = tier.upper() if tier else ""

    def deliver(self, instance: OutgoingInstance) -> str:
        """As Destination. What gives way to the Instance is deleted, and it is stored then."""
        return self._moved(instance, self._store(instance))

    def _moved(self, instance: OutgoingInstance, answer: str) -> str:
        if not self._tier:
            return answer
        self._move(instance)
        return f"{answer}, {self._tier}"

    def _store(self, instance: OutgoingInstance) -> str:
        try:
            return super().deliver(instance)
        except InstanceConflictError:
            if not instance.replaces:
                raise
        self._delete(instance)
        return super().deliver(instance)

    def _move(self, instance: OutgoingInstance) -> None:
        """Set its storage class; it is stored, whatever comes of that."""
        path = f"{instance_path(instance)}:setBlobStorageSettings"
        body = json.dumps({"blobStorageSettings": {"blobStorageClass": self._tier}}).encode()
        try:
            with (
                self._errors(),
                self._request("POST", path, {"Content-Type": "application/json"}, body) as response,
            ):
                verdict = outcomes.http_status(response.status_code)
                if not verdict.outcome.is_stored:
                    raise self._failure(verdict, response, "setting the storage class")
        except PermanentError as error:
            error.may_be_stored = True
            raise

    def _delete(self, instance: OutgoingInstance) -> None:
        with self._errors(), self._request("DELETE", instance_path(instance), {}) as response:
            verdict = outcomes.http_status(response.status_code)
            if response.status_code in _GONE or verdict.outcome is Outcome.SUCCESS:
                return  # where it was forbidden, the next try to store says so
            raise self._failure(verdict, response, "deleting what is to be replaced")

    def _judge_failed(
        self, failed: Failed, response: requests.Response, instance: OutgoingInstance
    ) -> str:
        # Google's word for whatever it will not store; what it may store later has a status of 429
        # or 5xx instead.
        if failed.reason == _PROCESSING_FAILURE:
            failed = Failed(None, failed.words)
        return super()._judge_failed(failed, response, instance)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from google.auth.exceptions import GoogleAuthError

        with super()._errors():
            try:
                yield
            except GoogleAuthError as error:
                raise outcomes.failure(outcomes.client_error(error), self._name) from error
