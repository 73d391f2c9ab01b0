"""Standard terms in the running system: both kinds of model, people's words, and privacy."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pydicom

from shared import bootstrap
from shared.dicom.validation import DEFAULT_SEVERITIES
from shared.environment import Environment
from tests.conftest import StartAxiom
from tests.platforms import stow
from tests.running import RunningAxiom, wait_until
from tests.unit.standardize.model_server import (
    Answer,
    ModelServer,
    model_server,
    service_account,
    spoken,
    stopped_for_safety,
)
from tests.unit.standardize.site import image

RULESET = {
    "name": "terms",
    "execution_mode": "ALL_MATCHES",
    "rules": [
        {
            "name": "parts",
            "conditions": [{"type": "tag_exists", "tag": "Modality"}],
            "actions": [
                {"type": "standardize", "standardizer": "body-parts"},
                {"type": "standardize", "standardizer": "sides"},
            ],
        },
        {
            "name": "spine",
            "conditions": [{"type": "tag_equals", "tag": "BodyPartExamined", "value": "TSPINE"}],
            "destinations": ["spine"],
        },
    ],
}
CANARIES = {
    "PatientName": "Canaryfamily^Canarygiven",
    "PatientID": "CANARYID-4711",
    "AccessionNumber": "CANARYACC",
    "ReferringPhysicianName": "Canaryreferrer",
}
UNKNOWN: dict[str, Any] = {
    "BodyPartExamined": "XQZ",
    "SeriesDescription": "hatgerinc canaryfamily CANARYACC",
    "StudyDescription": "Canaryreferrer CANARYID-4711 1961-02-03",
    **CANARIES,
}


def by_attribute(server: ModelServer, path: str, body: Mapping[str, Any]) -> Answer:
    """Vertex AI is asked for body parts, the other one for sides."""
    is_side = path.endswith("/chat/completions")
    said = {"value": "L" if is_side else "TSPINE", "source": "SeriesDescription", "phrase": ""}
    return spoken(path, json.dumps({**said, "confidence": 0.95}))


def configure(home: Path, server: ModelServer) -> None:
    """Before it starts: a process knows a change half a second later than another."""
    vertex = {
        "type": "vertex",
        "project": "p",
        "location": "europe-west4",
        "base_url": server.url,
        "model": "gemini-x",
        "timeout_s": 30.0,
    }
    openai = {"type": "openai", "base_url": server.url, "model": "local-x", "timeout_s": 30.0}
    names = ("others", "spine")
    parts = dict[str, Any](
        destinations=[{"name": name, "type": "filesystem", "path": name} for name in names],
        standardizers=[
            {
                "name": "body-parts",
                "attributes": ["BodyPartExamined"],
                "providers": [{"type": "embedded"}, vertex],
                "when_down": "hold",
            },
            {"name": "sides", "attributes": ["Laterality"], "providers": [openai]},
        ],
        rulesets=[RULESET],
        settings={
            "default_route": ["others"],
            "min_free_bytes": 0,
            "validation": dict.fromkeys(DEFAULT_SEVERITIES, "ignore"),
        },
    )
    ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(home)}))
    ports.configuration.apply(parts, by="test")


def files(running: RunningAxiom, destination: str) -> list[pydicom.Dataset]:
    found = (running.home / "storage" / destination).rglob("*.dcm")
    return [pydicom.dcmread(io.BytesIO(path.read_bytes())) for path in found]


def arrived(running: RunningAxiom, destination: str, number: int) -> list[pydicom.Dataset]:
    def all_there() -> list[pydicom.Dataset]:
        found = files(running, destination)
        return found if len(found) == number else []

    return list(wait_until(all_there, 60, f"{number} files at {destination}"))


def test_models_people_and_privacy_in_the_running_system(
    axiom_up: StartAxiom, tmp_path: Path
) -> None:
    """A Series that a model knows goes where its body part says; one that no model may answer is
    held until a person says what it is; nothing that names the patient reaches a model or a log.
    """
    with model_server() as server:
        credentials = tmp_path / "credentials.json"
        credentials.write_text(service_account(server.url))
        home = tmp_path / "home"
        configure(home, server)
        running = axiom_up(home, GOOGLE_APPLICATION_CREDENTIALS=str(credentials))

        server.behaviour = by_attribute
        for number in range(3):
            assert stow(running, image(number, **UNKNOWN)).status_code == 200
        for found in arrived(running, "spine", 3):
            assert (found.BodyPartExamined, found.Laterality) == ("TSPINE", "L")
            (item,) = found.OriginalAttributesSequence
            assert item.ModifiedAttributesSequence[0].BodyPartExamined == "XQZ"
        asked = [path.rpartition("/")[2] for path in server.paths]
        assert sorted(asked) == ["completions", "gemini-x:generateContent"]

        server.behaviour = stopped_for_safety
        other: dict[str, Any] = {
            **UNKNOWN,
            "BodyPartExamined": "QQQ",
        }  # an equal question has its answer already
        assert stow(running, image(series="second", **other)).status_code == 200
        review = wait_until(
            lambda: running.get_all("/api/v1/standardize/reviews", state="held"), 60, "a review"
        )[0]
        answer = running.request(
            "POST",
            f"/api/v1/standardize/reviews/{review['key']}/correct",
            json={"value": "TSPINE", "always": True},
        )
        assert answer.status_code == 200, answer.text
        arrived(running, "spine", 4)
        assert stow(running, image(series="third", **other)).status_code == 200
        arrived(running, "spine", 5)  # as the person said, from now on
        assert _report(running)["corrected"] == 1

        told = "".join(server.bodies) + str(server.headers) + str(server.paths)
        assert "hatgerinc" in told
        for secret in ("canary", "4711", "1961"):
            assert secret not in told.casefold()
        assert "canary" not in running.log().casefold()


def _report(running: RunningAxiom) -> Mapping[str, int]:
    """The counts of the model about body parts; other processes write theirs once a second."""

    def row() -> Mapping[str, int] | None:
        rows = running.request("GET", "/api/v1/standardize/report").json()["series"]
        found = [one for one in rows if one["attribute"] == "BodyPartExamined"]
        told = [one for one in found if one["corrected"]]
        return told[0] if told else None

    find: Callable[[], Any] = row
    return dict(wait_until(find, 30, "the report"))
