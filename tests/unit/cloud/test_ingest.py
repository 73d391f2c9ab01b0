"""Instances that others put into a bucket or a DICOM store, and what notifications do."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import google.cloud.storage as storage
import pytest

from functions.ingest_object.main import ingest_object
from functions.ingest_store_instance.main import ingest_store_instance
from shared.errors import StorageUnavailableError
from shared.messages import Receipt
from shared.pipeline import ingest
from shared.pipeline.ingest import Landed, Places
from shared.pipeline.push import PushRequest
from tests.data import build
from tests.google.cloud_storage import BUCKET
from tests.google.healthcare import HealthcareStore
from tests.unit.operating import System


def push(function: Any, data: bytes, attributes: Mapping[str, str] | None = None) -> int:
    import base64

    message = {
        "data": base64.b64encode(data).decode(),
        "attributes": attributes or {},
        "messageId": "m1",
    }
    request = PushRequest(json.dumps({"message": message}).encode(), {})
    status: int = function(request)[1]
    return status


def zipped(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


def instances(system: System) -> list[Mapping[str, Any]]:
    return [one.data for one in system.ports.documents.query("instances", limit=100).documents]


class TestAnObject:
    def landed(
        self, bucket: storage.Bucket, data: bytes, name: str = "in/a ü.dcm"
    ) -> dict[str, str]:
        blob = bucket.blob(name)
        blob.upload_from_string(data)
        return {
            "eventType": "OBJECT_FINALIZE",
            "bucketId": BUCKET,
            "objectId": name,
            "objectGeneration": str(bucket.get_blob(name).generation),
        }

    def test_of_a_landing_bucket_is_taken_in(self, system: System, bucket: storage.Bucket) -> None:
        assert push(ingest_object, b"{}", self.landed(bucket, build.ct())) == 204
        system.pump()
        assert system.peers["pacs"].stored[build.uid("ct-1")] == build.ct()
        (found,) = instances(system)
        assert found["source"]["type"] == "bucket"

    def test_is_taken_in_once_however_often_it_is_told(
        self, system: System, bucket: storage.Bucket
    ) -> None:
        told = self.landed(bucket, build.ct())
        for _ in range(3):
            assert push(ingest_object, b"{}", told) == 204
        system.pump()
        assert len(instances(system)) == 1

    def test_comes_as_eventarc_s_event_too(self, system: System, bucket: storage.Bucket) -> None:
        told = self.landed(bucket, build.ct())
        body = {"bucket": BUCKET, "name": told["objectId"], "generation": told["objectGeneration"]}
        kind = "google.cloud.storage.object.v1.finalized"
        headers = {"ce-type": kind, "ce-id": "1", "content-type": "application/json"}
        request = PushRequest(json.dumps(body).encode(), headers)
        assert ingest_object(request)[1] == 204
        system.pump()
        assert len(instances(system)) == 1

    def test_that_is_no_dicom_is_in_the_exception_log(
        self, system: System, bucket: storage.Bucket
    ) -> None:
        assert push(ingest_object, b"{}", self.landed(bucket, b"PK\3\4 a letter" * 99)) == 204
        system.pump()
        assert [entry["code"] for entry in system.entries()] == ["not-dicom"]

    def test_that_is_an_archive_is_looked_into(
        self, system: System, bucket: storage.Bucket
    ) -> None:
        inner = zipped({"c.dcm": build.ct(instance="c"), "notes.txt": b"hello"})
        whole = zipped(
            {"DICOMDIR": b"x", "a.dcm": build.ct(instance="a"), "b": build.ct(instance="b")}
            | {"more.zip": inner, "bad.dcm": b"no DICOM" * 100}
        )
        told = self.landed(bucket, whole, "in/study.ZIP")
        for _ in range(2):
            assert push(ingest_object, b"{}", told) == 204
        system.pump()
        assert {one["sop_instance_uid"] for one in instances(system)} == {
            build.uid(name) for name in "abc"
        }
        assert len(instances(system)) == 3
        assert [entry["code"] for entry in system.entries()] == ["not-dicom"]

    def test_that_is_an_archive_goes_on_where_it_was_left(
        self, system: System, bucket: storage.Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that is too large for one call comes all the same."""
        files = {f"{n}.dcm": build.ct(instance=f"n{n}") for n in range(4)}
        told = self.landed(bucket, zipped(files), "study.zip")
        take_in, left = ingest.take_in, [2]

        def ending(*given: Any) -> Receipt | None:
            if not left[0]:
                raise StorageUnavailableError("the disk")
            left[0] -= 1
            return take_in(*given)

        monkeypatch.setattr(ingest, "take_in", ending)
        assert push(ingest_object, b"{}", told) == 503
        left[0] = 2
        assert push(ingest_object, b"{}", told) == 204
        system.pump()
        assert len(instances(system)) == 4

    @pytest.mark.parametrize("data", [b"PK\3\4 a letter" * 99, b""])
    def test_that_is_a_broken_archive_is_one_entry_of_the_exception_log(
        self, system: System, bucket: storage.Bucket, data: bytes
    ) -> None:
        told = self.landed(bucket, data, "study.zip")
        for _ in range(2):
            assert push(ingest_object, b"{}", told) == 204
        system.pump()
        (entry,) = system.entries()
        assert (entry["code"], entry["source"]["name"]) == ("source-refused", BUCKET)

    def test_that_is_an_archive_with_a_broken_member_gives_the_others(
        self, system: System, bucket: storage.Bucket
    ) -> None:
        files = {f"{n}.dcm": build.ct(instance=f"n{n}") for n in range(3)}
        whole = bytearray(zipped(files))
        # Within the Pixel Data of the second, which is stored as it is.
        whole[whole.index(b"1.dcm") + 4000] ^= 0xFF
        assert push(ingest_object, b"{}", self.landed(bucket, bytes(whole), "study.zip")) == 204
        system.pump()
        (entry,) = system.entries()
        assert (entry["code"], len(instances(system))) == ("source-refused", 2)

    def test_that_is_gone_or_overwritten_is_passed_over(
        self, system: System, bucket: storage.Bucket
    ) -> None:
        told = self.landed(bucket, build.ct())
        self.landed(bucket, build.ct(instance="newer"))
        bucket.blob(told["objectId"]).delete()
        del bucket
        assert push(ingest_object, b"{}", {**told, "objectGeneration": "1"}) == 204
        assert instances(system) == []

    @pytest.mark.parametrize("event", ["OBJECT_DELETE", "OBJECT_METADATA_UPDATE"])
    def test_other_events_are_nothing_to_us(
        self, system: System, bucket: storage.Bucket, event: str
    ) -> None:
        told = {**self.landed(bucket, build.ct()), "eventType": event}
        assert push(ingest_object, b"{}", told) == 204
        assert instances(system) == []

    @pytest.mark.parametrize(
        "told",
        [
            {"bucketId": "elsewhere", "objectId": "a", "objectGeneration": "1"},
            {"bucketId": BUCKET, "objectId": "a", "objectGeneration": "x"},
            {},
        ],
    )
    def test_what_is_no_notification_of_ours_is_recorded_and_does_not_come_again(
        self, system: System, told: dict[str, str]
    ) -> None:
        assert push(ingest_object, b"[1]", told) == 204
        system.pump()
        assert [entry["code"] for entry in system.entries()] == ["malformed-message"]


