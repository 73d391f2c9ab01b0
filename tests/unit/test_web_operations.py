"""What an operator sees and does over HTTP: exceptions, Instances, Deliveries."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared import bootstrap
from shared.dicom.changes import Change
from shared.environment import Environment
from shared.errors import DestinationRefusedError, InvalidInstanceError
from shared.messages import DeliveryRequested, Receipt, ReceivedFile, Source, Stage, Topic, encode
from shared.pipeline.exceptions import exception_from
from shared.pipeline.ports import Ports
from tests.unit.web_fakes import AUTHORIZED, client_over

API = "/api/v1"
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
CANARY = "CANARY^YELLOW"
CHANGE = Change(
    "PatientName", "PN", (CANARY,), ("NEW",), b"\x10\x00" + CANARY.encode(), b"", "ct/rename/0"
)


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(tmp_path)}))
    yield ports
    ports.destinations.close()


@pytest.fixture
def client(ports: Ports) -> FlaskClient:
    return client_over(ports)


def receipt(number: int) -> Receipt:
    return Receipt(
        receipt_id=f"r{number}",
        trace_id="t",
        received_at=AT + timedelta(minutes=number),
        source=Source("dimse", "main-listener", calling_ae_title="CT1"),
        file=ReceivedFile("received/r.dcm", 1, 0, 0),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"1.2.{number}",
        study_instance_uid=f"1.3.{number % 2}",
        series_instance_uid="1.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        header=CANARY.encode(),
    )


def record(ports: Ports, number: int, *, refused: bool = False) -> str:
    """An entry for a failed delivery, or for a sender that was refused."""
    known = receipt(number)
    message = encode(DeliveryRequested(known, "archive", (CHANGE,)))
    raised = exception_from(
        InvalidInstanceError("no Patient ID")
        if refused
        else DestinationRefusedError("archive", f"A900H no{number}"),
        stage=Stage.RECEIVE if refused else Stage.DELIVER,
        at=AT + timedelta(minutes=number),
        receipt=None if refused else known,
        source=known.source,
        destination="" if refused else "archive",
        retry_topic="" if refused else Topic.DELIVERY_REQUESTED,
        retry_message=b"" if refused else message,
    )
    ports.exceptions.record(raised)
    return raised.exception_id


def decided(ports: Ports, number: int, state: str) -> None:
    """An Instance about which the rules have decided."""
    known = receipt(number)
    plan = {"destination": "archive", "changes": [{"path": "PatientName", "vr": "PN"}]}
    plan["changes"][0].update(  # type: ignore[attr-defined]
        old=[CANARY], new=["NEW"], by="ct/rename/0", old_element="aGVsbG8=", new_element=""
    )
    ports.documents.put(
        "instances",
        known.receipt_id,
        {
            "receipt_id": known.receipt_id,
            "trace_id": "t",
            "received_at": f"2026-11-21T12:{number:02}:00.000000Z",
            "decided_at": f"2026-11-21T12:{number:02}:01.000000Z",
            "source": {"type": "dimse", "name": "main-listener"},
            "file": {"object_name": "received/r.dcm", "size": 1, "crc32c": 0, "body_offset": 0},
            "sop_class_uid": known.sop_class_uid,
            "sop_instance_uid": known.sop_instance_uid,
            "study_instance_uid": known.study_instance_uid,
            "series_instance_uid": known.series_instance_uid,
            "transfer_syntax_uid": known.transfer_syntax_uid,
            "state": state,
            "reason": "",
            "matched_rules": ["ct/rename"],
            "warnings": [],
            "deliveries": [plan] if state == "routed" else [],
        },
    )


def items(client: FlaskClient, path: str, **query: Any) -> list[dict[str, Any]]:
    response = client.get(f"{API}/{path}", query_string=query, headers=AUTHORIZED)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.get_json()["items"]
    return found


class TestExceptions:
    def test_are_listed_newest_first_without_what_a_retry_needs(
        self, client: FlaskClient, ports: Ports
    ) -> None:
        """A retry's message holds the header of the Instance: patient data in a list of faults."""
        expected = [record(ports, number) for number in range(3)][::-1]
        response = client.get(f"{API}/exceptions", headers=AUTHORIZED)
        assert [entry["id"] for entry in response.get_json()["items"]] == expected
        assert "retry_message" not in response.text
        assert "Q0FOQVJZ" not in response.text  # the canary in base64

    def test_are_filtered_by_every_parameter(self, client: FlaskClient, ports: Ports) -> None:
        delivery, refusal = record(ports, 0), record(ports, 1, refused=True)

        def found(**query: Any) -> list[str]:
            return [entry["id"] for entry in items(client, "exceptions", **query)]

        assert found(category="network") == [delivery]
        assert found(category="validation") == [refusal]
        assert found(stage="deliver_instance", destination="archive") == [delivery]
        assert found(study_uid="1.3.0", status="open") == [delivery]
        assert found(since="2026-11-21T12:00:30") == [refusal]
        assert found(since="2026-11-21T12:00:30+02:00") == [refusal, delivery]
        assert found(q="a900h") == [delivery]
        assert found(q="ct1") == [refusal, delivery]
        assert found(q="nothing like it") == []

    @pytest.mark.parametrize("q", [None, "archive"])
    def test_are_paged_without_gaps_or_repetition(
        self, client: FlaskClient, ports: Ports, q: str | None
    ) -> None:
        expected = [record(ports, number) for number in range(7)][::-1]
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 3, **({"q": q} if q else {})}
        while True:
            page = client.get(f"{API}/exceptions", query_string=query, headers=AUTHORIZED)
            seen += [entry["id"] for entry in page.get_json()["items"]]
            if page.get_json()["next_cursor"] is None:
                break
            query["cursor"] = page.get_json()["next_cursor"]
        assert seen == expected

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ({"limit": 0}, 422),
            ({"limit": "many"}, 422),
            ({"category": "weather"}, 422),
            ({"since": "yesterday"}, 422),
            ({"colour": "red"}, 422),
            ({"cursor": "made up"}, 400),
        ],
    )
    def test_parameters_that_do_not_fit_are_named(
        self, client: FlaskClient, query: dict[str, Any], status: int
    ) -> None:
        response = client.get(f"{API}/exceptions", query_string=query, headers=AUTHORIZED)
        assert response.status_code == status
        assert response.content_type == "application/problem+json"
        if status == 422:
            assert [fault["path"] for fault in response.get_json()["faults"]] == list(query)

    def test_are_shown_retried_and_archived(self, client: FlaskClient, ports: Ports) -> None:
        one = f"{API}/exceptions/{record(ports, 0)}"
        assert client.get(one, headers=AUTHORIZED).get_json()["can_retry"] is True
        retried = client.post(f"{one}/retry", headers=AUTHORIZED).get_json()
        assert retried["status"] == "retried"
        assert retried["history"][0]["by"] == "preset (key preset)"
        archived = client.post(
            f"{one}/archive", json={"reason": "sent by hand"}, headers=AUTHORIZED
        ).get_json()
        assert archived["status"] == "archived"
        assert archived["history"][1]["reason"] == "sent by hand"
        assert client.post(f"{one}/archive", headers=AUTHORIZED).status_code == 200

    def test_of_refused_senders_cannot_be_retried(self, client: FlaskClient, ports: Ports) -> None:
        one = f"{API}/exceptions/{record(ports, 0, refused=True)}"
        response = client.post(f"{one}/retry", headers=AUTHORIZED)
        assert response.status_code == 409
        assert response.get_json()["code"] == "nothing-to-retry"

    def test_that_are_not_there_are_404(self, client: FlaskClient) -> None:
        for path in ("", "/retry", "/archive"):
            method = client.post if path else client.get
            assert method(f"{API}/exceptions/nope{path}", headers=AUTHORIZED).status_code == 404

    def test_an_archive_request_with_unknown_fields_is_refused(
        self, client: FlaskClient, ports: Ports
    ) -> None:
        one = f"{API}/exceptions/{record(ports, 0)}"
        response = client.post(f"{one}/archive", json={"raeson": "x"}, headers=AUTHORIZED)
        assert response.status_code == 422


