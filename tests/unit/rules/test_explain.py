"""An explanation says why each rule matched or not, with what it saw."""

from __future__ import annotations

import json
from typing import Any

from shared.rules import compile_rulesets, parse_ruleset
from shared.rules.explain import (
    Explanation,
    RuleExplanation,
    as_document,
    explain,
    explain_study,
)
from shared.rules.sample import sample_header
from shared.rules.studies import Collected
from tests.unit.rules.cases import facts


def explained(*rules: dict[str, Any], attributes: dict[str, Any], **fields: Any) -> Explanation:
    named = [{"name": f"r{number}", **rule} for number, rule in enumerate(rules)]
    document = {"name": "s", "execution_mode": "ALL_MATCHES", "rules": named, **fields}
    program = compile_rulesets([parse_ruleset(document)])
    return explain(program, sample_header(attributes), facts())


def only(*rules: dict[str, Any], attributes: dict[str, Any]) -> RuleExplanation:
    return explained(*rules, attributes=attributes).rules[-1]


def test_the_condition_that_failed_is_named_with_the_values_seen() -> None:
    conditions = [{"Modality": "CT"}, "SliceThickness < 2", {"calling_ae": "CT_1"}]
    account = only({"conditions": conditions}, attributes={"Modality": "CT", "SliceThickness": "5"})
    assert not account.matched
    assert account.reason == "does not hold: SliceThickness < 2"
    assert [(one.condition, one.holds) for one in account.conditions] == [
        ('Modality == "CT"', True),
        ("SliceThickness < 2", False),
        ('calling_ae == "CT_1"', True),
    ]
    assert account.conditions[1].seen[0].values == ("5",)
    assert account.conditions[2].seen[0].values == ("CT_1",)


def test_a_rule_is_explained_as_it_saw_the_instance() -> None:
    account = only(
        {"actions": [{"type": "set", "tag": "Modality", "value": "MR"}]},
        {"conditions": [{"Modality": "CT"}]},
        attributes={"Modality": "CT"},
    )
    assert account.conditions[0].seen[0].values == ("MR",)
    assert account.reason == 'does not hold: Modality == "CT"'


def test_reasons_beside_conditions() -> None:
    rules: tuple[dict[str, Any], ...] = (
        {"enabled": False},
        {"actions": [{"type": "set", "tag": "StudyDate", "value": "{PatientID}"}]},
        {"actions": [{"type": "stop"}]},
        {},
    )
    reasons = [one.reason for one in explained(*rules, attributes={"PatientID": "x"}).rules]
    assert reasons[0] == "is disabled"
    assert reasons[1].startswith("failed: actions[0]")
    assert reasons[2] == "matched"
    assert "was not reached" in reasons[3]
    other = explained({}, attributes={}, sources=["elsewhere"]).rules[0]
    assert "not for this source" in other.reason


def test_rules_at_reception_are_explained_first_and_as_they_were_asked() -> None:
    """Nothing was known to have come back by then."""
    refuse = {"name": "no-us", "conditions": [{"Modality": "US"}], "actions": [{"type": "reject"}]}
    gate = {"name": "gate", "stage": "reception", "rules": [refuse]}
    routing = {"name": "a-routing", "rules": [{"name": "all"}]}
    program = compile_rulesets([parse_ruleset(one) for one in (routing, gate)])
    for modality, reason in (("US", "matched"), ("CT", 'does not hold: Modality == "US"')):
        header = sample_header({"Modality": modality})
        accounts = explain(program, header, facts(returned=True)).rules
        assert [one.rule for one in accounts] == ["gate/no-us", "a-routing/all"]
        assert (accounts[0].matched, accounts[0].reason) == (modality == "US", reason)
        assert accounts[0].conditions[0].seen[0].values == (modality,)
        assert not accounts[1].matched


def test_a_category_is_shown_by_its_name_and_not_by_a_hundred_uids() -> None:
    conditions = ['sop_class in ["image", "sr"]', {"transfer_syntax": "any_jpeg2000"}]
    account = only({"conditions": conditions}, attributes={})
    assert [one.condition for one in account.conditions] == [
        'sop_class in ["image", "sr"]',
        'transfer_syntax in ["any_jpeg2000"]',
    ]


def test_nested_conditions_and_sequences_show_all_they_saw() -> None:
    condition = 'not (PatientID == "1" or RequestAttributesSequence exists)'
    account = only(
        {"conditions": [condition]},
        attributes={"RequestAttributesSequence": [{}, {}], "PatientID": ""},
    )
    seen = {one.subject: one.values for one in account.conditions[0].seen}
    assert seen == {"PatientID": (), "RequestAttributesSequence": ("(Item)", "(Item)")}


def test_it_can_be_shown_as_json() -> None:
    document = as_document(
        explained({"conditions": ["PatientID exists"]}, attributes={"PatientID": "7"})
    )
    assert json.loads(json.dumps(document)) == document
    assert document["rules"][0]["conditions"][0]["seen"] == {"PatientID": ["7"]}


def test_a_study_rule_is_explained_over_all_that_was_collected() -> None:
    conditions = [
        {"StudyDescription": "BRAIN"},
        {"series_count": {">=": 2}},
        {"any": [{"every_instance": {"Modality": "MR"}}, {"not": {"instance_count": 3}}]},
    ]
    completion = {"quiet_period_s": 60}
    document = {"name": "r", "level": "study", "conditions": conditions, "completion": completion}
    (rule,) = parse_ruleset({"name": "s", "rules": [document]}).rules
    collected = [
        Collected(sample_header({"StudyDescription": "BRAIN", "Modality": modality}), facts())
        for modality in ("CT", "MR", "MR")
    ]
    accounts = explain_study(rule, collected)
    assert [(one.condition, one.holds) for one in accounts] == [
        ('any instance: StudyDescription == "BRAIN"', True),
        ("series_count >= 2", False),
        ('every instance: Modality == "MR" or (not (instance_count == 3))', False),
    ]
    seen = [{seen.subject: seen.values for seen in one.seen} for one in accounts]
    assert seen == [
        {"StudyDescription": ("BRAIN",)},
        {"series_count": (1,)},
        {"Modality": ("CT", "MR"), "instance_count": (3,)},
    ]
