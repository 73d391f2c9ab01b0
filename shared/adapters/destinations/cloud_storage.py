"""Delivery into a bucket of Cloud Storage, one object for each Instance.

An object is there whole or not at all, and nothing is overwritten that we have not seen: each write
is for the generation that was there. What arrived is compared by CRC32C with what was sent.
"""

from __future__ import annotations

import base64
import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any

import google.cloud.storage as storage
import requests
from crc32c import crc32c as extended_crc32c
from google.api_core import exceptions as google_errors
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.exceptions import InvalidResponse

from shared.adapters.destinations import outcomes
from shared.adapters.destinations.checksums import crc32c
from shared.adapters.destinations.google_session import credentials_for
from shared.adapters.destinations.outcomes import Outcome, Verdict
from shared.dicom.outgoing import OutgoingInstance, chunks
from shared.dicom.path_template import PathTemplate
from shared.errors import (
    DestinationMisconfiguredError,
    DestinationUnavailableError,
    InstanceConflictError,
)
from shared.ports import Kept

# What is held in memory at the most; the client's own default would be 100 MiB.
_CHUNK_BYTES = 8 << 20
_ABSENT = 0  # the generation of an object that is not there
_LONGEST_NAME = 1024
_CONTENT_TYPE = "application/dicom"
# Custom metadata: UIDs alone, never a patient's Values.
_STUDY, _SERIES, _INSTANCE = "study-instance-uid", "series-instance-uid", "sop-instance-uid"
_RECEIPT = "receipt-id"
_OF_SERVICE = "https://storage.googleapis.com"


class BucketDestination:
    """A Destination that writes Part 10 files as objects, named after a template."""

    def __init__(
        self,
        name: str,
        bucket: str,
        template: str,
        *,
        timeout_s: float = 60.0,
        tier: str | None = None,
        client: storage.Client | None = None,
    ) -> None:
        """Objects get the storage class `tier`; without it the bucket's own.

        Raises: DestinationMisconfiguredError: the template is unusable, or there are no
        credentials.
        """
        self._name, self._timeout_s = name, timeout_s
        self._storage_class = tier.upper() if tier else None
        try:
            self._template = PathTemplate.parse(template)
        except ValueError as error:
            raise DestinationMisconfiguredError(name, str(error)) from None
        self._client = client or _client(name)
        self._bucket = self._client.bucket(bucket)

    def deliver(self, instance: OutgoingInstance) -> str:
        """As Destination; returns the object's name."""
        name = "/".join(self._template.render(instance))
        if len(name.encode()) > _LONGEST_NAME:
            raise DestinationMisconfiguredError(
                self._name, f"the template makes names of more than {_LONGEST_NAME} bytes"
            )
        with _errors(self._name):
            found = self._bucket.get_blob(name, timeout=self._timeout_s)
            generation = _ABSENT
            if found is not None:
                ours = crc32c(chunks(instance.part10_parts()))
                if (found.size, _hex(found.crc32c)) == (instance.part10_size, ours):
                    self._delete_earlier(name, instance)
                    return name
                if not (instance.replaces and _is_of(found, instance)):
                    raise InstanceConflictError(instance.sop_instance_uid, _hex(found.crc32c), ours)
                generation = found.generation
            self._write(name, generation, instance)
            self._delete_earlier(name, instance)
        return name

    def check(self) -> str:
        """Begin an upload, which whoever may not write cannot; without an end it makes no object,
        and Cloud Storage forgets it.
        """
        blob = self._bucket.blob(f".axiom-check-{secrets.token_hex(8)}")
        with _errors(self._name):
            blob.create_resumable_upload_session(
                content_type=_CONTENT_TYPE,
                if_generation_match=_ABSENT,
                timeout=self._timeout_s,
            )
        return f"{self._bucket.name} is writable"

    def taken_before(self, before: datetime) -> Iterator[Kept | None]:
        """As KeepingDestination: objects whose metadata we have written."""
        fields = "items(name,generation,timeCreated,metadata),nextPageToken"
        with _errors(self._name):
            for blob in self._bucket.list_blobs(fields=fields, timeout=self._timeout_s):
                metadata: Mapping[str, str] = blob.metadata or {}
                is_ours = _RECEIPT in metadata and _INSTANCE in metadata
                is_older = blob.time_created is not None and blob.time_created < before
                yield (
                    Kept(metadata[_INSTANCE], partial(self._delete, blob))
                    if is_ours and is_older
                    else None
                )

    def close(self) -> None:
        """As Destination."""
        self._client.close()

    def _delete(self, blob: storage.Blob) -> None:
        with (
            _errors(self._name),
            suppress(google_errors.NotFound, google_errors.PreconditionFailed),
        ):
            blob.delete(if_generation_match=blob.generation, timeout=self._timeout_s)

    def _write(self, name: str, generation: int, instance: OutgoingInstance) -> None:
        blob = self._bucket.blob(name, chunk_size=_CHUNK_BYTES)
        blob.metadata, blob.content_type = _metadata(instance), _CONTENT_TYPE
        blob.storage_class = self._storage_class
        crc = 0
        try:
            with blob.open(
                "wb",
                chunk_size=_CHUNK_BYTES,
                if_generation_match=generation,
                timeout=self._timeout_s,
            ) as file:
                for piece in chunks(instance.part10_parts()):
                    crc = extended_crc32c(piece, crc)
                    file.write(piece)
        except (InvalidResponse, google_errors.PreconditionFailed) as error:
            if _status(error) != 412:
                raise
            # Somebody was faster, or it was our own request whose answer was lost: a look tells.
        self._expect(name, f"{crc:08X}", instance.sop_instance_uid)

    def _delete_earlier(self, name: str, instance: OutgoingInstance) -> None:
        """Delete what gives way to the Instance, where the template gave it another name."""
        earlier = instance.earlier_answer
        if not instance.replaces or earlier in ("", name):
            return
        found = self._bucket.get_blob(earlier, timeout=self._timeout_s)
        if found is not None and _is_of(found, instance):
            self._delete(found)

    def _expect(self, name: str, ours: str, sop_instance_uid: str) -> None:
        """Raises: InstanceConflictError if there are other bytes than those we sent."""
        stored = self._bucket.get_blob(name, timeout=self._timeout_s)
        if stored is None:
            raise DestinationUnavailableError(self._name, "the object is gone again")
        if _hex(stored.crc32c) != ours:
            raise InstanceConflictError(sop_instance_uid, _hex(stored.crc32c), ours)


