"""Scoring of labelled series, and `axiom standardize evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.local.cli import main
from shared.errors import InvalidConfigurationError
from shared.standardize.evaluation import evaluate, read_labelled
from shared.standardize.proposals import Proposal, Question
from tests.conftest import ROOT

HEAD = "id,attribute,modality,body_part_examined,study_description,series_description,"
HEAD += "protocol_name,raw_value,expected,acceptable,kind\n"


class AlwaysChest:
    name = "always"

    def propose(self, question: Question) -> Proposal:
        return Proposal("CHEST", 0.9, (), self.name, "", "", "")


def rows(*lines: str) -> str:
    return HEAD + "".join(f"{line}\n" for line in lines)


def test_wrong_overwrites_and_guesses_are_counted_apart() -> None:
    series = read_labelled(
        rows(
            "1,BodyPartExamined,CT,,,,,,CHEST,,missing",
            "2,BodyPartExamined,CT,,,,,,THORAX,CHEST,missing",
            "3,BodyPartExamined,CT,,,,,HEAD,HEAD,CHEST,keep",
            "4,BodyPartExamined,CT,,,,,,UNDETERMINED,,abstain",
            "5,BodyPartExamined,CT,,,,,,UNDETERMINED,CHEST,abstain",
            "6,BodyPartExamined,CT,,,,,,KNEE,,missing",
        )
    )
    score = evaluate(AlwaysChest(), series, threshold=0.7)
    assert score.counts() == {
        "rows": 6,
        "decidable": 4,
        "right": 3,
        "keep": 1,
        "keep_changed": 1,
        "abstain": 2,
        "abstain_guessed": 1,
        "failed": 0,
    }
    assert [one.series.row_id for one in score.wrong()] == ["4", "6"]


def test_below_the_threshold_is_not_known() -> None:
    series = read_labelled(rows("1,BodyPartExamined,CT,,,,,,UNDETERMINED,,abstain"))
    assert not evaluate(AlwaysChest(), series, threshold=0.95).wrong()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "line 1"),
        (HEAD, "line 1"),
        ("id,attribute\n1,x\n", "line 1"),
        (rows("1,,CT,,,,,,CHEST,,missing"), "line 2"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(text: str, where: str) -> None:
    with pytest.raises(InvalidConfigurationError) as refused:
        read_labelled(text)
    assert refused.value.faults[0].path == where


def test_the_command_prints_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    file = ROOT / "docs/standardize/example.csv"
    assert main(["standardize", "evaluate", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    needed = {"decidable", "right", "keep", "keep_changed", "abstain", "abstain_guessed"}
    assert needed | {"by_kind", "rows"} <= set(said)
    assert said["right"] == said["decidable"]


def test_the_command_names_the_fault_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe\x00")
    assert main(["standardize", "evaluate", str(tmp_path / "bad.csv")]) == 1
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    assert main(["standardize", "evaluate", str(tmp_path / "bad.csv")]) == 1
    assert "no column named attribute" in capsys.readouterr().err
