"""Delivery into a bucket that honours preconditions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import google.cloud.storage as storage
import pytest

from shared.adapters.destinations.cloud_storage import BucketDestination, bucket_inventory
from shared.errors import DestinationMisconfiguredError, InstanceConflictError
from tests.data import build
from tests.google.cloud_storage import BUCKET, cloud_storage
from tests.unit.destinations.received import outgoing
from tests.unit.destinations.test_google_healthcare import other_bytes, replacing

UID, STUDY = build.uid("ct-1"), build.uid("study")


@pytest.fixture
def bucket() -> Iterator[storage.Bucket]:
    with cloud_storage() as found:
        yield found


@pytest.fixture
def destination(bucket: storage.Bucket) -> BucketDestination:
    template = "{StudyInstanceUID}/{SOPInstanceUID}.dcm"
    return BucketDestination("archive", BUCKET, template, client=bucket.client)


class TestABucket:
    def test_gets_the_very_bytes_under_the_template_s_name_with_their_uids(
        self, bucket: storage.Bucket, destination: BucketDestination, tmp_path: Path
    ) -> None:
        name = destination.deliver(outgoing(tmp_path, build.ct()))
        assert name == f"{STUDY}/{UID}.dcm"
        blob = bucket.get_blob(name)
        assert blob.content_type == "application/dicom"
        assert blob.metadata["sop-instance-uid"] == UID
        assert "TEST-0001" not in str(blob.metadata)
        assert blob.download_as_bytes() == build.ct()

    def test_takes_more_than_a_chunk(
        self, bucket: storage.Bucket, destination: BucketDestination, tmp_path: Path
    ) -> None:
        large = build.ct(2200, 2200)
        assert len(large) > 8 << 20
        name = destination.deliver(outgoing(tmp_path, large))
        assert bucket.get_blob(name).download_as_bytes() == large

    def test_gets_objects_of_the_configured_storage_class(
        self, bucket: storage.Bucket, tmp_path: Path
    ) -> None:
        destination = BucketDestination(
            "archive", BUCKET, "{SOPInstanceUID}", tier="coldline", client=bucket.client
        )
        name = destination.deliver(outgoing(tmp_path, build.ct()))
        assert bucket.get_blob(name).storage_class == "COLDLINE"

    def test_tells_what_it_took_before_a_day_and_deletes_it(
        self, bucket: storage.Bucket, destination: BucketDestination, tmp_path: Path
    ) -> None:
        name = destination.deliver(outgoing(tmp_path, build.ct()))
        bucket.blob("somebody-else-s").upload_from_string(b"?")
        came_at = bucket.get_blob(name).time_created
        assert not list(filter(None, destination.taken_before(came_at)))
        later = came_at + timedelta(seconds=1)
        (kept,) = filter(None, destination.taken_before(later))
        assert kept.sop_instance_uid == UID
        for _ in range(2):
            kept.delete()
        assert [one.name for one in bucket.list_blobs()] == ["somebody-else-s"]

    def test_keeps_no_object_that_gave_way_under_another_name(
        self, bucket: storage.Bucket, tmp_path: Path
    ) -> None:
        template = "{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
        destination = BucketDestination("archive", BUCKET, template, client=bucket.client)
        earlier = destination.deliver(outgoing(tmp_path, build.ct()))
        newer = replacing(outgoing(tmp_path, build.ct(series="another-series")))
        object.__setattr__(newer, "earlier_answer", earlier)
        for _ in range(2):
            name = destination.deliver(newer)
        assert bucket.get_blob(earlier) is None
        assert bucket.get_blob(name) is not None

    def test_equal_bytes_again_change_nothing(
        self, bucket: storage.Bucket, destination: BucketDestination, tmp_path: Path
    ) -> None:
        generations = set()
        for _ in range(2):
            name = destination.deliver(outgoing(tmp_path, build.ct()))
            generations.add(bucket.get_blob(name).generation)
        assert len(generations) == 1

    def test_keeps_what_is_there_unless_it_is_to_be_replaced(
        self, bucket: storage.Bucket, destination: BucketDestination, tmp_path: Path
    ) -> None:
        name = destination.deliver(outgoing(tmp_path, other_bytes()))
        with pytest.raises(InstanceConflictError):
            destination.deliver(outgoing(tmp_path, build.ct()))
        assert bucket.get_blob(name).download_as_bytes() == other_bytes()
        destination.deliver(replacing(outgoing(tmp_path, build.ct())))
        assert bucket.get_blob(name).download_as_bytes() == build.ct()

    def test_never_overwrites_what_came_while_it_wrote(
        self,
        bucket: storage.Bucket,
        destination: BucketDestination,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        name = f"{STUDY}/{UID}.dcm"
        look = destination._bucket.get_blob
        monkeypatch.setattr(destination._bucket, "get_blob", lambda *_, **__: None)
        bucket.blob(name).upload_from_string(b"somebody's")
        with monkeypatch.context() as first_look_alone:
            answers = iter([lambda *a, **k: None, look])
            first_look_alone.setattr(
                destination._bucket, "get_blob", lambda *a, **k: next(answers)(*a, **k)
            )
            with pytest.raises(InstanceConflictError):
                destination.deliver(outgoing(tmp_path, build.ct()))
        assert bucket.blob(name).download_as_bytes() == b"somebody's"

    def test_a_check_begins_to_write_and_leaves_nothing(self, bucket: storage.Bucket) -> None:
        destination = BucketDestination(
            "archive", bucket.name, "{SOPInstanceUID}", client=bucket.client
        )
        assert destination.check() == f"{bucket.name} is writable"
        assert not list(bucket.list_blobs())

    def test_one_that_is_not_there_is_a_matter_of_configuration(
        self, bucket: storage.Bucket
    ) -> None:
        missing = BucketDestination("archive", "no-such", "{SOPInstanceUID}", client=bucket.client)
        with pytest.raises(DestinationMisconfiguredError, match="404"):
            missing.check()

    def test_is_asked_what_it_holds(
        self,
        bucket: storage.Bucket,
        destination: BucketDestination,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        destination.deliver(outgoing(tmp_path, build.ct()))
        endpoint = bucket.client._connection.API_BASE_URL
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
        with bucket_inventory("archive", BUCKET) as held:
            assert held.instances(STUDY) == {UID}