@contextmanager
def bucket_inventory(name: str, bucket: str) -> Iterator[_Inventory]:
    """What a bucket holds, as its objects' metadata say. Raises as `BucketDestination`."""
    client = _client(name)
    try:
        yield _Inventory(name, client.bucket(bucket))
    finally:
        client.close()


class _Inventory:
    def __init__(self, name: str, bucket: storage.Bucket) -> None:
        self._name, self._bucket = name, bucket
        self._studies: dict[str, set[str]] | None = None

    def instances(self, study_instance_uid: str) -> set[str]:
        """The SOP Instance UIDs of a Study; the bucket is listed once."""
        if self._studies is None:
            found: dict[str, set[str]] = defaultdict(set)
            with _errors(self._name):
                fields = "items(name,metadata),nextPageToken"
                for blob in self._bucket.list_blobs(fields=fields):
                    metadata: Mapping[str, str] = blob.metadata or {}
                    if _STUDY in metadata and _INSTANCE in metadata:
                        found[metadata[_STUDY]].add(metadata[_INSTANCE])
            self._studies = found
        return set(self._studies.get(study_instance_uid, ()))


def _client(destination: str) -> storage.Client:
    import os

    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
    credentials = credentials_for(destination, emulator or _OF_SERVICE)
    project = os.environ.get("AXIOM_PROJECT") or os.environ.get("GOOGLE_CLOUD_PROJECT") or "none"
    return storage.Client(project=project, credentials=credentials)


def _metadata(instance: OutgoingInstance) -> dict[str, str]:
    return {
        _STUDY: instance.study_instance_uid,
        _SERIES: instance.series_instance_uid,
        _INSTANCE: instance.sop_instance_uid,
        "sop-class-uid": instance.sop_class_uid,
        "transfer-syntax-uid": instance.transfer_syntax_uid,
        _RECEIPT: instance.receipt_id,
    }


def _is_of(blob: storage.Blob, instance: OutgoingInstance) -> bool:
    """True if the object is an earlier copy of this Instance, not another that has its name."""
    return (blob.metadata or {}).get(_INSTANCE) == instance.sop_instance_uid


def _hex(encoded: str) -> str:
    return base64.b64decode(encoded).hex().upper()


def _status(error: Any) -> int | None:
    response = getattr(error, "response", None)
    code = getattr(error, "code", None)
    return int(code) if code is not None else getattr(response, "status_code", None)


@contextmanager
def _errors(destination: str) -> Iterator[None]:
    try:
        yield
    except (google_errors.GoogleAPICallError, InvalidResponse) as error:
        status = _status(error) or 500
        verdict = outcomes.http_status(status)
        if verdict.outcome is Outcome.SUCCESS:
            verdict = Verdict(Outcome.TRANSIENT, "an answer that cannot be read")
        raise outcomes.failure(verdict, destination, f"HTTP {status}") from error
    except google_errors.RetryError as error:
        verdict = Verdict(Outcome.TRANSIENT, "no answer in time")
        raise outcomes.failure(verdict, destination) from error
    except (GoogleAuthError, requests.RequestException, OSError) as error:
        raise outcomes.failure(outcomes.client_error(error), destination) from error
