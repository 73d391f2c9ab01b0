"""Objects in landing buckets: what others have put there, read while it streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import google.cloud.storage as storage
from google.api_core import exceptions as google_errors

from shared.adapters.cloud.failures import told_as_ours
from shared.errors import ObjectMissingError
from shared.pipeline.ingest import Landed

TERRAFORM_ADDRESS = "module.storage.google_storage_bucket.landing"

_CHUNK_BYTES = 8 << 20
_PIECE_BYTES = 1 << 20


@contextmanager
def landed_object(client: storage.Client, landed: Landed) -> Iterator[Iterator[bytes]]:
    """The bytes of one generation, in pieces.

    Raises: ObjectMissingError if it is gone or overwritten; StorageUnavailableError.
    """
    with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
        blob = client.bucket(landed.bucket).get_blob(landed.name, generation=landed.generation)
    if blob is None:
        raise ObjectMissingError("in the landing bucket")
    yield _pieces(blob)


def begin_upload(client: storage.Client, bucket: str, name: str, size: int | None) -> str:
    """The address of a resumable session for one object that is not there yet; whoever knows it
    may send the object, and nothing else. Raises: StorageUnavailableError.
    """
    with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
        address: str = (
            client.bucket(bucket)
            .blob(name)
            .create_resumable_upload_session(
                content_type="application/dicom", size=size, if_generation_match=0
            )
        )
    return address


def _pieces(blob: storage.Blob) -> Iterator[bytes]:
    offset, size = 0, int(blob.size)
    while offset < size:
        with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
            try:
                chunk: bytes = blob.download_as_bytes(
                    start=offset,
                    end=min(offset + _CHUNK_BYTES, size) - 1,
                    raw_download=True,
                    checksum=None,
                )
            except google_errors.NotFound:
                raise ObjectMissingError("in the landing bucket") from None
        offset += len(chunk)
        for start in range(0, len(chunk), _PIECE_BYTES):
            yield chunk[start : start + _PIECE_BYTES]
