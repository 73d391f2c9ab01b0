"""Files that a gateway on premises puts into the bucket, over a link that breaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import google.cloud.storage as storage
import google_crc32c
import pytest
import requests

from shared.adapters.cloud.uploads import BucketUploads
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.object_store import FolderObjectStore
from shared.errors import ObjectExistsError, SpoolDamagedError, StorageUnavailableError
from tests.google.cloud_storage import cloud_storage
from tests.running import wait_until

NAME = "received/20261121/10/one.dcm"
MIB = 1 << 20
LARGE = bytes(range(256)) * (3 * MIB // 256) + b"odd"
CRC32C = google_crc32c.value(LARGE)


class Line:
    """Counts what goes over the link, which breaks after so many bytes."""

    def __init__(self, breaks_after: int | None = None) -> None:
        self.sent, self._breaks_after = 0, breaks_after

    def take(self, size: int) -> None:
        if self._breaks_after is not None and self.sent + size > self._breaks_after:
            raise StorageUnavailableError("the link is cut")
        self.sent += size


@pytest.fixture
def bucket() -> Iterator[storage.Bucket]:
    with cloud_storage() as found:
        yield found


class Gateway:
    """The disk of one gateway, with the file."""

    def __init__(self, folder: Path, bucket: storage.Bucket, data: bytes = LARGE) -> None:
        self.objects = FolderObjectStore(folder / "objects")
        self.sessions = SqliteDocumentStore(folder / "documents.db")
        self.bucket = bucket
        with self.objects.create(NAME) as writer:
            writer.write(data)
            writer.commit()

    def send(self, line: Line, *, crc32c: int = CRC32C, resumable_from: int = MIB) -> None:
        uploads = BucketUploads(
            self.bucket, self.sessions, line.take, resumable_from=resumable_from
        )
        with self.objects.open(NAME) as reader:
            uploads.send(reader, crc32c)

    def has_begun(self) -> bool:
        """The server has noticed that the connection broke, and kept what it had."""
        [known] = self.sessions.query("edge-uploads").documents
        asking = {"Content-Range": f"bytes */{len(LARGE)}"}
        return "Range" in requests.put(known.data["session"], headers=asking, timeout=60).headers

    def stored(self) -> bytes:
        data: bytes = self.bucket.blob(NAME).download_as_bytes()
        return data


@pytest.fixture
def gateway(tmp_path: Path, bucket: storage.Bucket) -> Gateway:
    return Gateway(tmp_path, bucket)


def test_a_large_file_goes_on_where_it_broke_off_after_a_restart_too(gateway: Gateway) -> None:
    with pytest.raises(StorageUnavailableError):
        gateway.send(Line(breaks_after=2 * MIB))
    wait_until(gateway.has_begun)
    line = Line()
    gateway.send(line)  # all that is known of the first try is on the disk
    assert gateway.stored() == LARGE
    assert line.sent < 2 * MIB
    assert gateway.sessions.query("edge-uploads").documents == []


@pytest.mark.parametrize("resumable_from", [1, 1 << 40])
def test_equal_bytes_that_are_there_already_are_success(
    gateway: Gateway, resumable_from: int
) -> None:
    for _ in range(2):
        gateway.send(Line(), resumable_from=resumable_from)
    assert gateway.stored() == LARGE


@pytest.mark.parametrize("resumable_from", [1, 1 << 40])
def test_other_bytes_that_are_there_stay(gateway: Gateway, resumable_from: int) -> None:
    gateway.bucket.blob(NAME).upload_from_string(b"others")
    with pytest.raises(ObjectExistsError):
        gateway.send(Line(), resumable_from=resumable_from)
    assert gateway.stored() == b"others"


@pytest.mark.parametrize("resumable_from", [1, 1 << 40])
def test_a_damaged_file_is_not_stored(gateway: Gateway, resumable_from: int) -> None:
    with pytest.raises(SpoolDamagedError):
        gateway.send(Line(), crc32c=CRC32C ^ 1, resumable_from=resumable_from)
    assert not gateway.bucket.blob(NAME).exists()


def test_a_session_that_is_refused_for_another_reason_is_no_damage(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is damaged goes to the exception log and is deleted in the end."""
    with monkeypatch.context() as patched:
        refused = SimpleNamespace(status_code=400, headers={}, content=b"")
        patched.setattr(BucketUploads, "_put", lambda *_: refused)
        with pytest.raises(StorageUnavailableError):
            gateway.send(Line())
    gateway.send(Line())
    assert gateway.stored() == LARGE


def test_a_lost_answer_to_a_finished_session_is_success(gateway: Gateway) -> None:
    with pytest.raises(StorageUnavailableError):
        gateway.send(Line(breaks_after=2 * MIB))
    [session] = gateway.sessions.query("edge-uploads").documents
    gateway.send(Line())
    gateway.sessions.put("edge-uploads", session.key, session.data)  # as if we had died then
    line = Line()
    gateway.send(line)
    assert line.sent == 0


def test_a_session_that_is_forgotten_is_begun_anew(gateway: Gateway) -> None:
    with pytest.raises(StorageUnavailableError):
        gateway.send(Line(breaks_after=2 * MIB))
    [session] = gateway.sessions.query("edge-uploads").documents
    elsewhere = str(session.data["session"]).replace("upload_id=", "upload_id=gone")
    gateway.sessions.put("edge-uploads", session.key, {"session": elsewhere})
    with pytest.raises(StorageUnavailableError):
        gateway.send(Line())
    gateway.send(Line())
    assert gateway.stored() == LARGE
