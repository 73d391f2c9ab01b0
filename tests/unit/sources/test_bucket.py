"""A landing bucket as a source: listed, so that what no notification told of comes too."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import google.cloud.storage as storage
import pytest

from shared.adapters.embedded.clock import SystemClock
from shared.adapters.sources.bucket import Bucket
from shared.errors import StorageUnavailableError
from shared.pipeline.ingest import COLLECTION as INGESTED
from shared.pipeline.polling import Poller
from shared.pipeline.source_states import state_of
from tests.data import build
from tests.embedded_system import System
from tests.google.cloud_storage import BUCKET, cloud_storage


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[storage.Bucket]:
    with cloud_storage() as bucket:
        endpoint = bucket.client._connection.API_BASE_URL
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
        yield bucket


class Landing:
    """A system that polls the bucket."""

    def __init__(self, home: Path, **source: Any) -> None:
        self.system = System(home)
        document = {"name": "landing", "type": "bucket", "bucket": BUCKET, "settle_s": 0, **source}
        self.system.ports.configuration.apply({"sources": [document]}, by="test")
        self.poller = Poller(self.system.ports)

    def poll(self) -> Mapping[str, Any]:
        self.poller.run()
        self.system.clock.advance(300)
        self.system.work()
        return state_of("landing", self.system.ports)

    def instances(self) -> list[str]:
        page = self.system.ports.documents.query("instances", limit=100)
        return sorted(document.data["sop_instance_uid"] for document in page.documents)


def zipped(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, build.ct(instance=name))
    return made.getvalue()


def test_objects_and_members_of_archives_come_once(bucket: storage.Bucket, tmp_path: Path) -> None:
    bucket.blob("in/a.dcm").upload_from_string(build.ct(instance="a"))
    bucket.blob("in/study.zip").upload_from_string(zipped("b", "c"))
    bucket.blob("in/readme.txt").upload_from_string(b"hello")
    bucket.blob("elsewhere/d.dcm").upload_from_string(build.ct(instance="d"))
    landing = Landing(tmp_path / "home", prefix="in/")
    assert landing.poll()["totals"]["processed"] == 3, landing.poll()
    assert landing.poll()["last_poll"]["found"] == 0
    assert landing.instances() == sorted(map(build.uid, ("a", "b", "c")))


def test_what_is_overwritten_comes_again_and_what_came_by_notification_does_not(
    bucket: storage.Bucket, tmp_path: Path
) -> None:
    import hashlib

    blob = bucket.blob("a.dcm")
    blob.upload_from_string(build.ct(instance="a"))
    told = f"gs://{BUCKET}/a.dcm#{blob.generation}"
    landing = Landing(tmp_path / "home")
    key = hashlib.sha256(told.encode()).hexdigest()
    landing.system.ports.documents.put(INGESTED, key, {"at": "2026-11-21T10:00:00.000000Z"})
    assert landing.poll()["totals"]["found"] == 0
    blob.upload_from_string(build.ct(instance="b"))
    assert landing.poll()["totals"]["processed"] == 1
    assert landing.instances() == [build.uid("b")]


def test_what_is_received_is_deleted_where_that_is_configured(
    bucket: storage.Bucket, tmp_path: Path
) -> None:
    bucket.blob("a.dcm").upload_from_string(build.ct(instance="a"))
    bucket.blob("bad.dcm").upload_from_string(b"no DICOM" * 100)
    landing = Landing(tmp_path / "home", after="delete")
    landing.poll()
    left = [blob.name for blob in bucket.client.list_blobs(BUCKET)]
    assert left == ["bad.dcm"]


def test_a_bucket_that_is_not_there_is_said_to_be(bucket: storage.Bucket, tmp_path: Path) -> None:
    state = Landing(tmp_path / "home", bucket="another-bucket").poll()
    assert state["state"] == "failing"
    assert state["last_error"] == "landing: Cloud Storage: NotFound"


def test_an_outage_of_our_own_stores_is_not_said_to_be_the_buckets(
    bucket: storage.Bucket, tmp_path: Path
) -> None:
    """Whoever reads it at night looks where the fault is."""
    bucket.blob("a.dcm").upload_from_string(build.ct(instance="a"))

    def full(_: str) -> bool:
        raise StorageUnavailableError("documents.db: disk full")

    now = SystemClock().now
    listed = Bucket("landing", BUCKET, "", settle_s=0, now=now, is_taken=full).list()
    with pytest.raises(StorageUnavailableError, match="disk full"):
        next(listed)
