"""Crosswalks in the running system: in rules, over HTTP, and not at all where nobody asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.errors import CrosswalkUnavailableError
from shared.messages import Topic
from shared.pipeline.ports import Ports
from shared.pipeline.push import MESSAGE_ID_HEADER, PushRequest
from tests.data import build
from tests.databases import SqliteFile
from tests.unit.crosswalk.site import new_ids
from tests.unit.test_pipeline import ENTRY_POINTS, delivered, ports, pump, receive
from tests.unit.web_fakes import AUTHORIZED, client_over

__all__ = ["ports"]

ROOT = Path(__file__).resolve().parents[3]
RULESET = {
    "name": "ids",
    "rules": [
        {
            "name": "new-id",
            "actions": [
                {"type": "crosswalk", "map": "new-ids", "set": {"PatientID": "new_id"}},
            ],
            "destinations": ["primary-storage"],
        }
    ],
}


def configure(ports: Ports, source: dict[str, object]) -> None:
    ports.configuration.apply(
        {
            "crosswalk_sources": [source],
            "crosswalk_maps": [new_ids(cache={"ttl_s": 0})],
            "rulesets": [RULESET],
        },
        by="test",
    )


def lease(ports: Ports, topic: str) -> PushRequest:
    """The one message of the topic, as it is pushed."""
    assert isinstance(ports.bus, SqliteMessageBus)
    (message,) = ports.bus.lease([topic], limit=10, lease_s=60)
    ports.bus.settle(acknowledged=[message.message_id])
    return PushRequest(message.data, {MESSAGE_ID_HEADER: str(message.message_id)})


class TestRules:
    def test_an_instance_waits_until_the_database_answers(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        """503 has the message delivered again; nothing is decided before."""
        configure(ports, {"name": "ris", "type": "sqlite", "path": str(tmp_path / "ris.db")})
        receive(ports, build.ct(patient_id="P1"))
        received = lease(ports, Topic.INSTANCE_RECEIVED)
        assert ENTRY_POINTS[Topic.INSTANCE_RECEIVED](received)[1] == 204
        accepted = lease(ports, Topic.INSTANCE_ACCEPTED)
        assert ENTRY_POINTS[Topic.INSTANCE_ACCEPTED](accepted)[1] == 503
        assert ports.documents.count("instances") == 0
        SqliteFile(tmp_path / "ris.db").execute(
            "CREATE TABLE ids (old_id TEXT, new_id TEXT)", "INSERT INTO ids VALUES ('P1', 'N1')"
        )
        assert ENTRY_POINTS[Topic.INSTANCE_ACCEPTED](accepted)[1] == 204
        pump(ports)
        (file,) = delivered(tmp_path)
        assert pydicom.dcmread(file).PatientID == "N1"
        assert ports.documents.count("exceptions") == 0

    def test_two_rows_fail_the_rule_and_name_no_patient(
        self, ports: Ports, tmp_path: Path, sqlite_file: SqliteFile
    ) -> None:
        sqlite_file.execute(
            "CREATE TABLE ids (old_id TEXT, new_id TEXT)",
            "INSERT INTO ids VALUES ('CANARY', 'N1'), ('CANARY', 'N2')",
        )
        configure(ports, sqlite_file.source())
        receive(ports, build.ct(patient_id="CANARY"))
        pump(ports)
        assert delivered(tmp_path) == []
        (entry,) = ports.exceptions.list().documents
        assert "more than one row fits" in entry.data["message"]
        assert "CANARY" not in str({**entry.data, "retry_message": ""})


class TestOverHttp:
    def test_a_map_can_be_tried(self, ports: Ports, sqlite_file: SqliteFile) -> None:
        sqlite_file.execute(
            "CREATE TABLE ids (old_id TEXT, new_id TEXT)", "INSERT INTO ids VALUES ('P1', 'N1')"
        )
        client = client_over(ports)
        config = "/api/v1/config"
        source = client.post(
            f"{config}/crosswalk-sources", json=sqlite_file.source(), headers=AUTHORIZED
        )
        assert source.status_code == 201
        stored = client.post(f"{config}/crosswalk-maps", json=new_ids(), headers=AUTHORIZED)
        assert stored.status_code == 201
        place = f"{config}/crosswalk-maps/new-ids"
        assert client.get(place, headers=AUTHORIZED).get_json()["table"] == "ids"
        for old_id, answer in (
            ("P1", {"found": True, "outputs": {"new_id": "N1"}}),
            ("P2", {"found": False, "outputs": {}}),
        ):
            found = client.post(
                f"{place}/lookup", json={"keys": {"old_id": old_id}}, headers=AUTHORIZED
            )
            assert found.get_json() == answer
        status = client.get(f"{place}/status", headers=AUTHORIZED).get_json()
        assert (status["source"], status["is_copied"]) == ("ris", False)
        assert client.post(f"{place}/sync", headers=AUTHORIZED).status_code == 409

    @pytest.mark.parametrize(
        ("path", "body", "status"),
        [
            ("new-ids/lookup", {"keys": {"old_id": 7}}, 422),
            ("new-ids/lookup", {"key": {}}, 422),
            ("new-ids/lookup", {"keys": {"oldid": "CANARY"}}, 409),
            ("new-ids/lookup", {"keys": {"old_id": "CANARY"}}, 503),
            ("other/lookup", {"keys": {"old_id": "CANARY"}}, 404),
        ],
    )
    def test_what_cannot_be_answered_says_why(
        self, ports: Ports, path: str, body: object, status: int
    ) -> None:
        configure(ports, {"name": "ris", "type": "sqlite", "path": "absent.db"})
        place = f"/api/v1/config/crosswalk-maps/{path}"
        answer = client_over(ports).post(place, json=body, headers=AUTHORIZED)
        assert answer.status_code == status
        assert "CANARY" not in answer.get_data(as_text=True)

    def test_needs_a_key(self, ports: Ports) -> None:
        place = "/api/v1/config/crosswalk-maps/new-ids/lookup"
        assert client_over(ports).post(place, json={"keys": {}}).status_code == 401


def test_who_meets_no_database_imports_no_driver(tmp_path: Path) -> None:
    """SQLAlchemy costs a third of a second at each cold start."""
    (tmp_path / "crosswalks").mkdir()
    (tmp_path / "crosswalks" / "ids.csv").write_text("old_id,new_id\nP1,N1\n")
    code = (
        "import sys\nfrom shared.bootstrap import from_environment\n"
        "ports = from_environment()\n"
        "source = {'name': 'ris', 'type': 'csv', 'path': 'ids.csv'}\n"
        "asked = {'name': 'm', 'source': 'ris', 'match': [{'column': 'old_id'}],"
        " 'outputs': [{'column': 'new_id'}]}\n"
        "ports.configuration.apply({'crosswalk_sources': [source], 'crosswalk_maps': [asked]},"
        " by='t')\n"
        "assert ports.crosswalks.lookup('m', {'old_id': 'P1'}) == {'new_id': 'N1'}\n"
        "assert ports.rules.program()\n"
        "heavy = {'sqlalchemy', 'psycopg', 'pymysql', 'pymssql'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "AXIOM_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_the_error_of_a_map_that_cannot_answer_is_transient() -> None:
    error = CrosswalkUnavailableError("m", "there is no connection")
    assert str(error) == "crosswalk m: there is no connection"
    assert error.hint
