"""What a person may ask about rules over HTTP: are they right, what would they do, why did they."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.dicom.validation import DEFAULT_SEVERITIES
from tests.data import build
from tests.unit.rules.cases import facts
from tests.unit.rules.test_dump import DCMDUMP
from tests.unit.rules.test_shadow import CANDIDATE, LIVE
from tests.unit.rules.whole_system import WholeSystem, part10, whole_system
from tests.unit.web_fakes import AUTHORIZED, client_over

API = "/api/v1"
CT = {"Modality": "CT", "PatientID": "7", "PatientName": "CANARY^YELLOW"}


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WholeSystem]:
    with whole_system(LIVE, tmp_path, monkeypatch) as system:
        yield system


@pytest.fixture
def client(system: WholeSystem) -> FlaskClient:
    return client_over(system.ports)


def get(client: FlaskClient, path: str, status: int = 200) -> Any:
    answer = client.get(API + path, headers=AUTHORIZED)
    assert answer.status_code == status, answer.text
    return answer.json


def post(client: FlaskClient, path: str, status: int = 200, **given: Any) -> Any:
    headers = {**AUTHORIZED, **given.pop("headers", {})}
    answer = client.post(API + path, headers=headers, **given)
    assert answer.status_code == status, answer.text
    return answer.json


class TestValidating:
    def test_names_every_fault_and_applies_nothing(self, client: FlaskClient) -> None:
        wrong = {**LIVE, "rules": [{"name": "x", "destinations": ["nowhere"], "conditons": []}]}
        problem = post(client, "/config/rulesets/validate", 422, json=wrong)
        assert {fault["path"] for fault in problem["faults"]} == {
            "rules[0].conditons",
            "rules[0].destinations[0]",
        }
        right = {**LIVE, "name": "other"}
        assert post(client, "/config/rulesets/validate", json=right) == {
            "valid": True,
            "name": "other",
        }
        assert len(get(client, "/config/rulesets")["items"]) == 1

    def test_refuses_a_ruleset_whose_tests_are_red_as_applying_does(
        self, client: FlaskClient
    ) -> None:
        red = {
            **LIVE,
            "tests": [{"attributes": {"Modality": "CT"}, "expect": {"destinations": []}}],
        }
        problem = post(client, "/config/rulesets/validate", 422, json=red)
        assert [fault["path"] for fault in problem["faults"]] == ["tests[0]"]
        assert "expected [], found ['a']" in problem["faults"][0]["message"]
        answer = client.put(API + "/config/rulesets/main", json=red, headers=AUTHORIZED)
        assert answer.status_code == 422


class TestADryRun:
    def test_over_an_uploaded_file(self, client: FlaskClient) -> None:
        report = post(
            client,
            "/config/rulesets/dry-run",
            data={
                "ruleset": json.dumps(CANDIDATE),
                "facts": "{calling_ae: CT_1}",
                "dicom": (io.BytesIO(part10(CT)), "file.dcm"),
            },
        )
        (result,) = report["results"]
        assert result["live"]["destinations"] == ["a"]
        assert result["candidate"]["destinations"] == ["a", "b"]
        assert result["candidate"]["matched_rules"] == ["main/ct"]
        assert "destinations: + b" in result["differences"]

    def test_over_a_file_that_is_the_body_or_in_base64(self, client: FlaskClient) -> None:
        data = part10(CT)
        raw = post(
            client,
            "/config/rulesets/main/dry-run",
            data=data,
            headers={"Content-Type": "application/dicom"},
        )
        inline = post(
            client,
            "/config/rulesets/main/dry-run",
            json={"dicom": base64.b64encode(data).decode()},
        )
        assert raw == inline
        assert raw["results"][0]["candidate"]["destinations"] == ["a"]
        assert raw["different"] == 0

    def test_over_a_tag_dump(self, client: FlaskClient) -> None:
        candidate = {
            "name": "jpeg",
            "priority": 1,
            "rules": [
                {"name": "r", "conditions": [{"transfer_syntax": "any_jpeg"}], "destinations": "b"}
            ],
        }
        candidate["rules"][0]["destinations"] = ["b"]  # type: ignore[index]
        asked = {"ruleset": candidate, "dump": DCMDUMP}
        (result,) = post(client, "/config/rulesets/dry-run", json=asked)["results"]
        assert result["candidate"]["matched_rules"] == ["jpeg/r", "main/rest"]
        assert "cut short" in result["warnings"][0]
        asked = {"ruleset": candidate, "dump": {"Modality": "CT"}, "facts": {"size": 5}}
        (result,) = post(client, "/config/rulesets/dry-run", json=asked)["results"]
        assert result["differences"] == []

    def test_over_past_traffic_with_what_differs_first(
        self, client: FlaskClient, system: WholeSystem
    ) -> None:
        for attributes in ({"Modality": "MR"}, CT, {"Modality": "US"}):
            system.send(attributes, facts())
        before = system.ports.documents.count("deliveries")
        report = post(
            client, "/config/rulesets/main/dry-run", json={"ruleset": CANDIDATE, "last": 10}
        )
        assert (report["instances"], report["different"]) == (3, 1)
        assert report["results"][0]["sop_instance_uid"] == build.uid("instance 1")
        assert system.ports.documents.count("deliveries") == before
        assert report["rules"]["main/rest"] == {"live": 2, "candidate": 2}

    @pytest.mark.parametrize(
        ("given", "status", "said"),
        [
            ({"json": {"ruleset": {"name": "x", "rules": [{}]}}}, 422, "rules[0].name"),
            ({"json": {"dump": "hello"}}, 422, "none of dcmdump"),
            ({"json": {"dicom": "!"}}, 422, "not base64"),
            ({"json": {"dicom": base64.b64encode(b"hello").decode()}}, 422, "not-dicom"),
            ({"json": {"dump": "{}", "last": 3}}, 422, "one of"),
            ({"json": {"last": 0}}, 422, "last"),
            ({"json": {"last": 1, "rulset": LIVE}}, 422, "rulset"),
            ({"json": {"dump": {"Modality": "CT"}, "facts": {"colour": 1}}}, 422, "facts.colour"),
            ({"data": {"ruleset": "a: &a [*a]", "dicom": (io.BytesIO(b""), "x")}}, 422, "YAML"),
            ({"data": {"facts": "3", "dicom": (io.BytesIO(b""), "x")}}, 422, "no object"),
            ({"data": b"", "headers": {"Content-Type": "application/dicom"}}, 422, "not-dicom"),
            ({"data": "x", "headers": {"Content-Type": "text/plain"}}, 415, "application/json"),
        ],
    )
    def test_of_what_cannot_be_tried_says_why(
        self, client: FlaskClient, given: dict[str, Any], status: int, said: str
    ) -> None:
        assert said in json.dumps(post(client, "/config/rulesets/dry-run", status, **given))

    def test_of_a_ruleset_that_is_not_there_is_404(self, client: FlaskClient) -> None:
        post(client, "/config/rulesets/nobody/dry-run", 404, json={"last": 1})


def test_a_shadow_tells_what_it_would_have_changed(
    client: FlaskClient, system: WholeSystem
) -> None:
    post(client, "/config/rulesets", 201, json=CANDIDATE)
    system.clock.advance(1)
    system.send(CT, facts())
    system.ports.shadows.write()
    report = get(client, "/config/rulesets/next/shadow-report")
    assert (report["instances"], report["different"]) == (1, 1)
    assert report["samples"][0]["receipt_id"] == system.receipts[0].receipt_id
    assert "CANARY" not in json.dumps(report)
    get(client, "/config/rulesets/main/shadow-report", 404)


class TestExplaining:
    def test_shows_which_condition_failed_and_what_it_saw(
        self, client: FlaskClient, system: WholeSystem, caplog: pytest.LogCaptureFixture
    ) -> None:
        system.send({**CT, "Modality": "MR"}, facts())
        path = f"/instances/{system.receipts[0].receipt_id}/explain"
        told = get(client, path)
        first, second = told["rules"]
        assert (first["rule"], first["matched"]) == ("main/ct", False)
        assert first["conditions"][0]["seen"] == {"Modality": ["MR"]}
        assert second["matched"] is True
        assert told["decision"]["destinations"] == ["b"]
        assert "CANARY" not in caplog.text

    def test_is_by_the_rules_that_decided_unless_asked_otherwise(
        self, client: FlaskClient, system: WholeSystem
    ) -> None:
        system.send(CT, facts())
        system.ports.configuration.replace("rulesets", "main", {**LIVE, "rules": []}, by="test")
        system.clock.advance(1)
        path = f"/instances/{system.receipts[0].receipt_id}/explain"
        assert get(client, path)["rules"][0]["matched"] is True
        assert get(client, path + "?rules=current")["rules"] == []

    def test_is_noted_in_the_audit_log(self, client: FlaskClient, system: WholeSystem) -> None:
        """It shows patients' Values."""
        system.send(CT, facts())
        receipt_id = system.receipts[0].receipt_id
        get(client, f"/instances/{receipt_id}/explain")
        entries = get(client, "/audit")["items"]
        (entry,) = [one for one in entries if one["what"].startswith("instances.explain")]
        assert (entry["what"], entry["id"]) == ("instances.explain", receipt_id)
        assert entry["who"].startswith("preset")

    def test_of_what_is_not_there_is_404(self, client: FlaskClient, system: WholeSystem) -> None:
        get(client, "/instances/nobody/explain", 404)

    def test_says_what_became_of_one_that_validation_refused(
        self, client: FlaskClient, system: WholeSystem
    ) -> None:
        severities = {**dict.fromkeys(DEFAULT_SEVERITIES, "ignore"), "patient-id-missing": "reject"}
        strict = {"min_free_bytes": 0, "validation": severities}
        system.ports.configuration.apply({"settings": strict}, by="test")
        system.clock.advance(1)
        system.send({"Modality": "CT"}, facts())
        told = get(client, f"/instances/{system.receipts[-1].receipt_id}/explain")
        assert told["rules"] == []
        assert told["decision"]["error"].startswith("validate_instance ended before a decision: ")
        assert told["exceptions"][0]["code"] == "invalid-instance"

    def test_of_what_is_gone_is_410(self, client: FlaskClient, system: WholeSystem) -> None:
        system.send(CT, facts())
        system.ports.objects.delete(system.receipts[0].file.object_name)
        get(client, f"/instances/{system.receipts[0].receipt_id}/explain", 410)


