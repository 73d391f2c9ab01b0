"""Every ruleset of the cookbook in docs/rules loads and passes the tests beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.errors import InvalidConfigurationError
from shared.rules import check_ruleset, parse_ruleset
from shared.rules.selftest import Result, run_tests

COOKBOOK = Path(__file__).parents[3] / "docs" / "rules"
FILES = sorted(COOKBOOK.glob("*.yaml"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_tests_beside_the_rules_pass(path: Path) -> None:
    results = run_tests(parse_ruleset(load(path)))
    assert results
    assert [result for result in results if not result.passed] == []


def test_all_sixteen_rules_of_real_systems_are_there() -> None:
    numbers = {path.name[:3] for path in FILES if path.name.startswith("R")}
    assert numbers == {f"R{number:02}" for number in range(1, 17)}


def test_a_ruleset_goes_live_only_if_its_tests_pass() -> None:
    document = load(COOKBOOK / "R01-contains.yaml")
    assert check_ruleset(document).name == "R01-contains"
    document["tests"][1]["expect"] = {"destinations": ["cardiac"]}
    with pytest.raises(InvalidConfigurationError) as caught:
        check_ruleset(document)
    assert [fault.path for fault in caught.value.faults] == ["tests[1]"]


def test_and_only_if_it_can_be_carried_out_here() -> None:
    with pytest.raises(InvalidConfigurationError, match="study collector"):
        check_ruleset(load(COOKBOOK / "R16-quiet-study.yaml"))


def test_a_test_brings_the_rows_of_its_crosswalk_along() -> None:
    action = {
        "type": "crosswalk",
        "map": "mrn",
        "match": {"mrn": "PatientID"},
        "set": {"PatientID": "new_id"},
    }
    tests = [
        {
            "attributes": {"PatientID": "P1"},
            "crosswalk": {"mrn": [{"match": {"mrn": "P1"}, "row": {"new_id": "R7"}}]},
            "expect": {"changes": {"PatientID": "R7"}},
        },
        {"attributes": {"PatientID": "P1"}, "expect": {"changes": {}}},
    ]
    rule = {"name": "r", "actions": [action]}
    results = run_tests(parse_ruleset({"name": "s", "rules": [rule], "tests": tests}))
    assert [result.differences for result in results] == [(), ()]


def test_the_examples_of_the_language_reference_load() -> None:
    text = (COOKBOOK.parent / "rules.md").read_text(encoding="utf-8")
    whole, study, tests = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    parse_ruleset({"name": "study", "rules": yaml.safe_load(study)})
    document = yaml.safe_load(whole)
    document["tests"] = yaml.safe_load(tests)["tests"][:1]
    document["tests"][0]["expect"].pop("changes_for")
    check_ruleset(document)


class TestRunner:
    """A runner that cannot fail proves nothing."""

    def results(self, **expect: Any) -> tuple[Result, ...]:
        document = load(COOKBOOK / "R15-by-prefix.yaml")
        document["tests"] = [
            {"attributes": {"PatientID": "7", "PatientName": "a"}, "expect": expect}
        ]
        return run_tests(parse_ruleset(document))

    @pytest.mark.parametrize(
        ("expect", "difference"),
        [
            ({"destinations": []}, "destinations: expected [], found ['store']"),
            ({"matched": ["keep"]}, "matched: expected ['keep'], found ['rewrite']"),
            ({"verdict": "hold"}, "verdict: expected 'hold', found 'route'"),
            ({"failures": ["rewrite"]}, "failures: expected ['rewrite'], found []"),
            ({"changes": {"PatientName": "A"}}, "changes: PatientID is changed too"),
            ({"changes": {"StudyID": "A"}}, "changes: StudyID: expected 'A', found None"),
            ({"changes_for": {"x": {}}}, "changes_for x: it is not sent there"),
            ({"refused": True}, "refused: expected True, found False"),
            ({"high_priority": True}, "high_priority: expected True, found False"),
        ],
    )
    def test_says_what_differs(self, expect: dict[str, Any], difference: str) -> None:
        (result,) = self.results(**expect)
        assert not result.passed
        assert any(one.startswith(difference) for one in result.differences)

    def inside(self, action: dict[str, Any], **changes: str | None) -> tuple[str, ...]:
        """What differs if an Instance with two Items has the action done to it."""
        items = [{"ScheduledProcedureStepID": "A", '(0031,"ACME",20)': "x"}, {}]
        test = {"attributes": {"RequestAttributesSequence": items}, "expect": {"changes": changes}}
        document = {"name": "s", "rules": [{"name": "r", "actions": [action]}], "tests": [test]}
        (result,) = run_tests(parse_ruleset(document))
        return result.differences

    def test_compares_what_changes_inside_items_too(self) -> None:
        step = "ScheduledProcedureStepID"
        new = {"type": "set", "tag": f"RequestAttributesSequence[2].{step}", "value": "Z"}
        every = {"type": "set", "tag": f"RequestAttributesSequence[*].{step}", "value": "Z"}
        assert not self.inside(new, **{f"RequestAttributesSequence[2].{step}": "Z"})
        assert not self.inside(every, **{f"RequestAttributesSequence[*].{step}": "Z\\Z"})
        assert f"[2].{step} is changed too" in self.inside(new)[0]
        private = {"type": "delete", "pattern": "private"}
        path = 'RequestAttributesSequence[0].(0031,"ACME",20)'
        assert not self.inside(private, **{path: None})
        assert "[0].(0031,1020) is changed too, to None" in self.inside(private)[0]
        made = {"type": "set", "tag": f"ReferencedRequestSequence[0].{step}", "value": "Z"}
        assert not self.inside(made, **{f"ReferencedRequestSequence[0].{step}": "Z"})
        gone = {"type": "delete", "tag": "RequestAttributesSequence"}
        assert not self.inside(gone, RequestAttributesSequence=None)
        assert len(self.inside(gone)) == 2

    def test_a_fact_has_the_names_that_conditions_know_it_by(self) -> None:
        conditions = ['listener == "main"', 'transfer_syntax == "rle"', 'sop_class == "image"']
        test: dict[str, Any] = {
            "facts": {
                "listener": "main",
                "transfer_syntax": "RLELossless",
                "sop_class": "CT Image Storage",
            },
            "expect": {"matched": ["r"]},
        }
        rules = [{"name": "r", "conditions": conditions}]
        document: dict[str, Any] = {"name": "s", "rules": rules, "tests": [test]}
        assert run_tests(parse_ruleset(document))[0].passed
        test["facts"] = {
            "listener": "a",
            "source": "b",
            "sop_class": "image",
            "transfer_syntax": "x",
        }
        with pytest.raises(InvalidConfigurationError) as caught:
            parse_ruleset(document)
        assert {fault.path.rpartition(".")[2]: fault.message for fault in caught.value.faults} == {
            "source": "is the same as listener",
            "sop_class": "stands for several; one Instance has one",
            "transfer_syntax": "'x' is no Transfer Syntax",
        }

    @pytest.mark.parametrize("name", ["waiting", "collecting"])
    def test_a_state_has_the_name_that_studies_show_too(self, name: str) -> None:
        document = load(COOKBOOK / "R16-quiet-study.yaml")
        (waits,) = (
            one for one in document["tests"] if one["studies"]["quiet"]["state"] == "waiting"
        )
        waits["studies"]["quiet"]["state"] = name
        assert all(result.passed for result in run_tests(parse_ruleset(document)))

    def test_a_missing_study_rule_is_a_difference(self) -> None:
        document = load(COOKBOOK / "R16-quiet-study.yaml")
        document["tests"][0]["studies"] = {"quite": {"state": "complete"}}
        assert "no study rule quite" in run_tests(parse_ruleset(document))[0].differences[0]
