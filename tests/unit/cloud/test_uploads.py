"""Files that clients send straight to a landing bucket, past our own processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import google.cloud.storage as storage
import pytest
import requests
from flask.testing import FlaskClient

from functions.ingest_object.main import ingest_object
from shared.adapters.cloud import platform
from shared.adapters.cloud.environment import CloudEnvironment
from tests.data import build
from tests.google.cloud_storage import BUCKET
from tests.unit.cloud.test_ingest import instances, push
from tests.unit.cloud.test_wiring import SETTINGS
from tests.unit.operating import System
from tests.unit.web_fakes import AUTHORIZED, client_over

PIECE = 256 * 1024


@pytest.fixture
def client(system: System) -> FlaskClient:
    environment = CloudEnvironment.read({**SETTINGS, "AXIOM_LANDING_BUCKETS": BUCKET})
    ports = replace(system.ports, begin_upload=platform.begin_upload(environment))
    return client_over(ports)


def begun(client: FlaskClient, **document: Any) -> dict[str, Any]:
    response = client.post("/api/v1/uploads", json=document or None, headers=AUTHORIZED)
    assert response.status_code == 201, response.get_json()
    answer: dict[str, Any] = response.get_json()
    return answer


class TestAnUpload:
    def test_in_pieces_is_taken_in_once_it_is_whole(
        self, client: FlaskClient, system: System, bucket: storage.Bucket
    ) -> None:
        sent = build.ct(600, 600)
        session = begun(client, size=len(sent))
        for start in range(0, len(sent), PIECE):
            piece = sent[start : start + PIECE]
            end = start + len(piece)
            total = str(len(sent)) if end == len(sent) else "*"
            answer = requests.put(
                session["session_uri"],
                data=piece,
                headers={"Content-Range": f"bytes {start}-{end - 1}/{total}"},
                timeout=30,
            )
        assert answer.status_code == 200
        told = {
            "eventType": "OBJECT_FINALIZE",
            "bucketId": BUCKET,
            "objectId": answer.json()["name"],
            "objectGeneration": answer.json()["generation"],
        }
        assert session["upload_id"] in told["objectId"]
        assert push(ingest_object, b"{}", told) == 204
        system.pump()
        assert system.peers["pacs"].stored[build.uid("ct-1")] == sent
        assert len(instances(system)) == 1

    def test_is_good_for_one_object_that_nobody_can_guess(self, client: FlaskClient) -> None:
        first, second = begun(client), begun(client)
        assert first["upload_id"] != second["upload_id"]
        assert first["session_uri"] != second["session_uri"]

    @pytest.mark.parametrize("document", [{"size": 0}, {"size": "1"}, {"name": "../x"}])
    def test_that_says_something_else_is_refused(
        self, client: FlaskClient, document: dict[str, Any]
    ) -> None:
        response = client.post("/api/v1/uploads", json=document, headers=AUTHORIZED)
        assert response.status_code == 422

    def test_needs_a_key(self, client: FlaskClient) -> None:
        assert client.post("/api/v1/uploads").status_code == 401

    def test_where_there_is_no_landing_bucket_says_what_to_do(self, system: System) -> None:
        response = client_over(system.ports).post("/api/v1/uploads", headers=AUTHORIZED)
        assert response.status_code == 409
        assert "STOW-RS" in response.get_json()["detail"]