class TestAStoredInstance:
    def test_of_others_is_taken_in_as_it_is_stored(
        self, system: System, store: HealthcareStore
    ) -> None:
        path = store.put(build.ct(transfer_syntax_uid=build.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN))
        for _ in range(2):
            assert push(ingest_store_instance, path.encode(), {"versionId": "1"}) == 204
        system.pump()
        (found,) = instances(system)
        assert found["source"]["type"] == "google_healthcare"

    @pytest.mark.parametrize("action", ["DeleteInstances", "SetBlobSettings"])
    def test_is_not_asked_for_when_something_else_happened(
        self, system: System, store: HealthcareStore, action: str
    ) -> None:
        path = store.put(build.ct())
        assert push(ingest_store_instance, path.encode(), {"action": action}) == 204
        assert (store.requests, instances(system)) == ([], [])

    @pytest.mark.parametrize("missing", [403, 404])
    def test_that_is_gone_is_passed_over(
        self, system: System, store: HealthcareStore, missing: int
    ) -> None:
        store.missing = missing
        path = store.path_of("1.2", "1.3", "1.4")
        assert push(ingest_store_instance, path.encode()) == 204
        assert instances(system) == []

    def test_waits_while_google_does_not_answer(
        self, system: System, store: HealthcareStore
    ) -> None:
        path = store.put(build.ct())
        store.answer_next(429)
        assert push(ingest_store_instance, path.encode()) == 503
        assert push(ingest_store_instance, path.encode()) == 204
        system.pump()
        assert len(instances(system)) == 1

    def test_of_our_own_is_not_taken_in_again(
        self, system: System, store: HealthcareStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else it would go round for ever."""
        from shared.adapters.destinations import create

        documents = system.ports.configuration.export()["destinations"]
        google = {
            "name": "store",
            "type": "google_healthcare",
            "project_id": "p",
            "location": "europe-west3",
            "dataset_id": "d",
            "dicom_store_id": "s",
            "base_url": f"{store.url}/v1",
        }
        system.ports.configuration.apply({"destinations": [*documents, google]}, by="test")
        system.configure(default_route=["store"])
        monkeypatch.setattr(
            system.ports.destinations,
            "_create",
            lambda entity: create(entity, system.ports.secrets),
        )
        told: list[tuple[str, int]] = []

        def notify(action: str, path: str) -> None:
            # While the delivery is still under way, as Google may do.
            status = push(ingest_store_instance, path.encode(), {"action": action})
            told.append((path, status))

        store.on_change = notify
        system.receive(build.ct())
        system.pump()
        ((path, status),) = told
        assert status == 425
        assert push(ingest_store_instance, path.encode()) == 204
        system.pump()
        assert len(instances(system)) == 1

    def test_that_a_group_of_ours_stored_is_not_taken_in_again(
        self, system: System, store: HealthcareStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What goes to a group is recorded under its name. What others store of what another
        member took is taken in.
        """
        from shared.adapters.destinations import create

        documents = system.ports.configuration.export()["destinations"]
        google = {
            "name": "store",
            "type": "google_healthcare",
            "project_id": "p",
            "location": "europe-west3",
            "dataset_id": "d",
            "dicom_store_id": "s",
            "base_url": f"{store.url}/v1",
        }
        groups = [
            {"name": "first", "type": "group", "members": ["store", "pacs"]},
            {"name": "second", "type": "group", "members": ["pacs", "store"]},
        ]
        system.ports.configuration.apply({"destinations": [*documents, google, *groups]}, by="test")
        usual = system.ports.destinations._create
        monkeypatch.setattr(
            system.ports.destinations,
            "_create",
            lambda entity: (
                create(entity, system.ports.secrets) if entity.name == "store" else usual(entity)
            ),
        )
        paths: list[str] = []
        store.on_change = lambda action, path: paths.append(path)
        system.configure(default_route=["first"])
        system.receive(build.ct(instance="ours"))
        system.pump()
        system.configure(default_route=["second"])
        system.receive(build.ct(instance="elsewhere"))
        system.pump()
        assert [path.rpartition("/")[2] for path in paths] == [build.uid("ours")]
        store.put(build.ct(instance="elsewhere"))
        for path in paths:
            assert push(ingest_store_instance, path.encode()) == 204
        system.pump()
        taken = [one["sop_instance_uid"] for one in instances(system)]
        assert sorted(taken) == sorted([build.uid("ours"), *[build.uid("elsewhere")] * 2])

    @pytest.mark.parametrize("data", [b"", b"\xff", b"projects/p", b"../../x"])
    def test_what_is_no_notification_is_recorded(self, system: System, data: bytes) -> None:
        assert push(ingest_store_instance, data) == 204
        system.pump()
        assert [entry["code"] for entry in system.entries()] == ["malformed-message"]


def test_places_are_values() -> None:
    """What the pipeline gets: names alone, and two calls."""

    def none(_: Any) -> Any:
        raise AssertionError

    assert Places(frozenset({"b"}), none, none, none).buckets == {"b"}
    assert Landed("b", "n", 1).key == "gs://b/n#1"
