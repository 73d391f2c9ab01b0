"""Objects in a Cloud Storage bucket."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import google.cloud.storage as storage
from crc32c import crc32c as extended_crc32c
from google.api_core import exceptions as google_errors
from google.api_core.retry import Retry
from google.cloud.storage.exceptions import InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from shared.adapters.cloud.failures import told_as_ours
from shared.adapters.names import check_object_name
from shared.errors import ObjectExistsError, ObjectMissingError
from shared.ports import Buffer, StoredObject

TERRAFORM_ADDRESS = "module.storage.google_storage_bucket.received"

# What a writer holds in memory at the most; a multiple of 256 KiB, as resumable uploads want.
# The client's own default would be 100 MiB.
_CHUNK_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
# What is read when an object is opened: of most all that there is.
_HEAD_BYTES = 1024 * 1024
_TIMEOUT_S = 60.0
_CREATE_ONLY = 0  # generation 0: only if there is no such object


class BucketObjectStore:
    """ObjectStore of the cloud.

    The bucket needs object versioning: a reader is bound to one generation, which stays readable
    after a deletion until the bucket's lifecycle removes it. Every write is conditional on there
    being no such object, since the client repeats requests whose answer was lost.
    """

    def __init__(self, bucket: storage.Bucket, retry: Retry | None = DEFAULT_RETRY) -> None:
        """`retry` is how uploads are tried again within `commit`; None if the caller does that."""
        self._bucket, self._retry = bucket, retry

    def create(self, name: str) -> _Writer:
        """Start an object. A taken name shows at `commit`."""
        check_object_name(name)
        return _Writer(self._bucket, name, self._retry)

    def open(self, name: str) -> _Reader:
        """Raises: ObjectMissingError, StorageUnavailableError."""
        check_object_name(name)
        return _opened(self._bucket, name)

    def stat(self, name: str) -> StoredObject:
        """Raises: ObjectMissingError, StorageUnavailableError."""
        check_object_name(name)
        return _stored(_live(self._bucket, name))

    def delete(self, name: str) -> None:
        """Delete; a missing object is no error. Raises: StorageUnavailableError."""
        check_object_name(name)
        with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
            try:
                self._bucket.blob(name).delete()
            except google_errors.NotFound:
                return

    def list(self, prefix: str = "") -> Iterator[str]:
        """Names that start with `prefix`, in ascending order."""
        with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
            for blob in self._bucket.list_blobs(prefix=prefix, fields="items(name),nextPageToken"):
                yield blob.name

    def free_bytes(self) -> int | None:
        """None: a bucket has no limit."""
        return None


class _Writer:
    """One upload: in one request if it fits a chunk, else resumable, a chunk at a time."""

    def __init__(self, bucket: storage.Bucket, name: str, retry: Retry | None) -> None:
        self.size = self.crc32c = 0  # of what was written so far
        self._bucket, self._name, self._retry = bucket, name, retry
        self._chunk = bytearray()
        self._upload: Any = None
        self._open = True

    def write(self, *buffers: Buffer) -> None:
        """Append. Raises: StorageUnavailableError."""
        for buffer in buffers:
            self.crc32c = extended_crc32c(buffer, self.crc32c)
            self._chunk += buffer
            self.size += len(buffer)
            if len(self._chunk) > _CHUNK_BYTES:
                self._send()

    def commit(self) -> StoredObject:
        """Finish the upload. Raises: ObjectExistsError, StorageUnavailableError."""
        with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
            try:
                if self._upload is None:
                    self._bucket.blob(self._name).upload_from_file(
                        io.BytesIO(self._chunk),
                        size=len(self._chunk),
                        if_generation_match=_CREATE_ONLY,
                        checksum="crc32c",
                        retry=self._retry,
                    )
                else:
                    self._upload.write(self._chunk)
                    self._upload.close()
            except google_errors.PreconditionFailed:
                self._expect_ours()
            except InvalidResponse as error:
                if error.response.status_code != 412:
                    raise google_errors.from_http_response(error.response) from error
                self._expect_ours()
            finally:
                self._forget()
        return StoredObject(self._name, self.size, self.crc32c)

    def discard(self) -> None:
        """Forget what was written; the upload's session expires by itself if it cannot be told."""
        if self._open and self._upload is not None:
            with suppress(google_errors.GoogleAPIError, InvalidResponse, OSError):
                self._upload.terminate()
        self._forget()

    def _send(self) -> None:
        with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
            if self._upload is None:
                self._upload = self._bucket.blob(self._name).open(
                    "wb", chunk_size=_CHUNK_BYTES, if_generation_match=_CREATE_ONLY
                )
            self._upload.write(self._chunk)
        self._chunk = bytearray()

    def _expect_ours(self) -> None:
        """After 412: our own bytes are there if the first answer was lost. Else raises."""
        found = _stored(_live(self._bucket, self._name))
        if (found.size, found.crc32c) != (self.size, self.crc32c):
            raise ObjectExistsError(self._name)

    def _forget(self) -> None:
        self._open = False
        self._chunk = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.discard()


