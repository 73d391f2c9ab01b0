"""What docs/crosswalk.md shows works as it says."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from infra.local.cli import main
from shared import bootstrap
from tests.data import build
from tests.unit.test_pipeline import delivered, pump, receive

PAGE = Path(__file__).resolve().parents[3] / "docs" / "crosswalk.md"


def block(language: str) -> str:
    """The page's one block of code in that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    return str(found)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with the example's tables."""
    monkeypatch.setenv("AXIOM_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    bootstrap.from_environment.cache_clear()
    folder = tmp_path / "crosswalks"
    folder.mkdir()
    (folder / "mrn.csv").write_text(block("csv"))
    with closing(sqlite3.connect(folder / "ris.db")) as database:
        database.executescript(block("sql"))
    (tmp_path / "site.yaml").write_text(block("yaml"))
    yield tmp_path
    bootstrap.from_environment().crosswalks.close()
    bootstrap.from_environment().destinations.close()
    bootstrap.from_environment.cache_clear()


class TestTheExample:
    def test_answers_what_the_page_says(
        self, home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        answers = []
        for line in block("sh").splitlines():
            program, *words = shlex.split(line)
            assert program == "./axiom"
            assert main([*words, "--json"]) == 0
            answers.append(json.loads(capsys.readouterr().out))
        assert [answer.get("outputs") for answer in answers[1:]] == [
            {"new_mrn": "M-77"},
            {"dept": "Radiology South"},
        ]

    def test_changes_what_is_received(self, home: Path) -> None:
        assert main(["config", "apply", "site.yaml"]) == 0
        ports = bootstrap.from_environment()
        element = build.element
        changes = {
            0x00080050: element(0x00080050, "SH", "A1"),
            0x00080080: element(0x00080080, "LO", "North"),
        }
        receive(ports, build.ct(patient_id="HIS-00123", changes=changes))
        pump(ports)
        (file,) = delivered(home)
        found = pydicom.dcmread(BytesIO(file.read_bytes()))
        assert found.PatientID == "M-77"
        assert found.InstitutionalDepartmentName == "Radiology North"

    def test_holds_a_patient_whom_the_table_does_not_know(self, home: Path) -> None:
        assert main(["config", "apply", "site.yaml"]) == 0
        ports = bootstrap.from_environment()
        receipt = receive(ports, build.ct(patient_id="HIS-999"))
        pump(ports)
        assert delivered(home) == []
        known = ports.documents.get("instances", receipt.receipt_id)
        assert known is not None
        assert known.data["state"] == "held"


class TestTheCommands:
    def test_show_and_take_copies(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        site = (home / "site.yaml").read_text()
        (home / "site.yaml").write_text(
            site.replace("    table: orders\n", "    table: orders\n    sync: {interval_s: 3600}\n")
        )
        assert main(["config", "apply", "site.yaml"]) == 0
        capsys.readouterr()
        assert main(["crosswalk", "sync", "--json"]) == 0
        (copied,) = json.loads(capsys.readouterr().out)
        assert (copied["map_name"], copied["rows"], copied["error"]) == ("orders", 2, None)
        assert main(["crosswalk", "status"]) == 0
        shown = capsys.readouterr().out
        assert "numbers (csv)" in shown
        assert copied["synced_at"] in shown

    def test_tell_a_row_that_is_not_there_by_their_status(
        self, home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["config", "apply", "site.yaml"]) == 0
        assert main(["crosswalk", "lookup", "mrn", "old_mrn=HIS-9"]) == 1
        assert main(["crosswalk", "sync"]) == 1
        assert "no crosswalk map has `sync`" in capsys.readouterr().err
        assert main(["crosswalk", "lookup", "mrn", "HIS-9"]) == 2