class TestVersions:
    def test_say_who_changed_what_and_why(self, client: FlaskClient) -> None:
        changed = {**LIVE, "execution_mode": "ALL_MATCHES"}
        answer = client.put(
            API + "/config/rulesets/main",
            json=changed,
            headers={**AUTHORIZED, "Change-Reason": "both, für alle".encode().decode("latin-1")},
        )
        assert answer.status_code == 200
        newest, *others = get(client, "/config/versions")["items"]
        assert newest["reason"] == "both, für alle"
        assert newest["by"].startswith("preset")
        assert len(others) == newest["version"] - 1
        diff = get(client, f"/config/versions/{newest['version']}/diff")
        (difference,) = diff["differences"]
        assert difference["path"] == "rulesets[main].execution_mode"
        assert "+  execution_mode: ALL_MATCHES" in diff["unified_diff"]
        history = get(client, "/config/rulesets/main/history")["items"]
        assert [one["version"] for one in history] == [newest["version"], newest["version"] - 1]
        assert history[0]["ruleset"] == changed

    def test_can_be_gone_back_to(self, client: FlaskClient) -> None:
        newest = get(client, "/config/versions")["items"][0]["version"]
        client.delete(API + "/config/rulesets/main", headers=AUTHORIZED)
        assert get(client, "/config/rulesets")["items"] == []
        restored = post(
            client, f"/config/versions/{newest}/roll-back", json={"reason": "too early"}
        )
        assert (restored["version"], restored["reason"]) == (newest + 2, "too early")
        assert get(client, "/config/rulesets")["items"] == [LIVE]
        one = get(client, f"/config/versions/{newest}")
        assert one["configuration"]["rulesets"] == [LIVE]
        diff = get(client, f"/config/versions/{newest + 2}/diff?to={newest}")
        assert (diff["differences"], diff["unified_diff"]) == ([], "")

    def test_have_one_ruleset_gone_back_to_alone(self, client: FlaskClient) -> None:
        newest = get(client, "/config/versions")["items"][0]["version"]
        other = {"name": "other", "rules": []}
        post(client, "/config/rulesets", 201, json=other)
        client.put(API + "/config/rulesets/main", json={**LIVE, "rules": []}, headers=AUTHORIZED)
        path = f"/config/versions/{newest}/roll-back"
        restored = post(client, path, json={"ruleset": "main"})
        assert restored["reason"] == f"roll main back to version {newest}"
        assert get(client, "/config/rulesets")["items"] == [LIVE, other]
        post(client, path, 404, json={"ruleset": "nobody"})

    def test_are_tried_without_going_back(self, client: FlaskClient) -> None:
        """Who asks for a dry run on a system that works wants nothing else."""
        newest = get(client, "/config/versions")["items"][0]
        client.delete(API + "/config/rulesets/main", headers=AUTHORIZED)
        tried = post(client, f"/config/versions/{newest['version']}/roll-back?dry_run=true")
        assert tried["configuration"]["rulesets"] == [LIVE]
        assert tried["version"] == newest["version"] + 1
        assert get(client, "/config/rulesets")["items"] == []

    def test_are_not_gone_back_to_if_somebody_was_first(self, client: FlaskClient) -> None:
        known = client.get(API + "/config", headers=AUTHORIZED).headers["ETag"]
        version = get(client, "/config/versions")["items"][0]["version"]
        path = f"{API}/config/versions/{version}/roll-back"
        client.delete(API + "/config/rulesets/main", headers=AUTHORIZED)
        headers = {**AUTHORIZED, "If-Match": known}
        assert client.post(path, headers=headers).status_code == 412
        headers["If-Match"] = client.get(API + "/config", headers=AUTHORIZED).headers["ETag"]
        assert client.post(path, headers=headers).status_code == 200

    def test_that_never_were_are_404(self, client: FlaskClient) -> None:
        get(client, "/config/versions/99", 404)
        get(client, "/config/versions/99/diff", 404)
        get(client, "/config/versions/1/diff?to=99", 404)
        post(client, "/config/versions/99/roll-back", 404)
