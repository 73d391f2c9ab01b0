"""Language models in the flow: one call for a Series, and a policy for whatever goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared import metrics
from shared.errors import SeriesUnderDecisionError
from shared.pipeline.standardization_report import report
from shared.pipeline.standardization_reviews import find
from shared.standardize.proposals import Question
from tests.counting import counting
from tests.unit.operating import System, running_system
from tests.unit.standardize import model_server as servers
from tests.unit.standardize.model_server import (
    Answer,
    Behaviour,
    ModelServer,
    model_server,
    service_account,
    spoken,
)
from tests.unit.standardize.site import ROUTES, configure, delivered, image, send

# What the embedded provider does not know.
UNKNOWN: dict[str, Any] = {"BodyPartExamined": "XQZ", "SeriesDescription": "hatgerinc"}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as running:
        yield running


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    yield from running_system(tmp_path / "home", monkeypatch.setenv)


@pytest.fixture(params=["vertex", "openai"])
def provider(
    request: pytest.FixtureRequest,
    server: ModelServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """The provider as the configuration says it."""
    common = {"model": "gemini-x", "timeout_s": 20.0, "attempts": 1}
    if request.param == "openai":
        return {"type": "openai", "base_url": f"{server.url}/v1", **common}
    credentials = tmp_path / "credentials.json"
    credentials.write_text(service_account(server.url))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials))
    place = {"project": "p", "location": "europe-west4", "base_url": server.url}
    return {"type": "vertex", **place, **common}


def chain(provider: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"providers": [{"type": "embedded"}, provider], **more}


class TestTheChain:
    def test_asks_a_model_what_the_embedded_provider_does_not_know(
        self, system: System, server: ModelServer, provider: dict[str, Any]
    ) -> None:
        configure(system, chain(provider))
        known, unknown = send(system, image(), image(series="b", **UNKNOWN))
        assert delivered(system, known).BodyPartExamined == "TSPINE"
        assert delivered(system, unknown).BodyPartExamined == "TSPINE"
        assert len(server.paths) == 1
        (told,) = system.instance(unknown)["standardized"]
        assert (told["provider"], told["model"]) == (provider["type"], "gemini-x")

    def test_asks_once_for_a_series(
        self, system: System, server: ModelServer, provider: dict[str, Any]
    ) -> None:
        configure(system, chain(provider))
        with counting(metrics.STANDARDIZED) as asked:
            receipts = send(system, *(image(n, **UNKNOWN) for n in range(30)))
            answers = {labels[2]: number for labels, number in asked().items()}
        assert (answers["remote"], answers["kept"]) == (1, 29)
        assert len(server.paths) == 1
        assert {delivered(system, one).BodyPartExamined for one in receipts} == {"TSPINE"}

    def test_asks_once_for_all_attributes_of_a_series(
        self, system: System, server: ModelServer, provider: dict[str, Any]
    ) -> None:
        side = {"value": "L", "confidence": 0.9, "source": "Modality", "phrase": "CT"}
        said = {"BodyPartExamined": server.says, "Laterality": side}
        server.behaviour = servers.saying(json.dumps(said))
        configure(system, chain(provider, attributes=["BodyPartExamined", "Laterality"]))
        receipts = send(system, *(image(n, Laterality="X", **UNKNOWN) for n in range(5)))
        for receipt in receipts:
            found = delivered(system, receipt)
            assert (found.BodyPartExamined, found.Laterality) == ("TSPINE", "L")
        assert len(server.paths) == 1

    def test_tells_nobody_who_the_patient_is(
        self, system: System, server: ModelServer, provider: dict[str, Any]
    ) -> None:
        configure(system, chain(provider))
        send(
            system,
            image(
                BodyPartExamined="XQZ",
                SeriesDescription="hatgerinc Canary 4711-CANARYID",
                StudyDescription="CANARY^JANE 19610203",
                PatientName="Canary^Jane",
                PatientID="4711-CANARYID",
                PatientBirthDate="19610203",
                AccessionNumber="CANARYACC",
            ),
        )
        (body,) = server.bodies
        assert "canary" not in body.casefold()
        assert "4711" not in body
        assert "1961" not in body
        assert "hatgerinc" in body
        fields = str(server.headers[0]) + server.paths[0]
        assert "canary" not in fields.casefold()

    def test_tells_nobody_whom_a_rule_has_renamed(
        self, system: System, server: ModelServer, provider: dict[str, Any]
    ) -> None:
        """A rule that takes the name away takes it out of the name alone."""
        rename = {"type": "set", "tag": "PatientName", "value": "Anonymous"}
        rule = {**ROUTES["rules"][0], "actions": [rename, *ROUTES["rules"][0]["actions"]]}
        configure(system, chain(provider), {**ROUTES, "rules": [rule, *ROUTES["rules"][1:]]})
        text = "hatgerinc CANARY"
        send(system, image(PatientName="Canary^J", BodyPartExamined="XQZ", SeriesDescription=text))
        (body,) = server.bodies
        assert "hatgerinc" in body
        assert "canary" not in body.casefold()

    @pytest.mark.parametrize("behaviour", [servers.refusing(429), servers.stopped_for_safety])
    @pytest.mark.parametrize("policy", ["unchanged", "hold"])
    def test_policy_applies_and_nothing_is_blocked(
        self,
        system: System,
        server: ModelServer,
        provider: dict[str, Any],
        behaviour: Behaviour,
        policy: str,
    ) -> None:
        server.behaviour = behaviour
        configure(system, chain(provider, when_down=policy))
        receipts = send(system, image(1, **UNKNOWN), image(2, **UNKNOWN))
        for receipt in receipts:
            if policy == "hold":
                assert system.instance(receipt)["state"] == "held"
            else:
                assert delivered(system, receipt, "pacs").BodyPartExamined == "XQZ"
        assert len(server.paths) == 1

    def test_an_answer_that_is_no_term_is_counted(
        self, system: System, server: ModelServer, provider: dict[str, Any]
    ) -> None:
        server.says["value"] = "HATGERINC"
        configure(system, chain(provider))
        (receipt,) = send(system, image(**UNKNOWN))
        assert delivered(system, receipt, "pacs").BodyPartExamined == "XQZ"
        assert report(system.ports)["discarded"] == {provider["type"]: 1}

    def test_that_gave_no_answer_is_named_with_the_reason(
        self,
        system: System,
        server: ModelServer,
        provider: dict[str, Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """In the decision, the log, the report and the metrics: somebody has to mend it."""
        server.behaviour = servers.refusing(404)
        configure(system, chain(provider))
        with counting(metrics.STANDARDIZER_ANSWERS) as answers:
            send(system, image(**UNKNOWN))
            assert answers() == {
                ("embedded", "abstained"): 1,
                (provider["type"], "refused-404"): 1,
            }
        (told,) = [one for one in caplog.records if one.levelname == "WARNING"]
        assert vars(told)["reason"] == "refused-404"
        found = report(system.ports)
        assert found["failed"] == {provider["type"]: {"refused-404": 1}}
        (row,) = found["series"]
        assert (row["provider"], row["down"]) == (provider["type"], 1)
        (decision,) = find(system.ports, states=("down",)).documents
        assert decision.data["failed"] == {provider["type"]: "refused-404"}

    def test_that_is_measured_is_not_counted(
        self, system: System, server: ModelServer, provider: dict[str, Any]
    ) -> None:
        configure(system, chain(provider))
        measured, _ = system.ports.standardizers.provider("body-parts")
        assert measured.propose(Question("BodyPartExamined", "XQZ")).value == "TSPINE"
        assert report(system.ports)["providers"] == []


class TestWhileAModelIsAsked:
    def test_other_instances_of_the_series_wait_and_nobody_else(
        self, system: System, server: ModelServer
    ) -> None:
        asked = threading.Event()

        def answer_later(server: ModelServer, path: str, body: Any) -> Answer:
            asked.set()
            server.may_answer.wait(30)
            return spoken(path, json.dumps(server.says))

        server.behaviour = answer_later
        openai = {"type": "openai", "base_url": server.url, "model": "m", "timeout_s": 60.0}
        configure(system, chain(openai))
        first, second = (system.receive(image(n, **UNKNOWN)) for n in range(2))
        other = system.receive(image(series="other"))
        standardizers = system.ports.standardizers
        with ThreadPoolExecutor() as pool:
            header = header_of(system, first)
            waiting = pool.submit(standardizers.answer, "body-parts", header, first)
            assert asked.wait(120)
            with pytest.raises(SeriesUnderDecisionError):
                standardizers.answer("body-parts", header_of(system, second), second)
            assert standardizers.answer("body-parts", header_of(system, other), other).edits
            server.may_answer.set()
            answers = waiting.result(30)
        assert answers.edits == (("BodyPartExamined", ("TSPINE",)),)
        after = standardizers.answer("body-parts", header_of(system, second), second)
        assert after.edits == answers.edits
        assert len(server.paths) == 1

    def test_many_at_once_are_of_one_mind(self, system: System) -> None:
        """Instances of one Series that say different things, in many threads."""
        configure(system)
        parts = ["BWS", "KNIE", "HAND", "FUSS", "KOPF", "HALS"]
        receipts = [
            system.receive(image(n, BodyPartExamined=part, SeriesDescription=""))
            for n, part in enumerate(parts)
        ]
        answer = system.ports.standardizers.answer
        with ThreadPoolExecutor(len(parts)) as pool:
            answers = list(
                pool.map(lambda one: answer("body-parts", header_of(system, one), one), receipts)
            )
        assert len({one.details[0]["value"] for one in answers}) == 1


def header_of(system: System, receipt: Any) -> Any:
    from shared.pipeline.validate import header_of as read

    with system.ports.objects.open(receipt.file.object_name) as reader:
        return read(receipt, reader)