class _Reader:
    """One generation of an object, whose first bytes are here already."""

    def __init__(self, blob: storage.Blob, size: int, head: bytes) -> None:
        """`blob` says its generation."""
        self.name: str = blob.name
        self.size = size
        self._blob, self._head = blob, head

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`. Raises: StorageUnavailableError."""
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        if end <= len(self._head):
            return self._head[offset:end]
        with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
            try:
                # The generation is pinned, and `end` counts in.
                data: bytes = self._blob.download_as_bytes(
                    start=offset, end=end - 1, raw_download=True, checksum=None
                )
            except google_errors.NotFound:
                raise ObjectMissingError(self.name) from None
        return data

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from `offset` in pieces of at most 1 MiB; a chunk at a time is in memory."""
        end = self.size if length is None else min(offset + length, self.size)
        while offset < end:
            here = len(self._head) - offset
            chunk = self.read_at(offset, min(here if here > 0 else _CHUNK_BYTES, end - offset))
            offset += len(chunk)
            for start in range(0, len(chunk), _PIECE_BYTES):
                yield chunk[start : start + _PIECE_BYTES]

    def fileno(self) -> int | None:
        """None: there is no local file."""
        return None

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def _opened(bucket: storage.Bucket, name: str) -> _Reader:
    """In one request that reads the first bytes: one that looked first would be paid for too."""
    with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
        answer = DEFAULT_RETRY(lambda: _first_bytes(bucket, name))()
    if answer is None:
        raise ObjectMissingError(name)
    if answer.status_code == 416:  # nothing of an empty object can be asked for
        return _Reader(_live(bucket, name), 0, b"")
    head: bytes = answer.content
    total = answer.headers.get("Content-Range", f"/{len(head)}").rpartition("/")[2]
    generation = int(answer.headers["X-Goog-Generation"])
    return _Reader(bucket.blob(name, generation=generation), int(total), head)


def _first_bytes(bucket: storage.Bucket, name: str) -> Any:
    """The answer with up to `_HEAD_BYTES`; None if there is no such object."""
    client = bucket.client
    answer = client._http.get(
        bucket.blob(name)._get_download_url(client),
        headers={"Range": f"bytes=0-{_HEAD_BYTES - 1}"},
        timeout=_TIMEOUT_S,
    )
    if answer.status_code == 404:
        return None
    if answer.status_code >= 400 and answer.status_code != 416:
        raise google_errors.from_http_response(answer)
    return answer


def _live(bucket: storage.Bucket, name: str) -> storage.Blob:
    with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
        blob = bucket.get_blob(name)
    if blob is None:
        raise ObjectMissingError(name)
    return blob


def _stored(blob: storage.Blob) -> StoredObject:
    return StoredObject(blob.name, int(blob.size), _crc32c(blob.crc32c))


def _crc32c(encoded: str) -> int:
    return int.from_bytes(base64.b64decode(encoded), "big")
