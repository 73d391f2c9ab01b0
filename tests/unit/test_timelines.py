"""What came of a Study, and what happened to each of its Instances, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.data import build
from tests.unit.operating import System, running_system
from tests.unit.test_operations import mend, post, refuse
from tests.unit.web_fakes import AUTHORIZED, client_over

API = "/api/v1"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    yield from running_system(tmp_path, monkeypatch.setenv)


@pytest.fixture
def client(system: System) -> FlaskClient:
    return client_over(system.ports)


def get(client: FlaskClient, path: str, status: int = 200) -> Any:
    response = client.get(f"{API}/{path}", headers=AUTHORIZED)
    assert response.status_code == status, response.text
    return response.get_json()


def test_a_study_that_no_study_rule_waits_for_is_known(system: System, client: FlaskClient) -> None:
    """Who looks for a Study that came is not told that there is none."""
    first = system.receive(build.ct(instance="ct-1"))
    system.receive(build.ct(instance="ct-2"))
    system.pump()
    uid = first.study_instance_uid
    assert get(client, f"studies/{uid}") == {
        "study_instance_uid": uid,
        "instances": 2,
        "exceptions": 0,
        "rules": [],
    }
    get(client, "studies/1.2.3", 404)


def test_a_timeline_has_each_step_from_reception_on(system: System, client: FlaskClient) -> None:
    system.peers["pacs"].before = refuse
    receipt = system.receive(build.ct(patient_id="CANARY"))
    system.pump()
    mend(system)
    (entry,) = system.entries()
    post(client, f"exceptions/{entry['id']}/retry")
    system.pump()
    shown = get(client, f"instances/{receipt.receipt_id}")
    steps = [step["step"] for step in shown["timeline"]]
    assert steps[:2] == ["received", "decided"]
    assert sorted(steps[2:]) == ["delivery", "exception", "retried"]
    assert [step["at"] for step in shown["timeline"]] == sorted(
        step["at"] for step in shown["timeline"]
    )
    said = {step["step"]: step for step in shown["timeline"]}
    assert said["decided"]["destinations"] == ["pacs"]
    assert (said["delivery"]["state"], said["delivery"]["attempts"]) == ("delivered", 2)
    assert said["exception"]["code"] == "destination-refused"
    assert said["retried"]["by"].startswith("preset")
    (item,) = get(client, f"studies/{receipt.study_instance_uid}/instances")["items"]
    assert item["timeline"] == shown["timeline"]
    assert "CANARY" not in str(item)


def test_the_instances_of_a_study_come_in_pages(system: System, client: FlaskClient) -> None:
    receipts = [system.receive(build.ct(instance=f"ct-{n}")) for n in range(3)]
    system.pump()
    path, found = f"studies/{receipts[0].study_instance_uid}/instances", list[str]()
    cursor: str | None = ""
    while cursor is not None:
        page = get(client, f"{path}?limit=2{cursor and f'&cursor={cursor}'}")
        found += [one["receipt_id"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert found == [receipt.receipt_id for receipt in receipts]
