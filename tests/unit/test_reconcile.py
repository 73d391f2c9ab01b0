"""What came from a source against what a destination holds, with real destinations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from infra.local.cli import main
from shared import bootstrap
from shared.errors import DestinationMisconfiguredError, DestinationUnavailableError
from shared.messages import Source, Topic
from shared.pipeline import reconcile
from tests.data import build
from tests.embedded_system import DAY, SOURCE, System
from tests.peers import StartOrthanc, StartStorescp, free_port
from tests.unit.web_fakes import AUTHORIZED, client_over

pytest_plugins = ("tests.peers",)


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path / "home")
    yield system
    system.ports.destinations.close()


def compare(
    system: System, destination: str = "primary-storage", **asked: Any
) -> Mapping[str, Any]:
    created = reconcile.create(
        asked.pop("source", ""), destination, system.ports, by="test", **asked
    )
    return reconcile.work(created["id"], system.ports)


def file_of(system: System, name: str) -> Path:
    (found,) = (path for path in system.delivered() if path.stem == build.uid(name))
    return found


def receive_palette(system: System) -> None:
    """A Color Palette: of no patient, and of no Study."""
    palette = "1.2.840.10008.5.1.4.39.1"
    with system.ports.receiver.begin(SOURCE) as staging:
        staging.write(
            build.part10(
                build.element(build.SOP_CLASS_UID, "UI", palette)
                + build.element(build.SOP_INSTANCE_UID, "UI", build.uid("palette")),
                sop_class_uid=palette,
                sop_instance_uid=build.uid("palette"),
            )
        )
        staging.commit()


class TestAFolder:
    def test_that_has_all_is_complete(self, system: System) -> None:
        system.receive("one")
        system.receive("two")
        system.work()
        found = compare(system)
        assert found["state"] == "finished"
        assert (found["studies"], found["present"]) == (1, 2)
        assert found["missing"] == found["extra"] == found["failed"] == found["pending"] == 0

    def test_that_lost_one_gets_it_again(self, system: System) -> None:
        for name in ("one", "two", "three"):
            system.receive(name)
        system.work()
        before = file_of(system, "two").read_bytes()
        file_of(system, "two").unlink()
        found = compare(system)
        assert (found["present"], found["missing"], found["requeued"]) == (2, 1, 0)
        (missing,) = found["instances"]["missing"]
        assert missing["sop_instance_uid"] == build.uid("two")
        assert system.work() == []
        assert compare(system, requeue=True)["requeued"] == 1
        system.work()
        assert file_of(system, "two").read_bytes() == before
        assert compare(system)["present"] == 3

    def test_that_is_asked_twice_at_once_gets_it_once(self, system: System) -> None:
        receipt = system.receive("one")
        system.work()
        file_of(system, "one").unlink()
        for _ in range(2):
            compare(system, requeue=True)
        assert set(system.work()) == {204}
        known = system.ports.documents.get("deliveries", f"{receipt.receipt_id}:primary-storage")
        assert known is not None
        assert known.data["state"] == "delivered"

    def test_that_was_not_reached_is_told_apart_from_one_that_lost_something(
        self, system: System
    ) -> None:
        system.ports.configuration.replace(
            "destinations",
            "primary-storage",
            {"name": "primary-storage", "type": "filesystem", "path": "x", "enabled": False},
            by="test",
        )
        system.clock.advance(1)
        system.receive("one")
        system.work()
        found = compare(system)
        assert (found["failed"], found["missing"]) == (1, 0)
        system.ports.configuration.replace(
            "destinations",
            "primary-storage",
            {"name": "primary-storage", "type": "filesystem", "path": "x"},
            by="test",
        )
        system.clock.advance(1)
        assert compare(system, requeue=True)["requeued"] == 1
        (entry,) = system.ports.exceptions.list().documents
        assert entry.data["status"] == "retried"
        system.work()
        assert compare(system)["present"] == 1

    def test_that_has_other_bytes_of_an_instance_says_that_it_failed(self, system: System) -> None:
        system.receive("one")
        system.work()
        system.clock.advance(1)
        system.receive("one", patient_id="ANOTHER")
        system.work()
        for requeue in (False, True):
            found = compare(system, requeue=requeue)
            assert (found["failed"], found["present"], found["requeued"]) == (1, 0, 0)
        (failed,) = found["instances"]["failed"]
        assert failed["sop_instance_uid"] == build.uid("one")

    def test_does_not_get_after_all_what_a_person_has_given_up(self, system: System) -> None:
        """It may be of the wrong patient."""
        disabled = {"name": "primary-storage", "type": "filesystem", "path": "x", "enabled": False}
        system.ports.configuration.replace("destinations", "primary-storage", disabled, by="test")
        system.receive("one")
        system.work()
        (entry,) = system.ports.exceptions.list().documents
        system.ports.exceptions.discard(entry.key, by="test", reason="another patient's")
        found = compare(system, requeue=True)
        assert (found["discarded"], found["failed"], found["requeued"]) == (1, 0, 0)
        assert system.work() == []

    def test_does_not_get_an_earlier_copy_in_place_of_a_later_one(self, system: System) -> None:
        """Which came from elsewhere, so that it is none of what is asked about."""
        replacing = {"type": "filesystem", "path": "x", "on_conflict": "replace"}
        system.ports.configuration.replace(
            "destinations", "primary-storage", {"name": "primary-storage", **replacing}, by="test"
        )
        system.receive("one")
        system.work()
        system.clock.advance(60)
        with system.ports.receiver.begin(Source("dimse", "second")) as staging:
            staging.write(build.ct(instance="one", patient_id="CORRECTED"))
            staging.commit()
        system.work()
        assert compare(system, source=SOURCE.name)["present"] == 1
        file_of(system, "one").unlink()
        found = compare(system, source=SOURCE.name, requeue=True)
        assert (found["discarded"], found["missing"], found["requeued"]) == (1, 0, 0)
        assert compare(system, source="second", requeue=True)["requeued"] == 1
        system.work()
        assert b"CORRECTED" in file_of(system, "one").read_bytes()

    def test_does_not_get_again_what_it_was_to_keep_no_longer(self, system: System) -> None:
        short = {"type": "filesystem", "path": "x", "storage_policy": {"retain_days": 2}}
        system.ports.configuration.replace(
            "destinations", "primary-storage", {"name": "primary-storage", **short}, by="test"
        )
        system.receive("one")
        system.work()
        system.clock.advance(DAY)
        system.receive("two")
        system.work()
        for path in system.delivered():
            path.unlink()
        system.clock.advance(1.5 * DAY)
        found = compare(system, requeue=True)
        assert (found["discarded"], found["missing"], found["requeued"]) == (1, 1, 1)
        (missing,) = found["instances"]["missing"]
        assert missing["sop_instance_uid"] == build.uid("two")

    def test_that_has_what_belongs_to_no_study_is_complete(self, system: System) -> None:
        receive_palette(system)
        system.work()
        found = compare(system)
        assert (found["present"], found["missing"], found["not_asked"]) == (1, 0, 0)

    def test_that_has_more_says_so(self, system: System) -> None:
        system.receive("one")
        system.work()
        stranger = system.home / "storage" / "primary-storage" / "by-hand.dcm"
        stranger.write_bytes(build.ct(instance="stranger"))
        (system.home / "storage" / "primary-storage" / "notes.txt").write_text("no Instance")
        found = compare(system)
        assert found["extra"] == 1
        assert found["instances"]["extra"][0]["sop_instance_uid"] == build.uid("stranger")

    def test_is_asked_about_one_source_and_one_time_alone(self, system: System) -> None:
        system.receive("one")
        system.clock.advance(DAY)
        later = system.clock.now() - timedelta(hours=1)
        system.receive("two")
        system.work()
        for path in system.delivered():
            path.unlink()
        assert compare(system, source="CT1")["missing"] == 2
        assert compare(system, source="main")["missing"] == 2
        assert compare(system, source="CT2")["studies"] == 0
        assert compare(system, since=later)["missing"] == 1

    def test_does_not_miss_what_is_under_way(self, system: System) -> None:
        system.receive("one")
        system.work(Topic.INSTANCE_RECEIVED)
        system.work(Topic.INSTANCE_ACCEPTED)
        assert compare(system, requeue=True)["pending"] == 1

    def test_cannot_get_again_what_is_deleted_here(self, tmp_path: Path) -> None:
        system = System(tmp_path / "home", retention_s=0)
        system.receive("one")
        system.work()
        assert system.later(1).files == 1
        file_of(system, "one").unlink()
        found = compare(system, requeue=True)
        assert (found["missing"], found["gone"], found["requeued"]) == (1, 1, 0)

    def test_sees_uids_as_rules_made_them(self, system: System) -> None:
        rule = {
            "name": "new",
            "conditions": [],
            "actions": [
                {"type": "set", "tag": "SOPInstanceUID", "value": "2.25.7"},
                {"type": "set", "tag": "StudyInstanceUID", "value": "2.25.8"},
            ],
            "destinations": ["primary-storage"],
        }
        system.ports.configuration.create("rulesets", {"name": "r", "rules": [rule]}, by="test")
        system.clock.advance(1)
        system.receive("one")
        system.work()
        assert compare(system)["present"] == 1


class TestOrthanc:
    @pytest.mark.parametrize("type_", ["dimse", "dicomweb"])
    def test_is_asked_what_it_holds_and_gets_again_what_it_lost(
        self, system: System, start_orthanc: StartOrthanc, type_: str
    ) -> None:
        orthanc = start_orthanc(DicomAlwaysAllowFind=True)
        places: Mapping[str, Mapping[str, Any]] = {
            "dimse": {"host": orthanc.host, "port": orthanc.port, "ae_title": orthanc.ae_title},
            "dicomweb": {"base_url": orthanc.dicomweb_url},
        }
        system.ports.configuration.apply(
            {
                "destinations": [{"name": "pacs", "type": type_, **places[type_]}],
                "settings": {"default_route": ["pacs"], "min_free_bytes": 0},
            },
            by="test",
        )
        system.clock.advance(1)
        for name, series in (("one", "a"), ("two", "a"), ("three", "b"), ("four", "b")):
            system.receive(name, series=series)
        system.receive("other", study="another", series="c")
        system.work()
        assert compare(system, "pacs")["present"] == 5
        lost = requests.post(
            f"{orthanc.rest_url}/tools/lookup", data=build.uid("three").encode(), timeout=60
        ).json()
        requests.delete(f"{orthanc.rest_url}{lost[0]['Path']}", timeout=60).raise_for_status()
        requests.post(
            f"{orthanc.rest_url}/instances", data=build.ct(instance="stranger"), timeout=60
        ).raise_for_status()
        found = compare(system, "pacs", requeue=True)
        assert (found["present"], found["missing"], found["extra"]) == (4, 1, 1)
        system.work()
        assert compare(system, "pacs")["present"] == 5

    def test_that_does_not_answer_is_tried_again(self, system: System) -> None:
        port = free_port()
        for entity in (
            {"type": "dimse", "host": "127.0.0.1", "port": port, "ae_title": "X"},
            {"type": "dicomweb", "base_url": f"http://127.0.0.1:{port}/dicom-web"},
        ):
            system.ports.configuration.apply(
                {
                    "destinations": [{"name": "pacs", "timeout_s": 2, **entity}],
                    "settings": {"default_route": ["pacs"], "min_free_bytes": 0},
                },
                by="test",
            )
            system.clock.advance(1)
            system.receive("one")
            system.work(refused=True)
            with pytest.raises(DestinationUnavailableError):
                compare(system, "pacs")


class TestAStorageScp:
    def test_that_cannot_be_asked_is_told_apart_from_one_that_is_not_there(
        self, system: System, storescp: StartStorescp
    ) -> None:
        peer = storescp()
        entity = {"host": peer.host, "port": peer.port, "ae_title": peer.ae_title}
        system.ports.configuration.apply(
            {
                "destinations": [{"name": "pacs", "type": "dimse", **entity}],
                "settings": {"default_route": ["pacs"], "min_free_bytes": 0},
            },
            by="test",
        )
        system.clock.advance(1)
        found = compare(system, "pacs")
        assert found["state"] == "failed"
        assert "does not accept C-FIND" in found["reason"]


class TestOneThatIsAskedByStudy:
    @pytest.mark.parametrize(("type_", "address"), [("dicomweb", "/dicom-web"), ("orthanc", "")])
    def test_is_not_asked_for_the_instances_of_no_study(
        self, system: System, type_: str, address: str
    ) -> None:
        url = f"http://127.0.0.1:{free_port()}{address}"
        system.ports.configuration.create(
            "destinations", {"name": "pacs", "type": type_, "base_url": url}, by="test"
        )
        system.clock.advance(1)
        with system.ports.inventory("pacs") as inventory:
            assert inventory.instances("") is None

    @pytest.mark.parametrize("is_delivered", [True, False])
    def test_misses_nothing_of_what_belongs_to_no_study(
        self, system: System, is_delivered: bool
    ) -> None:
        class ByStudy:
            def instances(self, study_instance_uid: str) -> set[str] | None:
                return set() if study_instance_uid else None

        receive_palette(system)
        system.work(*([] if is_delivered else [Topic.INSTANCE_RECEIVED, Topic.INSTANCE_ACCEPTED]))
        ports = replace(system.ports, inventory=lambda _: nullcontext(ByStudy()))
        created = reconcile.create("", "primary-storage", ports, by="test")
        found = reconcile.work(created["id"], ports)
        assert found["missing"] == found["present"] == found["studies"] == 0
        assert found["not_asked"] == is_delivered
        assert found["pending"] == (not is_delivered)


class TestPeople:
    def test_start_it_over_http_and_read_what_was_found(self, system: System) -> None:
        system.receive("one")
        system.work()
        client = client_over(system.ports)
        started = client.post(
            "/api/v1/reconciliations",
            json={"source": "CT1", "destination": "primary-storage"},
            headers=AUTHORIZED,
        )
        assert started.status_code == 202, started.text
        assert started.json is not None
        path = f"/api/v1/reconciliations/{started.json['id']}"
        assert client.get(path, headers=AUTHORIZED).json["state"] == "running"  # type: ignore[index]
        system.work()
        found = client.get(path, headers=AUTHORIZED).json
        assert found is not None
        assert (found["state"], found["present"]) == ("finished", 1)
        listed = client.get("/api/v1/reconciliations", headers=AUTHORIZED).json
        assert listed is not None
        assert [one["id"] for one in listed["items"]] == [found["id"]]
        cleaned = client.get("/api/v1/clean-ups", headers=AUTHORIZED).json
        assert cleaned == {"items": [], "next_cursor": None}

    def test_are_told_of_a_destination_that_there_is_not(self, system: System) -> None:
        with pytest.raises(DestinationMisconfiguredError):
            compare(system, "nowhere")
        answer = client_over(system.ports).post(
            "/api/v1/reconciliations", json={"destination": "nowhere"}, headers=AUTHORIZED
        )
        assert answer.status_code == 409

    def test_are_told_to_ask_again_where_the_destination_does_not_answer(
        self,
        system: System,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        place = {"host": "127.0.0.1", "port": free_port(), "ae_title": "X"}
        system.ports.configuration.create(
            "destinations", {"name": "pacs", "type": "dimse", "timeout_s": 2, **place}, by="test"
        )
        system.clock.advance(1)
        monkeypatch.setenv("AXIOM_HOME", str(system.home))
        bootstrap.from_environment.cache_clear()
        try:
            assert main(["reconcile", "--destination", "pacs", "--json"]) == 1
        finally:
            bootstrap.from_environment.cache_clear()
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["code"] == "destination-unavailable"
        assert error["hint"].startswith("Nothing was compared")

    def test_use_it_from_the_command_line(
        self,
        system: System,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        system.receive("one")
        system.work()
        monkeypatch.setenv("AXIOM_HOME", str(system.home))
        bootstrap.from_environment.cache_clear()
        try:
            command = ["reconcile", "--destination", "primary-storage"]
            assert main([*command, "--source", "CT1", "--since", "2020-01-01"]) == 0
            capsys.readouterr()
            file_of(system, "one").unlink()
            assert main([*command, "--no-requeue", "--json"]) == 1
            told = json.loads(capsys.readouterr().out)
            assert (told["missing"], told["requeued"]) == (1, 0)
            assert main([*command, "--json"]) == 0
            told = json.loads(capsys.readouterr().out)
            assert (told["missing"], told["requeued"]) == (1, 1)
            system.clock.advance(1000 * DAY)  # the command goes by the machine's clock
            system.work()
            assert main(command) == 0
        finally:
            bootstrap.from_environment.cache_clear()
