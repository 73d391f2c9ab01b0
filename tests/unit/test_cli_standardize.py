"""`axiom standardize`, as a person or a script calls it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local import cli
from shared import bootstrap
from tests.unit.operating import System, running_system
from tests.unit.standardize.model_server import model_server, refusing
from tests.unit.standardize.site import configure, delivered, image, send

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "standardize" / "example.csv"
Axiom = Callable[..., Any]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    yield from running_system(tmp_path / "home", monkeypatch.setenv)


@pytest.fixture
def axiom(capsys: pytest.CaptureFixture[str]) -> Axiom:
    """Run a command; what it printed, parsed with `--json`."""

    def run(*words: object, status: int = 0) -> Any:
        capsys.readouterr()
        assert cli.main(["standardize", *map(str, words)]) == status
        said = capsys.readouterr()
        return json.loads(said.out) if "--json" in words else said.out + said.err

    return run


def test_reviews_are_listed_shown_and_settled(system: System, axiom: Axiom) -> None:
    configure(system, {"mode": "propose"})
    (receipt,) = send(system, image())
    (review,) = axiom("reviews", "--json")
    assert (review["state"], review["proposed"]) == ("proposed", "TSPINE")
    key = review["key"]
    assert key in axiom("reviews")
    told = axiom("show", key)
    assert "BWS sag" in told
    assert "evidence" in told
    assert axiom("approve", key, "--always", "--json")["again"] == 1
    (synonym,) = axiom("synonyms", "--json")
    assert (synonym["phrase"], synonym["value"]) == ("bws", "TSPINE")
    assert "bws" in axiom("synonyms")
    assert axiom("forget", synonym["key"], "--json") == {"forgotten": synonym["key"]}
    system.pump()
    assert delivered(system, receipt).BodyPartExamined == "TSPINE"
    assert "Nothing waits" in axiom("reviews")
    assert "reverted" in axiom("revert", key, "--reason", "no")
    assert axiom("correct", key, "LSPINE", "--json")["decision"]["value"] == "LSPINE"
    (row,) = axiom("report", "--json")["series"]
    assert (row["accepted"], row["reverted"], row["corrected"]) == (1, 1, 1)
    assert "body-parts" in axiom("report")


@pytest.mark.parametrize(
    "words",
    [
        ["show", "none"],
        ["approve", "none"],
        ["reject", "none"],
        ["revert", "none"],
        ["ask-again", "none"],
        ["forget", "none"],
        ["correct", "none", "TSPINE"],
        ["evaluate", EXAMPLE, "--provider", "nobody"],
    ],
)
def test_what_is_not_there_is_said_so(system: System, axiom: Axiom, words: list[Any]) -> None:
    answer = axiom(*words, "--json", status=1)
    assert answer["error"]["code"] in ("document-missing", "no-provider")


def test_a_term_that_is_none_is_refused(system: System, axiom: Axiom) -> None:
    configure(system)
    send(system, image())
    (review,) = axiom("reviews", "--state", "applied", "--json")
    axiom("correct", review["key"], "BACK PAIN", "--json", status=1)
    assert axiom("reject", review["key"], "--json", status=1)["error"]["code"] == "wrong-state"


def test_all_that_a_provider_failed_at_is_asked_again(system: System, axiom: Axiom) -> None:
    """After a night without the service nobody types two hundred keys."""
    with model_server() as server:
        server.says.update(source="BodyPartExamined", phrase="QQQ")
        openai = {"type": "openai", "base_url": server.url, "model": "m", "attempts": 1}
        server.behaviour = refusing(403)
        configure(system, {"providers": [openai], "when_down": "hold"})
        unknown: dict[str, Any] = {"BodyPartExamined": "QQQ", "SeriesDescription": ""}
        held = send(system, *(image(series=one, **unknown) for one in ("a", "b")))
        assert {system.instance(one)["state"] for one in held} == {"held"}
        assert "openai: refused-403" in axiom("reviews")
        server.behaviour = None
        assert axiom("ask-again", "--failed", "--json") == {"decisions": 2, "again": 2, "gone": 0}
        system.pump()
        for receipt in held:
            assert delivered(system, receipt).BodyPartExamined == "TSPINE"
        assert axiom("ask-again", "--failed").startswith("0 decisions")


def test_a_destination_that_keeps_the_old_term_is_named(
    system: System, axiom: Axiom, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rules send it nothing any more, so somebody has to look after it there."""
    configure(system)
    (receipt,) = send(system, image())
    (review,) = axiom("reviews", "--state", "applied", "--json")
    axiom("revert", review["key"])
    system.pump()
    assert delivered(system, receipt, "pacs").BodyPartExamined == "BWS"
    show = ["instances", "show", receipt.receipt_id]
    capsys.readouterr()
    assert cli.main([*show, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_at"] == ["spare"]
    assert cli.main(show) == 0
    assert "spare has it by an earlier decision" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["ask-again"], ["ask-again", "key", "--failed"]])
def test_asking_again_needs_to_know_what(system: System, axiom: Axiom, words: list[str]) -> None:
    assert "--failed" in axiom(*words, status=2)


def test_evaluate_asks_providers_of_the_configuration(
    system: System, axiom: Axiom, tmp_path: Path
) -> None:
    """`NAME` is the whole chain, `NAME/openai` one of it; what fails counts as not known."""
    file = tmp_path / "labels.csv"
    file.write_text(
        "id,attribute,modality,raw_value,expected,kind\n"
        "1,BodyPartExamined,CT,hatgerinc,TSPINE,language\n"
        "2,BodyPartExamined,CT,BWS,TSPINE,language\n"
    )
    with model_server() as server:
        server.says["source"] = "BodyPartExamined"
        openai = {"type": "openai", "base_url": server.url, "model": "m"}
        configure(system, {"providers": [{"type": "embedded"}, openai]})
        bootstrap.from_environment().configuration.current()
        assert axiom("evaluate", file, "--json")["right"] == 1
        for provider in ("body-parts", "body-parts/openai", "openai"):
            assert axiom("evaluate", file, "--provider", provider, "--json")["right"] == 2
        server.url = ""
        configure(system, {"providers": [{**openai, "base_url": "http://127.0.0.1:1"}]})
    found = axiom("evaluate", file, "--provider", "openai", "--json")
    assert (found["right"], found["failed"]) == (0, 2)
    assert "unavailable" in found["confusion"][0]["evidence"]
