"""Asking a destination whether it is there, over HTTP and from the command line."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from infra.local.cli import main
from shared import bootstrap
from shared.audit import AuditLog
from shared.errors import DestinationRefusedError
from shared.pipeline.peer_check import check_destination, check_source
from shared.pipeline.ports import Ports
from tests.unit.operating import System, running_system
from tests.unit.web_fakes import AUTHORIZED, client_over

API = "/api/v1/destinations"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    yield from running_system(tmp_path, monkeypatch.setenv)


@pytest.fixture
def ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ports]:
    """With real destinations."""
    monkeypatch.setenv("AXIOM_HOME", str(tmp_path / "home"))
    bootstrap.from_environment.cache_clear()
    ports = bootstrap.from_environment()
    yield ports
    ports.destinations.close()
    bootstrap.from_environment.cache_clear()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Taken by us, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def configure(ports: Ports, *destinations: dict[str, Any]) -> None:
    document = {"destinations": list(destinations), "settings": {"default_route": []}}
    ports.configuration.apply(document, by="test")


def folder(name: str = "scans", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "filesystem", "path": name, **more}


def dimse(port: int, name: str = "pacs") -> dict[str, Any]:
    return {"name": name, "type": "dimse", "host": "127.0.0.1", "port": port, "ae_title": "PACS"}


def checked(client: FlaskClient, name: str, status: int = 200) -> Any:
    response = client.post(f"{API}/{name}/check", headers=AUTHORIZED)
    assert response.status_code == status, response.text
    return response.get_json()


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(["destinations", *words])
    return status, capsys.readouterr().out


class TestOverHttp:
    def test_a_folder_is_written_to_and_nothing_stays_there(
        self, ports: Ports, tmp_path: Path
    ) -> None:
        configure(ports, folder(path=str(tmp_path / "scans")))
        answer = checked(client_over(ports), "scans")
        assert answer.pop("ms") >= 0
        assert answer == {
            "destination": "scans",
            "ok": True,
            "answer": f"{tmp_path / 'scans'} is writable",
            "code": "",
            "hint": "",
        }
        assert not [path for path in (tmp_path / "scans").rglob("*") if path.is_file()]

    def test_a_peer_that_is_away_is_an_answer_in_its_own_words(
        self, ports: Ports, closed_port: int
    ) -> None:
        configure(ports, dimse(closed_port))
        answer = checked(client_over(ports), "pacs")
        assert (answer["ok"], answer["code"]) == (False, "destination-unavailable")
        assert "connection refused" in answer["answer"]
        assert answer["hint"]

    def test_a_group_answers_with_the_member_that_is_there(
        self, ports: Ports, closed_port: int
    ) -> None:
        group = {"name": "either", "type": "group", "members": ["pacs", "scans"]}
        configure(ports, dimse(closed_port), folder(), group)
        answer = checked(client_over(ports), "either")
        assert answer["ok"]
        assert answer["answer"].startswith("scans: ")

    def test_one_that_is_not_enabled_is_asked_too(self, ports: Ports) -> None:
        configure(ports, folder(enabled=False))
        assert checked(client_over(ports), "scans")["ok"]

    def test_a_secret_that_is_missing_is_told(self, ports: Ports) -> None:
        configure(
            ports,
            {
                "name": "archive",
                "type": "dicomweb",
                "base_url": "http://127.0.0.1:9/dicom-web",
                "auth_type": "bearer_token",
                "credentials": {"token_secret": "nobody-s"},
            },
        )
        answer = checked(client_over(ports), "archive")
        assert not answer["ok"]
        assert "nobody-s is missing" in answer["answer"]

    def test_there_is_none_of_that_name(self, ports: Ports) -> None:
        assert checked(client_over(ports), "nowhere", 404)["code"] == "document-missing"

    def test_who_asked_is_in_the_audit_log(
        self, system: System, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse() -> str:
            raise DestinationRefusedError("spare", "no reason given")

        monkeypatch.setattr(system.peers["spare"], "check", refuse)
        client = client_over(system.ports)
        checked(client, "pacs")
        checked(client, "spare")
        assert [(step["what"], step["id"], step["after"]) for step in system.done()] == [
            ("destination.check", "pacs", "ok"),
            ("destination.check", "spare", "destination-refused"),
        ]


def test_nobody_waits_for_a_peer_that_hangs(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hang() -> str:
        released.wait(60)
        return "late"

    monkeypatch.setattr(system.peers["pacs"], "check", hang)
    try:
        answer = check_destination("pacs", system.ports, by="test", within_s=0.01)
    finally:
        released.set()
    assert not answer["ok"]
    assert answer["answer"] == "pacs: no answer in 0.01 s"


class TestCommands:
    def test_list_and_show_how_they_are(
        self, ports: Ports, capsys: pytest.CaptureFixture[str]
    ) -> None:
        configure(ports, folder(), folder("old", enabled=False))
        status, out = run(capsys, "list", "--json")
        assert status == 0
        listed = json.loads(out)["destinations"]
        assert [(one["destination"], one["type"], one["circuit"]) for one in listed] == [
            ("scans", "filesystem", "closed"),
            ("old", "filesystem", "closed"),
        ]
        status, out = run(capsys, "list")
        assert (status, "not enabled" in out) == (0, True)
        status, out = run(capsys, "show", "old", "--json")
        shown = json.loads(out)
        assert (status, shown["destination"], shown["enabled"]) == (0, "old", False)
        assert shown["address"]

    def test_check_says_it_with_the_exit_status_too(
        self, ports: Ports, capsys: pytest.CaptureFixture[str], closed_port: int
    ) -> None:
        configure(ports, folder(), dimse(closed_port))
        status, out = run(capsys, "check", "scans", "--json")
        assert (status, json.loads(out)["ok"]) == (0, True)
        status, out = run(capsys, "check", "pacs")
        assert status == 1
        assert "connection refused" in out

    @pytest.mark.parametrize("command", ["show", "check"])
    def test_there_is_none_of_that_name(
        self, ports: Ports, capsys: pytest.CaptureFixture[str], command: str
    ) -> None:
        configure(ports, folder())
        status, out = run(capsys, command, "nowhere", "--json")
        assert (status, json.loads(out)["error"]["code"]) == (1, "no-destination")


class Silent:
    """A source that is there and says nothing until it is let go."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()

    def check(self) -> str:
        self.goes_on.wait(60)
        return "200"

    def close(self) -> None:
        """Nothing to release."""


