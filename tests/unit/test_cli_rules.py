"""`axiom rules` and the versions of `axiom config`, as a person or a script calls them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.local import cli
from shared import bootstrap
from shared.rules.sample import sample_header
from tests.unit.rules.test_dump import DCMDUMP

COOKBOOK = Path(__file__).resolve().parents[2] / "docs" / "rules"
SITE: dict[str, Any] = {
    "destinations": [{"name": name, "type": "filesystem", "path": name} for name in "ab"],
    "settings": {"default_route": ["a"]},
    "rulesets": [
        {
            "name": "main",
            "rules": [{"name": "ct", "conditions": [{"Modality": "CT"}], "destinations": ["a"]}],
        }
    ],
}

Axiom = Callable[..., Any]


@pytest.fixture
def axiom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Axiom]:
    """Run a command on a home of its own; what it printed, parsed with `--json`."""
    monkeypatch.setenv("AXIOM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    bootstrap.from_environment.cache_clear()

    def run(*words: object, status: int = 0) -> Any:
        capsys.readouterr()
        assert cli.main([str(word) for word in words]) == status
        said = capsys.readouterr()
        return json.loads(said.out) if "--json" in words else said.out + said.err

    yield run
    bootstrap.from_environment.cache_clear()


@pytest.fixture
def site(axiom: Axiom, tmp_path: Path) -> Path:
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump(SITE))
    axiom("config", "apply", file, "--reason", "first rules")
    return file


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    document = {**SITE["rulesets"][0]}
    document["rules"] = [{**document["rules"][0], "destinations": ["a", "b"]}]
    file = tmp_path / "candidate.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    file = tmp_path / "ct.dcm"
    file.write_bytes(sample_header({"Modality": "CT", "SOPInstanceUID": "1.2.3"}).data)
    return file


class TestRulesTest:
    def test_runs_every_ruleset_that_ships(self, axiom: Axiom) -> None:
        told = axiom("rules", "test", "--json")
        assert set(told) == {"passed", "failed", "results"}
        assert told["failed"] == 0
        assert told["passed"] == len(told["results"]) > 40
        files = {Path(result["file"]).name for result in told["results"]}
        assert files == {path.name for path in COOKBOOK.glob("*.yaml")}

    def test_is_red_with_what_differs(self, axiom: Axiom, tmp_path: Path) -> None:
        document = yaml.safe_load((COOKBOOK / "R01-contains.yaml").read_text())
        document["tests"][0]["expect"] = {"destinations": []}
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text(yaml.safe_dump(document))
        told = axiom("rules", "test", wrong, "--json", status=1)
        assert (told["passed"], told["failed"]) == (2, 1)
        assert told["results"][0]["differences"] == ["destinations: expected [], found ['cardiac']"]
        assert "expected [], found" in axiom("rules", "test", wrong, status=1)

    def test_counts_a_ruleset_that_is_none_as_failed(self, axiom: Axiom, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("name: a\nrules: [{nam: x}]\n")
        told = axiom("rules", "test", tmp_path, "--json", status=1)
        assert told["failed"] == 1
        assert "rules[0].nam: is no field here" in str(told["results"][0]["differences"])

    def test_takes_a_configuration_with_several(self, axiom: Axiom, site: Path) -> None:
        assert axiom("rules", "test", site, "--json") == {"passed": 0, "failed": 0, "results": []}


class TestRulesValidate:
    def test_names_every_fault(self, axiom: Axiom, site: Path, tmp_path: Path) -> None:
        file = tmp_path / "x.yaml"
        file.write_text("name: x\nrules: [{name: r, destinations: [c], actons: []}]\n")
        told = axiom("rules", "validate", file, "--json", status=1)
        paths = [fault["path"] for fault in told["error"]["faults"]]
        assert sorted(paths) == ["rules[0].actons", "rules[0].destinations[0]"]

    def test_sees_what_is_no_field_of_a_configuration(self, axiom: Axiom, tmp_path: Path) -> None:
        file = tmp_path / "x.yaml"
        file.write_text("destnations: []\nrulesets: [{name: x, rules: []}]\n")
        told = axiom("rules", "validate", "--alone", file, "--json", status=1)
        (fault,) = told["error"]["faults"]
        assert (fault["path"], fault["hint"]) == ("destnations", "did you mean destinations?")

    def test_alone_asks_for_no_destination(self, axiom: Axiom, site: Path) -> None:
        files = sorted(COOKBOOK.glob("R*.yaml"))
        assert len(axiom("rules", "validate", "--alone", *files, "--json")["valid"]) == 16
        axiom("rules", "validate", *files, status=1)

    def test_changes_nothing(self, axiom: Axiom, site: Path, candidate: Path) -> None:
        before = axiom("config", "export")
        assert axiom("rules", "validate", candidate, "--json") == {"valid": ["main"]}
        assert axiom("config", "export") == before


class TestAConfigurationWithMoreThanRulesets:
    """Rules may name schedules and crosswalk maps; what stands in the same file is there."""

    @pytest.fixture
    def whole(self, tmp_path: Path) -> Path:
        action = {"type": "crosswalk", "map": "mrn", "set": {"PatientID": "new"}}
        rule = {"name": "r", "schedule": "nights", "actions": [action], "destinations": ["c"]}
        test = {
            "attributes": {"PatientID": "1"},
            "facts": {"received_at": "2026-01-07T23:00:00Z"},
            "crosswalk": {"mrn": [{"match": {"old": "1"}, "row": {"new": "M1"}}]},
            "expect": {"destinations": ["c"], "changes": {"PatientID": "M1"}},
        }
        mrn = {
            "name": "mrn",
            "source": "numbers",
            "match": [{"column": "old", "attribute": "PatientID"}],
            "outputs": [{"column": "new"}],
        }
        document = {
            "destinations": [{"name": name, "type": "filesystem", "path": name} for name in "ac"],
            "schedules": [{"name": "nights", "start": "22:00", "end": "06:00", "timezone": "UTC"}],
            "crosswalk_sources": [{"name": "numbers", "type": "csv", "path": "numbers.csv"}],
            "crosswalk_maps": [mrn],
            "rulesets": [{"name": "night", "rules": [rule], "tests": [test]}],
        }
        file = tmp_path / "whole.yaml"
        file.write_text(yaml.safe_dump(document))
        return file

    def test_can_be_tested(self, axiom: Axiom, whole: Path) -> None:
        assert axiom("rules", "test", whole, "--json")["passed"] == 1

    def test_can_be_validated_before_any_of_it_is_applied(
        self, axiom: Axiom, site: Path, whole: Path
    ) -> None:
        before = axiom("config", "export")
        assert axiom("rules", "validate", "--alone", whole, "--json") == {"valid": ["night"]}
        assert axiom("rules", "validate", whole, "--json") == {"valid": ["night"]}
        assert axiom("config", "export") == before
        whole.write_text(whole.read_text().replace("schedule: nights", "schedule: night"))
        told = axiom("rules", "validate", whole, "--json", status=1)
        (fault,) = told["error"]["faults"]
        assert fault["path"] == "rulesets[0].rules[0].schedule"


class TestRulesDryRun:
    def test_shows_what_differs(
        self, axiom: Axiom, site: Path, candidate: Path, dicom: Path
    ) -> None:
        told = axiom("rules", "dry-run", candidate, "--dicom", dicom, "--json")
        assert told["results"][0]["differences"] == ["destinations: + b"]
        assert "destinations: + b" in axiom("rules", "dry-run", candidate, "--dicom", dicom)

    def test_takes_a_dump_or_past_traffic(
        self, axiom: Axiom, site: Path, candidate: Path, tmp_path: Path
    ) -> None:
        dump = tmp_path / "dump.txt"
        dump.write_text(DCMDUMP)
        told = axiom("rules", "dry-run", candidate, "--dump", dump, "--json")
        assert told["instances"] == 1
        assert axiom("rules", "dry-run", candidate, "--last", "5", "--json")["instances"] == 0

    def test_wants_one_of_them(self, axiom: Axiom, site: Path, candidate: Path) -> None:
        axiom("rules", "dry-run", candidate, status=2)
        axiom("rules", "dry-run", candidate, "--last", "5", "--dump", candidate, status=2)
        axiom("rules", "dry-run", candidate, "--dump", candidate, status=1)  # no dump


class TestRulesExplain:
    def test_shows_what_each_condition_saw(self, axiom: Axiom, site: Path, dicom: Path) -> None:
        assert 'holds: Modality == "CT"' in axiom("rules", "explain", "--dicom", dicom)
        told = axiom("rules", "explain", "--dicom", dicom, "--fact", "calling_ae=X", "--json")
        assert told["rules"][0]["conditions"][0]["seen"] == {"Modality": ["CT"]}

    def test_says_what_becomes_of_an_instance_that_no_rule_sends_anywhere(
        self, axiom: Axiom, tmp_path: Path, dicom: Path
    ) -> None:
        site = tmp_path / "none.yaml"
        site.write_text("rulesets: []\n")
        axiom("config", "apply", site)
        assert "the default route, or held" in axiom("rules", "explain", "--dicom", dicom)

    def test_of_a_receipt_that_is_not_there_fails(self, axiom: Axiom, site: Path) -> None:
        axiom("rules", "explain", "nobody", status=1)
        axiom("rules", "explain", status=2)


class TestConfigVersions:
    def test_can_be_listed_compared_and_restored(self, axiom: Axiom, site: Path) -> None:
        newest = axiom("config", "versions", "--json")["versions"][0]
        assert (newest["version"], newest["reason"]) == (2, "first rules")
        assert newest["by"].startswith("cli:")
        assert "+- name: main" in axiom("config", "diff", "2")
        told = axiom("config", "diff", "1", "2", "--json")
        assert "rulesets[main]" in [one["path"] for one in told["differences"]]
        told = axiom("config", "roll-back", "2", "--ruleset", "main")
        assert told.strip() == "main in version 2 is as in version 2"
        axiom("config", "roll-back", "2", "--ruleset", "nobody", status=1)
        assert axiom("config", "roll-back", "1", "--reason", "oops", "--json")["version"] == 3
        assert axiom("config", "diff", "3", "1") == ""
        axiom("config", "roll-back", "99", status=1)
        assert "no version 99" in axiom("config", "diff", "99", status=1)
