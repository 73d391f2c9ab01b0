"""Received files of a gateway on premises, put into Cloud Storage over a link that may break."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import google.cloud.storage as storage
from crc32c import crc32c as extended_crc32c

from shared.adapters.cloud.failures import told_as_ours
from shared.adapters.cloud.object_store import TERRAFORM_ADDRESS, BucketObjectStore
from shared.errors import ObjectExistsError, SpoolDamagedError, StorageUnavailableError
from shared.ports import DocumentStore, ObjectReader

if TYPE_CHECKING:
    import requests

# Larger ones go in a session that goes on where it broke off; smaller ones go again.
RESUMABLE_FROM_BYTES = 8 << 20
# Of this machine's own documents: sessions that were begun.
COLLECTION = "edge-uploads"

_PIECE_BYTES = 64 << 10
_CREATE_ONLY = 0
# To connect, and for each answer: a link that is cut says nothing.
_TIMEOUTS_S = (10.0, 60.0)
_GONE = (404, 410, 499)


class BucketUploads:
    """Uploads of `shared.edge.mover`."""

    def __init__(
        self,
        bucket: storage.Bucket,
        sessions: DocumentStore,
        pace: Callable[[int], None],
        *,
        resumable_from: int = RESUMABLE_FROM_BYTES,
    ) -> None:
        """`sessions` is kept on this machine; `pace` is asked before so many bytes are sent."""
        self._bucket, self._sessions, self._pace = bucket, sessions, pace
        self._objects = BucketObjectStore(bucket, retry=None)
        self._resumable_from = resumable_from

    def send(self, reader: ObjectReader, crc32c: int) -> None:
        """As `Uploads`."""
        if reader.size < self._resumable_from:
            self._send_whole(reader, crc32c)
        else:
            self._send_on(reader, crc32c)

    def _send_whole(self, reader: ObjectReader, crc32c: int) -> None:
        with self._objects.create(reader.name) as writer:
            for piece in reader.stream():
                self._pace(len(piece))
                writer.write(piece)
            if writer.crc32c != crc32c:
                raise SpoolDamagedError(reader.name)
            writer.commit()

    def _send_on(self, reader: ObjectReader, crc32c: int) -> None:
        known = self._sessions.get(COLLECTION, reader.name)
        session = str(known.data["session"]) if known else self._begin(reader, crc32c)
        with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
            answer = self._ask(session, reader.size) if known else None
            if answer is None or answer.status_code == 308:
                answer = self._put_rest(session, reader, _received(answer))
        self._judge(answer, reader, crc32c)
        self._sessions.delete(COLLECTION, reader.name)

    def _begin(self, reader: ObjectReader, crc32c: int) -> str:
        blob = self._bucket.blob(reader.name)
        # Google refuses other bytes than these, whoever sends them.
        blob.crc32c = _encoded(crc32c)
        with told_as_ours("Cloud Storage", TERRAFORM_ADDRESS):
            session: str = blob.create_resumable_upload_session(
                size=reader.size, if_generation_match=_CREATE_ONLY, timeout=_TIMEOUTS_S, retry=None
            )
        self._sessions.put(COLLECTION, reader.name, {"session": session})
        return session

    def _ask(self, session: str, size: int) -> requests.Response:
        """How much of it is there."""
        return self._put(session, b"", f"bytes */{size}")

    def _put_rest(self, session: str, reader: ObjectReader, offset: int) -> requests.Response:
        rest = _Rest(reader, offset, self._pace)
        return self._put(session, rest, f"bytes {offset}-{reader.size - 1}/{reader.size}")

    def _put(self, session: str, body: Any, content_range: str) -> requests.Response:
        http = self._bucket.client._http
        answer: requests.Response = http.put(
            session, data=body, headers={"Content-Range": content_range}, timeout=_TIMEOUTS_S
        )
        return answer

    def _judge(self, answer: requests.Response, reader: ObjectReader, crc32c: int) -> None:
        """Return if the object is there. Raises: as `send`."""
        if answer.status_code in (200, 201):
            if json.loads(answer.content)["crc32c"] == _encoded(crc32c):
                return
            raise StorageUnavailableError("Cloud Storage: it keeps other bytes than it was sent")
        if answer.status_code == 412:
            self._sessions.delete(COLLECTION, reader.name)
            found = self._objects.stat(reader.name)
            if (found.size, found.crc32c) != (reader.size, crc32c):
                raise ObjectExistsError(reader.name)
            return
        if answer.status_code == 400:
            # Its bytes are not those of the sum that was told when the session began, most likely:
            # what is called damaged is not sent again, so it is looked at.
            self._sessions.delete(COLLECTION, reader.name)
            if _crc32c(reader) != crc32c:
                raise SpoolDamagedError(reader.name)
        if answer.status_code in _GONE:
            self._sessions.delete(COLLECTION, reader.name)
        raise StorageUnavailableError(f"Cloud Storage: {answer.status_code}")


class _Rest:
    """A file from an offset on, as often as it is iterated over, at the link's pace."""

    def __init__(self, reader: ObjectReader, offset: int, pace: Callable[[int], None]) -> None:
        self._reader, self._offset, self._pace = reader, offset, pace

    def __len__(self) -> int:
        return self._reader.size - self._offset

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._reader.stream(self._offset):
            for start in range(0, len(piece), _PIECE_BYTES):
                part = piece[start : start + _PIECE_BYTES]
                self._pace(len(part))
                yield part


def _received(answer: requests.Response | None) -> int:
    """How many bytes Cloud Storage says that it has: `Range: bytes=0-N`, or none of it."""
    if answer is None or "Range" not in answer.headers:
        return 0
    return int(answer.headers["Range"].rpartition("-")[2]) + 1


def _crc32c(reader: ObjectReader) -> int:
    found = 0
    for piece in reader.stream():
        found = extended_crc32c(piece, found)
    return found


def _encoded(crc32c: int) -> str:
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode()
