"""Sources as configuration: what people have written for other systems is taken as it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shared import bootstrap
from shared.config.entities import Configuration
from shared.config.service import check
from shared.config.sources import AnySource, seconds
from shared.environment import Environment
from shared.errors import InvalidConfigurationError
from tests.fakes import FakeClock
from tests.unit.web_fakes import AUTHORIZED, client_over

DICOMWEB = {
    "name": "pacs-web",
    "type": "dicomweb",
    "base_url": "https://pacs.example/dicom-web",
    "auth_type": "bearer_token",
    "credentials": {"token": "secret-of-the-pacs"},
    "poll_interval": 300,
    "query_params": {"StudyDate": "-1d", "ModalitiesInStudy": ["CT", "MR"]},
}
DIMSE = {
    "name": "pacs",
    "type": "dimse_qr",
    "ae_title": "PACS",
    "host": "10.1.1.5",
    "port": 104,
    "move_destination": "AXIOM",
    "query_level": "STUDY",
    "poll_interval": 60,
}
HEALTHCARE = {
    "name": "store",
    "type": "google_healthcare",
    "project_id": "hospital",
    "location": "europe-west3",
    "dataset_id": "imaging",
    "dicom_store_id": "inbox",
    "poll_interval": 60,
}
BUCKET = {"name": "landing", "type": "bucket", "bucket": "hospital-landing", "prefix": "in/"}
FOLDER = {"name": "scans", "type": "folder", "path": "scans", "after": "delete"}
ALL: tuple[dict[str, Any], ...] = (DICOMWEB, DIMSE, HEALTHCARE, BUCKET, FOLDER)


def read(document: dict[str, Any]) -> AnySource:
    whole = Configuration.model_validate_json(json.dumps({"sources": [document]}))
    return whole.sources[0]


@pytest.mark.parametrize("document", ALL, ids=lambda document: str(document["type"]))
def test_each_type_is_taken_over_http_and_given_back_without_its_secret(
    document: dict[str, Any], tmp_path: Path
) -> None:
    environment = Environment.read({"AXIOM_HOME": str(tmp_path)})
    ports = bootstrap.embedded(environment, FakeClock())
    client = client_over(ports)
    answer = client.post("/api/v1/config/sources", json=document, headers=AUTHORIZED)
    assert answer.status_code == 201, answer.text
    shown = client.get("/api/v1/config/sources", headers=AUTHORIZED)
    assert "secret-of-the-pacs" not in shown.text
    [stored] = shown.get_json()["items"]
    assert {k: v for k, v in stored.items() if k != "credentials"} == {
        k: v for k, v in document.items() if k != "credentials"
    }
    if "credentials" in document:
        assert ports.secrets.get(stored["credentials"]["token_secret"]) == "secret-of-the-pacs"


def test_each_type_has_a_path_of_its_own(tmp_path: Path) -> None:
    environment = Environment.read({"AXIOM_HOME": str(tmp_path)})
    client = client_over(bootstrap.embedded(environment, FakeClock()))
    paths = ("dicomweb", "dimse-qr", "google-healthcare", "buckets", "folders")
    for path, document in zip(paths, ALL, strict=True):
        plain = {key: value for key, value in document.items() if key != "type"}
        answer = client.post(f"/api/v1/config/{path}", json=plain, headers=AUTHORIZED)
        assert answer.status_code == 201, answer.text
        [only] = client.get(f"/api/v1/config/{path}", headers=AUTHORIZED).get_json()["items"]
        assert only["type"] == document["type"]
    whole = client.get("/api/v1/config/sources", headers=AUTHORIZED).get_json()["items"]
    assert len(whole) == len(ALL)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"poll_interval": "5 parsecs"}, "no span of time"),
        ({"poll_interval": 0}, "from 1 second"),
        ({"schedule": {"start": "25:00", "timezone": "UTC"}}, "start: must be a time"),
        ({"schedule": {}}, "timezone"),
        ({"query_params": {"offset": 10}}, "pages are asked for"),
        ({"query_params": {"Patient Name": "x"}}, "neither a keyword nor a tag"),
        ({"auth_type": "basic"}, "credentials.username"),
        ({"auth_type": "oauth2_client_credentials"}, "token_url"),
        ({"base_url": "https://me:pass@pacs.example"}, "no user and password"),
        ({"base_url": "file:///etc/passwd"}, "pattern"),
    ],
)
def test_what_is_wrong_is_said_in_words(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        read({**DICOMWEB, **wrong})


def test_a_folder_stays_below_the_home_or_is_absolute() -> None:
    assert read({**FOLDER, "path": "/mnt/scans"}).address == "/mnt/scans"
    with pytest.raises(ValidationError, match="AXIOM_HOME/incoming"):
        read({**FOLDER, "path": "../secrets"})


@pytest.mark.parametrize(
    ("span", "expected"), [(30, 30), (1.5, 1.5), ("45s", 45), ("5m", 300), ("1d", 86400)]
)
def test_a_span_of_time_is_a_number_or_has_a_unit(span: float | str, expected: float) -> None:
    assert seconds(span) == expected


def test_a_schedule_says_when_a_source_may_be_asked() -> None:
    night = {"start": "22:00", "end": "06:00", "timezone": "UTC"}
    window = read({**DIMSE, "schedule": night}).window({})
    assert window is not None
    evening = datetime(2026, 11, 21, 23, tzinfo=UTC)
    assert window.is_active(evening)
    assert not window.is_active(evening + timedelta(hours=12))


def test_a_schedule_may_be_one_that_has_a_name() -> None:
    night = {"name": "night", "start": "22:00", "end": "06:00", "timezone": "UTC"}
    source = {**DIMSE, "schedule": "night"}
    found = check({"schedules": [night], "sources": [source]})
    window = found.sources[0].window({"night": found.schedules[0].schedule})
    assert window is not None
    assert not window.is_active(datetime(2026, 11, 21, 12, tzinfo=UTC))
    with pytest.raises(InvalidConfigurationError, match=r"sources\[0\].schedule: there is no"):
        check({"schedules": [night], "sources": [{**source, "schedule": "nights"}]})
