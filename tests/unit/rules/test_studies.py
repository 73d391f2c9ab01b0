"""When a Study or Series is complete, and what its rule then says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.errors import InvalidConfigurationError
from shared.rules import Verdict, compile_rulesets, parse_ruleset
from shared.rules.sample import sample_header
from shared.rules.studies import Collected, State, StudyRule, compile_study_rules
from tests.unit.rules.cases import facts

START = datetime(2026, 1, 1, tzinfo=UTC)


def study_rule(completion: dict[str, Any], **fields: Any) -> StudyRule:
    rule = {"name": "r", "level": "study", "completion": completion, "destinations": ["a"]}
    ruleset = parse_ruleset({"name": "s", "rules": [{**rule, **fields}]})
    return compile_study_rules([ruleset])["s/r"]


def arrived(after_s: int = 0, **attributes: Any) -> Collected:
    header = sample_header({"StudyInstanceUID": "9", **attributes})
    return Collected(header, facts(received_at=START + timedelta(seconds=after_s)))


def state_of(
    rule: StudyRule, collected: list[Collected], *, now: datetime, forced: bool = False
) -> tuple[State, datetime | None]:
    arrivals = [
        rule.arrival_of(one.header, one.facts, at=one.facts.received_at) for one in collected
    ]
    return rule.state_at(now, arrivals, forced=forced)


def at(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


def test_quiet_counts_from_the_last_arrival_and_says_when_to_ask_again() -> None:
    rule = study_rule({"quiet_period_s": 60})
    collected = [arrived(0), arrived(40)]
    assert state_of(rule, collected, now=at(99)) == (State.WAITING, at(100))
    assert state_of(rule, collected, now=at(100)) == (State.COMPLETE, None)
    assert state_of(rule, collected, now=at(41), forced=True) == (State.COMPLETE, None)
    assert state_of(rule, [], now=at(1_000)) == (State.WAITING, None)


def test_a_number_of_instances_said_or_in_the_header() -> None:
    rule = study_rule({"expected_instances": 2})
    assert state_of(rule, [arrived()], now=at(0))[0] is State.WAITING
    assert state_of(rule, [arrived(), arrived()], now=at(0))[0] is State.COMPLETE
    rule = study_rule({"expected_instances": "NumberOfStudyRelatedInstances"})
    assert state_of(rule, [arrived(), arrived()], now=at(0))[0] is State.WAITING
    assert (
        state_of(rule, [arrived(NumberOfStudyRelatedInstances="2"), arrived()], now=at(0))[0]
        is State.COMPLETE
    )


@pytest.mark.parametrize(
    ("on_timeout", "state", "verdict"),
    [
        ("process", State.TIMED_OUT, Verdict.ROUTE),
        ("discard", State.TIMED_OUT, Verdict.DISCARD),
        ("hold", State.TIMED_OUT, Verdict.HOLD),
        ("wait", State.WAITING, Verdict.ROUTE),
    ],
)
def test_the_time_out_counts_from_the_first_arrival(
    on_timeout: str, state: State, verdict: Verdict
) -> None:
    rule = study_rule({"expected_instances": 9, "timeout_s": 100, "on_timeout": on_timeout})
    collected = [arrived(0), arrived(90)]
    assert rule.decide(collected, now=at(99)).state is State.WAITING
    decision = rule.decide(collected, now=at(100))
    assert (decision.state, decision.verdict) == (state, verdict)
    assert len(decision.decisions) == (2 if on_timeout == "process" else 0)


@pytest.mark.parametrize("on_timeout", ["discard", "hold", "process"])
def test_a_time_out_is_nothing_to_a_study_that_the_conditions_do_not_mean(on_timeout: str) -> None:
    """A rule about brains must not throw away every chest that lacks a brain's Series."""
    completion = {"expected_instances": 9, "timeout_s": 100, "on_timeout": on_timeout}
    rule = study_rule(completion, conditions=[{"StudyDescription": "BRAIN"}])
    decision = rule.decide([arrived(StudyDescription="CHEST")], now=at(100))
    assert (decision.state, decision.matched) == (State.TIMED_OUT, False)
    assert (decision.verdict, decision.decisions) == (Verdict.ROUTE, ())
    assert rule.decide([arrived(StudyDescription="BRAIN")], now=at(100)).matched


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([{"Modality": "MR"}], True),
        ([{"every_instance": [{"Modality": "MR"}]}], False),
        ([{"every_instance": ["Modality exists"]}], True),
        ([{"instance_count": {">=": 3}}], True),
        ([{"instance_count": 2}], False),
        ([{"series_count": {"<": 3}}], True),
        ([{"any": [{"series_count": 9}, {"any_instance": {"Modality": "CT"}}]}], True),
        ([{"not": {"any_instance": {"Modality": "CT"}}}], False),
    ],
)
def test_conditions_over_what_was_collected(conditions: Any, expected: bool) -> None:
    rule = study_rule({"quiet_period_s": 1}, conditions=conditions)
    collected = [
        arrived(Modality="CT", SeriesInstanceUID="1"),
        arrived(Modality="MR", SeriesInstanceUID="2"),
        arrived(Modality="MR", SeriesInstanceUID="2"),
    ]
    assert rule.decide(collected, now=at(10)).matched is expected


