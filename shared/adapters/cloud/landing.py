"""Objects in landing buckets: what others have put there, read while it streams."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, cast

import google.cloud.storage as storage
from google.api_core import exceptions as google_errors

from shared.adapters.cloud.failures import told_as_ours
from shared.adapters.sources.archives import Archive
from shared.config.sources import Limits
from shared.errors import ObjectMissingError
from shared.pipeline.file_names import is_no_instance
from shared.pipeline.ingest import Landed
from shared.ports import Retrieved

if TYPE_CHECKING:
    from typing_extensions import Buffer

TERRAFORM_ADDRESS = "module.storage.google_storage_bucket.landing"

_CHUNK_BYTES = 8 << 20
_PIECE_BYTES = 1 << 20


@contextmanager
def landed_object(client: storage.Client, landed: Landed) -> Iterator[Iterator[bytes]]:
    """The bytes of one generation, in pieces.

    Raises: ObjectMissingError if it is gone or overwritten; StorageUnavailableError.
    """
    yield _pieces(_blob(client, landed))


@contextmanager
def landed_members(client: storage.Client, landed: Landed) -> Iterator[Iterator[Retrieved]]:
    """As `Places.members`. Of the archive is read what is asked for: it may be of any size."""
    limits = Limits()
    with (
        io.BufferedReader(_Ranges(_blob(client, landed)), _CHUNK_BYTES) as file,
        Archive(
            cast("IO[bytes]", file),
            landed.bucket,
            max_members=limits.max_archive_members,
            max_bytes=limits.max_archive_bytes,
        ) as archive,
    ):
        yield (
            Retrieved(member.path, archive.chunks(member))
            for member in archive.members()
            if not is_no_instance(member.name)
        )


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


def _blob(client: storage.Client, landed: Landed) -> storage.Blob:
    with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
        blob = client.bucket(landed.bucket).get_blob(landed.name, generation=landed.generation)
    if blob is None:
        raise ObjectMissingError("in the landing bucket")
    return blob


def _pieces(blob: storage.Blob) -> Iterator[bytes]:
    offset, size = 0, int(blob.size)
    while offset < size:
        chunk = _range(blob, offset, min(_CHUNK_BYTES, size - offset))
        offset += len(chunk)
        for start in range(0, len(chunk), _PIECE_BYTES):
            yield chunk[start : start + _PIECE_BYTES]


def _range(blob: storage.Blob, offset: int, count: int) -> bytes:
    with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
        try:
            chunk: bytes = blob.download_as_bytes(
                start=offset, end=offset + count - 1, raw_download=True, checksum=None
            )
        except google_errors.NotFound:
            raise ObjectMissingError("in the landing bucket") from None
    return chunk


class _Ranges(io.RawIOBase):
    """An object as a file that can be sought in. Raises: ObjectMissingError and the like."""

    def __init__(self, blob: storage.Blob) -> None:
        self._blob, self._size, self._at = blob, int(blob.size), 0

    def readinto(self, into: Buffer) -> int:
        view = memoryview(into).cast("B")
        count = min(len(view), self._size - self._at)
        if count <= 0:
            return 0
        chunk = _range(self._blob, self._at, count)
        view[: len(chunk)] = chunk
        self._at += len(chunk)
        return len(chunk)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("a negative place")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