class TestASource:
    @pytest.fixture(autouse=True)
    def away(self, ports: Ports, closed_port: int) -> None:
        source = {"name": "pacs", "type": "dicomweb", "base_url": f"http://127.0.0.1:{closed_port}"}
        ports.configuration.apply({"sources": [{**source, "enabled": False}]}, by="test")

    def test_that_is_away_is_an_answer_and_is_audited(self, ports: Ports) -> None:
        response = client_over(ports).post("/api/v1/sources/pacs/check", headers=AUTHORIZED)
        answer = response.get_json()
        assert (response.status_code, answer["ok"]) == (200, False)
        assert (answer["source"], answer["code"]) == ("pacs", "source-unavailable")
        assert "a check or a search does not" in answer["hint"]
        (entry,) = (
            one.data
            for one in AuditLog(ports.documents, ports.clock).list().documents
            if one.data["what"] == "source.check"
        )
        assert (entry["id"], entry["after"]) == ("pacs", "source-unavailable")

    def test_that_says_nothing_is_not_waited_for_without_end(self, ports: Ports) -> None:
        silent = Silent()
        asking = replace(ports, open_source=lambda entity: silent)  # type: ignore[arg-type,return-value]
        answer = check_source("pacs", asking, by="ada", within_s=0.05)
        silent.goes_on.set()
        assert (answer["ok"], answer["answer"]) == (False, "pacs: no answer in 0.05 s")

    def test_that_is_not_there_is_404(self, ports: Ports) -> None:
        response = client_over(ports).post("/api/v1/sources/nobody/check", headers=AUTHORIZED)
        assert response.status_code == 404

    def test_is_asked_from_the_command_line(
        self, ports: Ports, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["sources", "check", "pacs", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["code"] == "source-unavailable"