def test_expected_series_each_need_one_of_their_own() -> None:
    """The first wish could take series 2, and must leave it to the second."""
    rule = study_rule(
        {
            "expected_series": [
                {"SeriesDescription": {"contains": "T"}},
                {"SeriesDescription": {"contains": "T2"}},
            ]
        }
    )
    t1 = arrived(SeriesInstanceUID="1", SeriesDescription="T1")
    t2 = arrived(SeriesInstanceUID="2", SeriesDescription="T2")
    assert state_of(rule, [t2], now=at(0))[0] is State.WAITING
    assert state_of(rule, [t2, t1], now=at(0))[0] is State.COMPLETE


def test_series_rules_collect_each_series() -> None:
    header = sample_header({"StudyInstanceUID": "9", "SeriesInstanceUID": "7"})
    assert study_rule({"quiet_period_s": 1}, level="series").group_of(header) == ("9", "7")
    assert study_rule({"quiet_period_s": 1}).group_of(header) == ("9", "")


def test_actions_are_carried_out_on_every_instance() -> None:
    rule = study_rule(
        {"quiet_period_s": 1}, actions=[{"type": "set", "tag": "StudyID", "value": "done"}]
    )
    decision = rule.decide([arrived(), arrived()], now=at(5))
    assert [one.changes[0].new for one in decision.decisions] == [("done",), ("done",)]


def test_one_instance_that_is_held_holds_the_study() -> None:
    rule = study_rule(
        {"quiet_period_s": 1},
        actions=[{"type": "set", "tag": "StudyDate", "value": "{AccessionNumber}"}],
    )
    collected = [arrived(AccessionNumber="20240101"), arrived(AccessionNumber="none")]
    decision = rule.decide(collected, now=at(5))
    assert decision.verdict is Verdict.HOLD


def test_without_a_collector_study_rules_are_refused() -> None:
    """A rule that would never fire must not look as if it were in force."""
    rule = {"name": "r", "level": "study", "completion": {"quiet_period_s": 1}}
    ruleset = parse_ruleset({"name": "s", "rules": [rule]})
    with pytest.raises(InvalidConfigurationError, match="study collector"):
        compile_rulesets([ruleset])
    program = compile_rulesets([ruleset], study_rules=True)
    assert program.evaluate(sample_header({}), facts()).collect_for == ("s/r",)


def test_what_a_rule_holds_is_not_collected_and_what_a_rule_fails_on_is() -> None:
    """A person releases the one; one broken rule must not keep the other from a Study's rule."""
    study = {"name": "s", "level": "study", "completion": {"quiet_period_s": 1}}
    hold = {"name": "h", "actions": [{"type": "hold"}]}
    broken = {"name": "b", "actions": [{"type": "set", "tag": "StudyDate", "value": "{PatientID}"}]}
    collected_for = []
    for rule in (hold, broken):
        ruleset = parse_ruleset({"name": "r", "rules": [rule, study]})
        program = compile_rulesets([ruleset], study_rules=True)
        decision = program.evaluate(sample_header({"PatientID": "none"}), facts())
        assert decision.verdict is Verdict.HOLD
        collected_for.append(decision.collect_for)
    assert collected_for == [(), ("r/s",)]


def test_an_instance_sent_twice_counts_once_and_a_number_that_is_none_is_ignored() -> None:
    rule = study_rule({"expected_instances": 2})
    twice = [arrived(SOPInstanceUID="1.1"), arrived(SOPInstanceUID="1.1")]
    assert state_of(rule, twice, now=at(0))[0] is State.WAITING
    assert state_of(rule, [*twice, arrived(SOPInstanceUID="1.2")], now=at(0))[0] is State.COMPLETE
    rule = study_rule({"expected_instances": "NumberOfStudyRelatedInstances"})
    assert state_of(rule, [arrived()], now=at(0))[0] is State.WAITING


@pytest.mark.parametrize(
    ("completion", "fault"),
    [
        ({}, "needs quiet_period_s"),
        ({"quiet_period_s": 0}, "must be from 1"),
        ({"quiet_period_s": 1, "on_timeout": "discard"}, "timeout_s: is missing"),
        ({"quiet_period_s": 1, "timeout_s": 5}, "on_timeout: is missing"),
        ({"quiet_period": 1}, "did you mean quiet_period_s?"),
        ({"expected_instances": "PatientName"}, "is no number"),
    ],
)
def test_wrong_completions_are_refused(completion: Any, fault: str) -> None:
    with pytest.raises(InvalidConfigurationError) as caught:
        study_rule(completion)
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ({"level": "study", "otherwise": True}, "otherwise"),
        (
            {
                "level": "series",
                "completion": {"expected_series": [{"Modality": "CT"}, {"Modality": "MR"}]},
            },
            "completion.expected_series",
        ),
    ],
)
def test_what_a_study_or_series_rule_could_never_mean_is_refused(
    rule: dict[str, Any], path: str
) -> None:
    """A fallback that always acts, and a wait that never ends, without a word."""
    document = {"name": "r", "completion": {"quiet_period_s": 60}, **rule}
    with pytest.raises(InvalidConfigurationError) as caught:
        parse_ruleset({"name": "s", "rules": [document]})
    assert [fault.path for fault in caught.value.faults] == [f"rules[0].{path}"]
