"""The HTTP side as the cloud runs it: one function for the API, one for DICOMweb."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import functions_framework
import pytest
from flask.testing import FlaskClient

from shared import bootstrap
from tests.unit.web_fakes import AUTHORIZED, KEY, STUDIES, part10, related

FUNCTIONS = Path(__file__).parents[2] / "functions"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("AXIOM_HOME", str(tmp_path))
    monkeypatch.setenv("AXIOM_API_KEY", KEY)
    bootstrap.from_environment.cache_clear()
    ports = bootstrap.from_environment()
    ports.configuration.apply(
        {"settings": {"default_route": ["primary-storage"], "min_free_bytes": 0}}, by="test"
    )
    yield tmp_path
    ports.destinations.close()
    bootstrap.from_environment.cache_clear()


def function(name: str) -> FlaskClient:
    source = str(FUNCTIONS / name / "main.py")
    app = functions_framework.create_app(name, source, "http")  # type: ignore[no-untyped-call]
    client: FlaskClient = app.test_client()
    return client


class TestFunctions:
    def test_dicomweb_stores_what_is_sent_chunked(self, home: Path) -> None:
        """The framework must neither read the body nor hold it to a limit of its own."""
        body = related(part10(), b"0" * (12 << 20))
        response = function("dicomweb").post(
            STUDIES,
            input_stream=BytesIO(body),
            headers={
                **AUTHORIZED,
                "Content-Type": "multipart/related; type=application/dicom; boundary=B",
                "Transfer-Encoding": "chunked",
            },
        )
        assert response.status_code == 202
        assert [file.read_bytes() for file in home.rglob("*.dcm")] == [part10()]

    def test_api_serves_the_configuration(self) -> None:
        response = function("api").get("/api/v1/config/destinations", headers=AUTHORIZED)
        assert response.get_json()["items"][0]["name"] == "primary-storage"

    @pytest.mark.parametrize("name", ["api", "dicomweb"])
    def test_each_needs_a_key_and_serves_its_own_part_alone(self, name: str) -> None:
        client = function(name)
        other = "/api/v1/config" if name == "dicomweb" else STUDIES
        assert client.get(other).status_code == 401
        assert client.get(other, headers=AUTHORIZED).status_code == 404
