"""Studies that wait, over HTTP and on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from infra.local.cli import main
from shared.audit import AuditLog
from shared.pipeline.ports import Ports
from tests.data import build
from tests.unit.test_collect import (
    STUDY,
    advance,
    arrive,
    clock,
    configure,
    ports,
    sent,
    study_rule,
    tick,
    tick_after,
    uids,
)
from tests.unit.test_pipeline import pump
from tests.unit.web_fakes import AUTHORIZED, client_over

__all__ = ["clock", "ports"]

API = "/api/v1/studies"
OTHER = build.uid("other")


@pytest.fixture
def client(ports: Ports) -> FlaskClient:
    """Over a system where one Study is complete and another waits."""
    configure(ports, study_rule({"quiet_period_s": 10}))
    arrive(ports, "a", study="other", study_description="CANARY^STUDY")
    pump(ports)
    tick_after(ports, 10)
    advance(ports, 1)
    arrive(ports, "b", study_description="CANARY^STUDY")
    pump(ports)
    return client_over(ports)


def get(client: FlaskClient, path: str = "", **query: str) -> Any:
    response = client.get(API + path, query_string=query, headers=AUTHORIZED)
    assert response.status_code == 200, response.text
    assert "CANARY" not in response.text
    return response.get_json()


class TestOverHttp:
    def test_they_are_listed_newest_first_and_by_state(self, client: FlaskClient) -> None:
        listed = get(client)["items"]
        assert [one["study_instance_uid"] for one in listed] == [STUDY, OTHER]
        assert [one["state"] for one in listed] == ["collecting", "complete"]
        assert [one["instances"] for one in listed] == [1, 1]
        (waiting,) = get(client, state="collecting")["items"]
        assert waiting["rule"] == "s/study"
        assert get(client, study_uid=OTHER, rule="s/study")["items"] == listed[1:]
        assert get(client, state="timed_out")["items"] == []
        assert client.get(API, query_string={"state": "odd"}, headers=AUTHORIZED).status_code == 422
        assert client.get(API).status_code == 401

    def test_one_is_shown_with_what_each_rule_says(self, client: FlaskClient) -> None:
        (entry,) = get(client, f"/{OTHER}")["rules"]
        assert (entry["matched"], entry["verdict"]) == (True, "route")
        assert entry["reason"] == "matched s/study"
        assert client.get(f"{API}/1.2.3", headers=AUTHORIZED).status_code == 404

    def test_one_is_completed_by_hand(self, client: FlaskClient, ports: Ports) -> None:
        answer = client.post(f"{API}/{STUDY}/complete", headers=AUTHORIZED)
        assert answer.status_code == 202
        audit = AuditLog(ports.documents, ports.clock).list().documents
        (entry,) = [one for one in audit if one.data["what"].startswith("studies.")]
        assert (entry.data["what"], entry.data["id"]) == ("studies.complete", STUDY)
        tick(ports)
        (complete,) = get(client, f"/{STUDY}")["rules"]
        assert complete["state"] == "complete"
        assert complete["forced_by"] == entry.data["who"]
        again = client.post(f"{API}/{STUDY}/complete", headers=AUTHORIZED)
        assert (again.status_code, again.get_json()["code"]) == (409, "already-complete")
        missing = client.post(f"{API}/1.2.3/complete", headers=AUTHORIZED)
        assert missing.status_code == 404

    def test_one_is_completed_for_one_rule(self, client: FlaskClient) -> None:
        url = f"{API}/{STUDY}/complete"
        assert client.post(url, json={"rule": "s/odd"}, headers=AUTHORIZED).status_code == 404
        assert client.post(url, json={"rules": "s/odd"}, headers=AUTHORIZED).status_code == 422
        assert client.post(url, json={"rule": "s/study"}, headers=AUTHORIZED).status_code == 202

    def test_their_instances_are_listed_as_collecting_without_patient_data(
        self, client: FlaskClient
    ) -> None:
        """What they would leave with otherwise is kept with them, and is nobody's reading."""
        response = client.get("/api/v1/instances?state=collecting", headers=AUTHORIZED)
        (item,) = response.get_json()["items"]
        assert item["study_instance_uid"] == STUDY
        assert item["collecting_for"] == ["s/study"]
        assert "otherwise" not in item
        shown = client.get(f"/api/v1/instances/{item['receipt_id']}", headers=AUTHORIZED)
        assert "otherwise" not in shown.get_json()


class TestOnTheCommandLine:
    def run(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
        status = main(["studies", *words, "--json"])
        return status, json.loads(capsys.readouterr().out)

    @pytest.fixture(autouse=True)
    def home(self, client: FlaskClient, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AXIOM_HOME", str(tmp_path))

    def test_they_are_listed_shown_and_completed(
        self, capsys: pytest.CaptureFixture[str], ports: Ports, tmp_path: Any
    ) -> None:
        status, listed = self.run(capsys, "list", "--state", "collecting")
        assert (status, [one["study_instance_uid"] for one in listed["studies"]]) == (0, [STUDY])
        status, shown = self.run(capsys, "show", STUDY)
        assert (status, shown["rules"]) == (0, listed["studies"])
        status, completed = self.run(capsys, "complete", STUDY)
        assert (status, completed["rules"][0]["state"]) == (0, "collecting")
        tick(ports)
        assert sent(tmp_path) == {"target": uids("a", "b")}

    def test_what_cannot_be_done_says_why(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run_error(capsys, "complete", OTHER) == "already-complete"
        assert self.run_error(capsys, "show", "1.2.3") == "document-missing"

    def run_error(self, capsys: pytest.CaptureFixture[str], *words: str) -> str:
        assert main(["studies", *words, "--json"]) == 1
        captured = capsys.readouterr()
        code: str = json.loads(captured.out or captured.err)["error"]["code"]
        return code

    def test_people_get_tables(self, capsys: pytest.CaptureFixture[str]) -> None:
        for words in (["list"], ["show", STUDY], ["complete", STUDY], ["list"]):
            assert main(["studies", *words]) == 0
        assert "s/study" in capsys.readouterr().out
