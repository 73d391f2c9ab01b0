"""How rules and rulesets play together, and what a Decision comes to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from shared.config.sources import AnySource
from shared.dicom.changes import Transcoding
from shared.dicom.edit import apply_changes
from shared.errors import InvalidConfigurationError, StorageUnavailableError
from shared.rules import Decision, Program, Verdict, compile_rulesets, parse_ruleset
from shared.rules.decision import SOURCE_TYPES
from shared.rules.sample import sample_header
from tests.unit.rules.cases import KEY, facts

SEED: dict[str, Any] = {
    "name": "ct-chest-routing",
    "execution_mode": "FIRST_MATCH",
    "rules": [
        {
            "name": "route-ct-chest",
            "conditions": [
                {"type": "tag_equals", "tag": "(0x0008,0x0060)", "value": "CT"},
                {"type": "tag_contains", "tag": "(0x0018,0x0015)", "value": "CHEST"},
            ],
            "actions": [{"type": "set", "tag": "(0x0008,0x103E)", "value": "CHEST CT - PROCESSED"}],
            "storage_backends": ["primary-storage"],
        }
    ],
}


def program(*documents: Mapping[str, Any], **options: Any) -> Program:
    return compile_rulesets([parse_ruleset(document) for document in documents], key=KEY, **options)


def ruleset(*rules: dict[str, Any], name: str = "set", **fields: Any) -> dict[str, Any]:
    named = [{"name": f"r{number}", **rule} for number, rule in enumerate(rules)]
    return {"name": name, "rules": named, **fields}


def decide(
    *documents: Mapping[str, Any], attributes: dict[str, Any] | None = None, **changes: Any
) -> Decision:
    return program(*documents).evaluate(sample_header(attributes or {}), facts(**changes))


def sent(decision: Decision) -> list[str]:
    return [planned.destination for planned in decision.deliveries]


def test_the_seed_ruleset_changes_and_routes_a_chest_ct() -> None:
    decision = decide(SEED, attributes={"Modality": "CT", "BodyPartExamined": "CHEST"})
    assert decision.matched_rules == ("ct-chest-routing/route-ct-chest",)
    assert [(change.path, change.new) for change in decision.changes] == [
        ("SeriesDescription", ("CHEST CT - PROCESSED",))
    ]
    assert sent(decision) == ["primary-storage"]
    assert decision.deliveries[0].changes == decision.changes
    assert decision.verdict is Verdict.ROUTE


def test_without_a_match_the_default_route_is_the_callers() -> None:
    decision = decide(SEED, attributes={"Modality": "MR"})
    assert (decision.verdict, decision.deliveries, decision.matched_rules) == (
        Verdict.ROUTE,
        (),
        (),
    )


class TestOrder:
    RULES = ({"destinations": ["a"]}, {"destinations": ["b", "a"]})

    def test_first_match_and_all_matches(self) -> None:
        assert sent(decide(ruleset(*self.RULES, execution_mode="FIRST_MATCH"))) == ["a"]
        assert sent(decide(ruleset(*self.RULES, execution_mode="ALL_MATCHES"))) == ["a", "b"]

    def test_rulesets_go_by_priority_then_name(self) -> None:
        late = ruleset({"destinations": ["late"]}, name="a", priority=200)
        first = ruleset({"destinations": ["first"]}, name="z", priority=1)
        second = ruleset({"destinations": ["second"]}, name="b")
        third = ruleset({"destinations": ["third"]}, name="c")
        assert sent(decide(late, third, second, first)) == ["first", "second", "third", "late"]

    def test_a_later_rule_sees_what_an_earlier_one_changed(self) -> None:
        rules = (
            {
                "conditions": [{"Modality": "MR"}],
                "actions": [{"type": "set", "tag": "Modality", "value": "CT"}],
            },
            {"conditions": [{"Modality": "MR"}], "destinations": ["mr"]},
            {"conditions": ["Modality == 'CT' and Modality changed"], "destinations": ["ct"]},
        )
        document = ruleset(*rules, execution_mode="ALL_MATCHES")
        assert sent(decide(document, attributes={"Modality": "MR"})) == ["ct"]
        assert sent(decide(document, attributes={"Modality": "CT"})) == []

    def test_otherwise_is_for_what_no_rule_of_the_ruleset_took(self) -> None:
        document = ruleset(
            {"conditions": [{"Modality": "CT"}], "destinations": ["ct"]},
            {"otherwise": True, "destinations": ["rest"]},
            execution_mode="ALL_MATCHES",
        )
        assert sent(decide(document, attributes={"Modality": "CT"})) == ["ct"]
        assert sent(decide(document, attributes={"Modality": "US"})) == ["rest"]

    def test_stop_ends_the_ruleset_or_everything(self) -> None:
        other = ruleset({"destinations": ["other"]}, name="z")
        for scope, expected in (("ruleset", ["a", "other"]), ("all", ["a"])):
            rules = (
                {"destinations": ["a"], "actions": [{"type": "stop", "scope": scope}]},
                {"destinations": ["b"]},
            )
            document = ruleset(*rules, execution_mode="ALL_MATCHES")
            assert sent(decide(document, other)) == expected

    def test_what_is_disabled_is_not_there(self) -> None:
        assert sent(decide(ruleset({"destinations": ["a"], "enabled": False}))) == []
        assert sent(decide(ruleset({"destinations": ["a"]}, enabled=False))) == []

    def test_many_rules_give_what_one_by_one_gives(self) -> None:
        """The masks that rule out many rules at once agree with judging each."""
        rules = [
            {
                "conditions": [
                    {"Modality": ["CT", "MR"][number % 2]},
                    f"Rows > {number}",
                    {"StudyDescription": {"contains": "ab"[number % 3 == 0]}},
                ]
            }
            for number in range(600)
        ]
        document = ruleset(*rules, execution_mode="ALL_MATCHES")
        decision = decide(
            document, attributes={"Modality": "MR", "Rows": 400, "StudyDescription": "a"}
        )
        assert decision.matched_rules == tuple(
            f"set/r{number}" for number in range(400) if number % 2 and number % 3
        )


class TestSourcesAndSchedules:
    def test_a_ruleset_for_some_sources(self) -> None:
        document = ruleset(
            {"destinations": ["a"]}, sources=["main", {"type": "stow", "name": "web"}]
        )
        assert sent(decide(document)) == ["a"]
        assert sent(decide(document, source_name="web")) == []
        assert sent(decide(document, source_name="web", source_type="stow")) == ["a"]

    def test_a_schedule_by_name_for_a_rule(self) -> None:
        night = {"start": "22:00", "end": "06:00", "timezone": "Europe/Berlin"}
        document = ruleset(
            {"destinations": ["night"], "schedule": "night"},
            {"destinations": ["day"]},
            schedules={"night": night},
        )
        noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
        assert sent(decide(document, received_at=noon)) == ["day"]
        assert sent(decide(document, received_at=noon.replace(hour=23))) == ["night"]


class TestVerdicts:
    ROUTE = {"destinations": ["a"]}  # noqa: RUF012

    def test_hold_keeps_what_a_release_would_send(self) -> None:
        document = ruleset(
            {"actions": [{"type": "hold", "reason": "check the name"}]},
            self.ROUTE,
            execution_mode="ALL_MATCHES",
        )
        decision = decide(document)
        assert (decision.verdict, decision.reason, sent(decision)) == (
            Verdict.HOLD,
            "check the name",
            ["a"],
        )

    def test_discard_sends_nowhere_and_ends_all(self) -> None:
        document = ruleset(
            self.ROUTE,
            {"actions": [{"type": "discard"}]},
            {"destinations": ["never"]},
            execution_mode="ALL_MATCHES",
        )
        decision = decide(document)
        assert (decision.verdict, sent(decision)) == (Verdict.DISCARD, [])
        assert decision.matched_rules == ("set/r0", "set/r1")

    def test_reject_tells_status_and_reason(self) -> None:
        action = {"type": "reject", "status": "C123", "reason": "no MR here"}
        decision = decide(ruleset({"actions": [action]}))
        assert decision.verdict is Verdict.REJECT
        assert decision.refusal is not None
        assert (decision.refusal.status, decision.refusal.rule) == (0xC123, "set/r0")
        assert decision.reason == "no MR here"

    def test_refusal_at_reception_comes_before_all_else(self) -> None:
        document = ruleset(
            {
                "conditions": [{"Modality": {"!=": "MR"}}],
                "actions": [{"type": "reject", "reason": "MR only"}],
            },
            stage="reception",
        )
        compiled = program(document, ruleset(self.ROUTE, name="routing"))
        assert compiled.refusal(sample_header({"Modality": "MR"}), facts()) is None
        refusal = compiled.refusal(sample_header({}), facts())
        assert refusal is not None
        assert (refusal.status, refusal.reason) == (0x0124, "MR only")
        assert sent(compiled.evaluate(sample_header({}), facts())) == ["a"]

    def test_destinations_are_added_and_removed_in_order(self) -> None:
        document = ruleset(
            {"destinations": ["a", "b"]},
            {"actions": [{"type": "remove_destination", "destination": "a"}]},
            {"actions": [{"type": "route", "destinations": ["c", "b"]}]},
            execution_mode="ALL_MATCHES",
        )
        assert sent(decide(document)) == ["b", "c"]

    def test_priority_and_transfer_syntax(self) -> None:
        document = ruleset(
            {
                "actions": [
                    {"type": "set_priority", "priority": "high"},
                    {"type": "transcode", "transfer_syntax": "JPEG 2000 Lossless"},
                ],
                "destinations": [
                    "a",
                    {
                        "name": "b",
                        "actions": [
                            {"type": "transcode", "transfer_syntax": "ExplicitVRLittleEndian"}
                        ],
                    },
                ],
            }
        )
        decision = decide(document)
        assert decision.high_priority
        assert [planned.transcoding for planned in decision.deliveries] == [
            Transcoding("1.2.840.10008.1.2.4.90", "set/r0"),
            Transcoding("1.2.840.10008.1.2.1", "set/r0"),
        ]
        assert decision.transcoding == decision.deliveries[0].transcoding

    def test_what_came_back_is_not_sent_round_again(self) -> None:
        document = ruleset(self.ROUTE)
        assert decide(document, returned=True).verdict is Verdict.DISCARD
        assert "has come back" in decide(document, returned=True).reason
        again = ruleset(self.ROUTE, returned_instances="process")
        assert sent(decide(again, returned=True)) == ["a"]


def test_an_instance_may_leave_differently_for_each_destination() -> None:
    document = ruleset(
        {
            "actions": [{"type": "set", "tag": "StudyID", "value": "common"}],
            "destinations": [
                "plain",
                {
                    "name": "research",
                    "actions": [{"type": "hash", "tag": "PatientID"}],
                },
            ],
        },
        {
            "actions": [{"type": "set", "tag": "StationName", "value": "later"}],
        },
        execution_mode="ALL_MATCHES",
    )
    received = sample_header({"PatientID": "P1"})
    decision = program(document).evaluate(received, facts())
    plain, research = (apply_changes(received, planned.changes) for planned in decision.deliveries)
    assert plain.text("PatientID") == "P1"
    assert research.text("PatientID") not in (None, "P1")
    for header in (plain, research):
        assert (header.text("StudyID"), header.text("StationName")) == ("common", "later")
    assert [change.path for change in decision.changes] == ["StudyID", "StationName"]


class TestFailures:
    BROKEN = {  # noqa: RUF012
        "actions": [
            {"type": "set", "tag": "StudyID", "value": "half"},
            {"type": "set", "tag": "StudyDate", "value": "{PatientID}"},
        ],
        "destinations": ["broken"],
    }

    def test_a_failing_rule_leaves_nothing_and_stops_no_other(self) -> None:
        document = ruleset(
            {"actions": [{"type": "set", "tag": "StationName", "value": "first"}]},
            self.BROKEN,
            {"conditions": ["StudyID empty"], "destinations": ["good"]},
            execution_mode="ALL_MATCHES",
        )
        decision = decide(document, attributes={"PatientID": "P"})
        assert [failure.rule for failure in decision.failures] == ["set/r1"]
        assert "actions[1]" in decision.failures[0].reason
        assert sent(decision) == ["good"]
        assert [change.path for change in decision.changes] == ["StationName"]
        assert decision.matched_rules == ("set/r0", "set/r2")

    def test_unless_it_says_so_and_then_nothing_leaves(self) -> None:
        document = ruleset(
            {"destinations": ["before"]},
            {**self.BROKEN, "on_failure": "stop"},
            {"destinations": ["after"]},
            execution_mode="ALL_MATCHES",
        )
        decision = decide(document, attributes={"PatientID": "P"})
        assert (decision.verdict, sent(decision)) == (Verdict.HOLD, [])
        assert "set/r1" in decision.reason

    def test_what_only_a_failing_rule_wanted_is_held(self) -> None:
        """The default route might be the very place that the rule should keep it from."""
        decision = decide(ruleset(self.BROKEN), attributes={"PatientID": "P"})
        assert decision.verdict is Verdict.HOLD

    def test_a_failure_for_one_destination_stops_only_that_delivery(self) -> None:
        document = ruleset(
            {"destinations": [{"name": "b", "actions": self.BROKEN["actions"]}, "a"]}
        )
        decision = decide(document, attributes={"PatientID": "P"})
        assert sent(decision) == ["a"]
        assert decision.failures[0].reason.startswith("for b: actions[1]")

    def test_a_condition_on_what_turns_out_to_be_a_sequence(self) -> None:
        header = {'(0031,"ACME",20)': [{"PatientID": "1"}]}
        document = ruleset(
            {"conditions": [{'(0031,"ACME",20)': "x"}], "destinations": ["a"]},
            {"destinations": ["b"]},
        )
        decision = decide(document, attributes=header)
        assert [failure.rule for failure in decision.failures] == ["set/r0"]
        assert sent(decision) == ["b"]


class Crosswalk:
    """A crosswalk with one row."""

    def lookup(self, map_name: str, keys: Mapping[str, str]) -> Mapping[str, str] | None:
        if map_name == "down":
            raise StorageUnavailableError("the crosswalk database is down")
        return {"new_id": "R-7"} if dict(keys) == {"mrn": "P1"} else None


class TestCrosswalk:
    def decide(self, patient_id: str, on_miss: str, map_name: str = "mrn") -> Decision:
        action = {
            "type": "crosswalk",
            "map": map_name,
            "match": {"mrn": "PatientID"},
            "set": {"PatientID": "new_id"},
            "on_miss": on_miss,
        }
        compiled = program(
            ruleset({"actions": [action], "destinations": ["a"]}), crosswalk=Crosswalk()
        )
        return compiled.evaluate(sample_header({"PatientID": patient_id}), facts())

    def test_a_hit_sets_the_outputs(self) -> None:
        assert self.decide("P1", "keep").changes[0].new == ("R-7",)

    def test_a_miss_does_what_the_action_says(self) -> None:
        assert self.decide("P2", "keep").changes == ()
        assert self.decide("P2", "blank").changes[0].new == ()
        assert self.decide("P2", "hold").verdict is Verdict.HOLD
        assert self.decide("P2", "fail").failures[0].rule == "set/r0"

    def test_a_database_that_is_down_is_tried_again_later(self) -> None:
        with pytest.raises(StorageUnavailableError):
            self.decide("P1", "keep", map_name="down")

    def test_without_maps_the_rule_is_refused(self) -> None:
        action = {"type": "crosswalk", "map": "m", "match": {"a": "PatientID"}}
        document = ruleset({"actions": [{**action, "set": {"PatientID": "b"}}]})
        with pytest.raises(InvalidConfigurationError, match="no crosswalk maps"):
            program(document)


class TestWrongDocuments:
    def test_every_fault_is_told_at_once_with_its_path(self) -> None:
        document = {
            "nam": "x",
            "execution_mode": "FIRST",
            "priority": "high",
            "rules": [
                {
                    "name": "a",
                    "conditions": [{"Modality": "CT"}, {"type": "tag_eqals", "tag": "Rows"}],
                    "actions": [{"type": "delete", "tag": "PatienID"}],
                    "destinations": ["pac"],
                },
                {"name": "a", "condition": []},
            ],
        }
        with pytest.raises(InvalidConfigurationError) as caught:
            parse_ruleset(document, destinations=["pacs"])
        by_path = {fault.path: fault for fault in caught.value.faults}
        assert set(by_path) == {
            "nam",
            "name",
            "execution_mode",
            "priority",
            "rules[0].conditions[1].type",
            "rules[0].actions[0].tag",
            "rules[0].destinations[0]",
            "rules[1].name",
            "rules[1].condition",
        }
        assert "did you mean name?" in by_path["nam"].hint
        assert "did you mean pacs?" in by_path["rules[0].destinations[0]"].hint
        assert "PatientID" in str(by_path["rules[0].actions[0].tag"])
        assert "did you mean conditions?" in by_path["rules[1].condition"].hint

    def test_two_rulesets_of_one_name_are_refused(self) -> None:
        with pytest.raises(InvalidConfigurationError, match="2 rulesets"):
            program(ruleset(), ruleset())

    @pytest.mark.parametrize("document", [[], None, "rules", 7, {"name": "x", "rules": {}}])
    def test_what_is_no_ruleset_at_all(self, document: Any) -> None:
        with pytest.raises(InvalidConfigurationError):
            parse_ruleset(document)

    def test_reception_can_only_refuse(self) -> None:
        with pytest.raises(InvalidConfigurationError, match="only `reject` or `stop`"):
            parse_ruleset(ruleset({"destinations": ["a"]}, stage="reception"))


def test_a_type_of_source_that_there_is_not_is_refused() -> None:
    """A ruleset for `STOW` would wait for ever, without a word."""
    rules = [{"name": "r", "conditions": ['source_type in ["stow", "stw"]']}]
    with pytest.raises(InvalidConfigurationError) as caught:
        parse_ruleset({"name": "s", "sources": [{"type": "STOW"}, "main"], "rules": rules})
    told = {fault.path: str(fault) for fault in caught.value.faults}
    assert "did you mean stow?" in told["sources[0].type"]
    assert "'stw' is none of dimse, stow" in told["rules[0].conditions[0]"]


def test_every_type_of_source_that_can_be_configured_is_known() -> None:
    types = {get_args(one.model_fields["type"].annotation)[0] for one in get_args(AnySource)}
    assert types <= set(SOURCE_TYPES)