class TestInstances:
    def test_are_listed_by_state_without_values(self, client: FlaskClient, ports: Ports) -> None:
        decided(ports, 1, "routed")
        decided(ports, 2, "held")
        decided(ports, 3, "held")
        assert [i["receipt_id"] for i in items(client, "instances", state="held")] == ["r3", "r2"]
        assert [i["receipt_id"] for i in items(client, "instances", study_uid="1.3.0")] == ["r2"]
        assert items(client, "instances", state="routed")[0]["destinations"] == ["archive"]
        assert CANARY not in client.get(f"{API}/instances", headers=AUTHORIZED).text

    def test_show_what_was_changed_and_where_they_went(
        self, client: FlaskClient, ports: Ports
    ) -> None:
        decided(ports, 1, "routed")
        ports.documents.put(
            "deliveries",
            "r1:archive",
            {
                "receipt_id": "r1",
                "destination": "archive",
                "state": "retrying",
                "attempts": 2,
                "updated_at": "2026-11-21T12:01:02.000000Z",
            },
        )
        entry = record(ports, 1)
        shown = client.get(f"{API}/instances/r1", headers=AUTHORIZED).get_json()
        assert shown["matched_rules"] == ["ct/rename"]
        delivery = shown["deliveries"][0]
        assert (delivery["destination"], delivery["state"]) == ("archive", "retrying")
        assert delivery["changes"] == [
            {
                "path": "PatientName",
                "vr": "PN",
                "old": [CANARY],
                "new": ["NEW"],
                "by": "ct/rename/0",
            }
        ]
        assert [found["id"] for found in shown["exceptions"]] == [entry]
        assert items(client, "deliveries", state="retrying")[0]["attempts"] == 2
        assert items(client, "deliveries", destination="elsewhere") == []

    def test_that_rules_never_saw_show_their_exceptions(
        self, client: FlaskClient, ports: Ports
    ) -> None:
        record(ports, 5)
        shown = client.get(f"{API}/instances/r5", headers=AUTHORIZED).get_json()
        assert shown["state"] == "undecided"
        assert len(shown["exceptions"]) == 1

    def test_that_are_held_are_decided_anew_once(self, client: FlaskClient, ports: Ports) -> None:
        decided(ports, 2, "held")
        response = client.post(f"{API}/instances/r2/reprocess", headers=AUTHORIZED)
        assert response.status_code == 202
        assert items(client, "instances", state="released")[0]["receipt_id"] == "r2"

    def test_that_are_routed_are_not_decided_anew(self, client: FlaskClient, ports: Ports) -> None:
        decided(ports, 1, "routed")
        response = client.post(f"{API}/instances/r1/reprocess", headers=AUTHORIZED)
        assert response.status_code == 409

    def test_that_are_not_there_are_404(self, client: FlaskClient) -> None:
        assert client.get(f"{API}/instances/nope", headers=AUTHORIZED).status_code == 404
        response = client.post(f"{API}/instances/nope/reprocess", headers=AUTHORIZED)
        assert response.status_code == 404
