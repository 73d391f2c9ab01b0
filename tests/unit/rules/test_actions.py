"""What each action does to an Instance, and what of it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from shared.dicom.edit import apply_changes, revert_changes
from shared.dicom.header import Header
from shared.dicom.paths import AttributePath
from shared.errors import InvalidConfigurationError
from shared.rules import Decision, compile_rulesets, parse_ruleset
from shared.rules.sample import sample_header
from tests.unit.rules.cases import KEY, facts


def decide(actions: list[Any], attributes: dict[str, Any]) -> tuple[Decision, Header]:
    """The decision of one rule with these actions, and the Header as it is delivered."""
    document = {"name": "set", "rules": [{"name": "rule", "actions": actions}]}
    program = compile_rulesets([parse_ruleset(document)], key=KEY)
    received = sample_header(attributes)
    decision = program.evaluate(received, facts())
    delivered = apply_changes(received, decision.changes)
    assert revert_changes(delivered, decision.changes).data == received.data
    return decision, delivered


def after(action: dict[str, Any], path: str, attributes: dict[str, Any]) -> str | None:
    """The text of an Attribute after one action that does not fail."""
    decision, delivered = decide([action], attributes)
    assert decision.failures == ()
    return delivered.text(path)


def failure(action: dict[str, Any], attributes: dict[str, Any]) -> str:
    """Why the action fails; nothing is changed then."""
    decision, _ = decide([action], attributes)
    assert decision.changes == ()
    return decision.failures[0].reason


def faults(action: dict[str, Any]) -> str:
    """Why a document with this action is refused."""
    with pytest.raises(InvalidConfigurationError) as caught:
        parse_ruleset({"name": "set", "rules": [{"name": "rule", "actions": [action]}]})
    return str(caught.value)


class TestSet:
    def test_a_literal(self) -> None:
        action = {"type": "set", "tag": "(0x0008,0x103E)", "value": "CHEST CT - PROCESSED"}
        assert after(action, "SeriesDescription", {}) == "CHEST CT - PROCESSED"

    def test_several_values_as_a_list_or_with_backslashes(self) -> None:
        for value in (["DERIVED", "SECONDARY"], "DERIVED\\SECONDARY"):
            action = {"type": "set", "tag": "ImageType", "value": value}
            assert after(action, "ImageType", {}) == "DERIVED\\SECONDARY"

    def test_numbers_and_emptying(self) -> None:
        assert after({"type": "set", "tag": "Rows", "value": 512}, "Rows", {}) == "512"
        assert after({"type": "set", "tag": "PatientID", "value": ""}, "PatientID", {}) == ""

    def test_a_sequence_item_is_made_and_every_item_is_reached(self) -> None:
        path = "RequestAttributesSequence[0].ScheduledProcedureStepID"
        assert after({"type": "set", "tag": path, "value": "S1"}, path, {}) == "S1"
        two: dict[str, Any] = {"RequestAttributesSequence": [{}, {"StudyInstanceUID": "1.2"}]}
        path = "RequestAttributesSequence[*].ScheduledProcedureStepID"
        assert after({"type": "set", "tag": path, "value": "S1"}, path, two) == "S1\\S1"

    def test_a_private_block_is_made(self) -> None:
        path = '(0031,"ACME",20)'
        action = {"type": "set", "tag": path, "value": "tag", "vr": "LO"}
        assert after(action, path, {}) == "tag"

    def test_if_missing(self) -> None:
        action = {"type": "set_if_missing", "tag": "StationName", "value": "NEW"}
        assert after(action, "StationName", {"StationName": "OLD"}) == "OLD"
        assert after(action, "StationName", {"StationName": ""}) == "NEW"
        assert after(action, "StationName", {}) == "NEW"

    def test_a_value_that_breaks_its_vr_is_refused_at_load(self) -> None:
        assert "rules[0].actions[0].value" in faults(
            {"type": "set", "tag": "StudyDate", "value": "tomorrow"}
        )
        assert "value" in faults({"type": "set", "tag": "Modality", "value": "c" * 17})

    def test_a_later_item_that_only_some_instances_have_can_be_named(self) -> None:
        two: dict[str, Any] = {"RequestAttributesSequence": [{}, {"StudyInstanceUID": "1.2"}]}
        path = "RequestAttributesSequence[1].ScheduledProcedureStepID"
        action = {"type": "set", "tag": path, "value": "S1"}
        assert after(action, path, two) == "S1"
        assert "Item 1 cannot be next" in failure(action, {})

    def test_a_private_attribute_can_be_named_by_the_block_that_it_has(self) -> None:
        """R14 of the corpus names (0031,1020): who reserved the block, only the Instance knows."""
        action = {"type": "set", "tag": "(0031,1020)", "value": "tag"}
        assert after(action, '(0031,"ACME",20)', {'(0031,"ACME",20)': "old"}) == "tag"
        assert "private creator" in failure(action, {})

    def test_or_fails_without_telling_the_value(self) -> None:
        action = {"type": "set", "tag": "StudyDate", "value": "{PatientID}"}
        reason = failure(action, {"PatientID": "SECRET7"})
        assert "StudyDate" in reason
        assert "SECRET7" not in reason

    def test_a_japanese_name_stays_readable(self) -> None:
        name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
        action = {"type": "set", "tag": "PatientComments", "value": "{PatientName:ideographic}"}
        assert after(action, "PatientComments", {"PatientName": name}) == "山田^太郎"


class TestTemplates:
    ATTRIBUTES = {  # noqa: RUF012
        "PatientID": "42",
        "StudyDate": "20240203",
        "StudyTime": "101112",
        "PatientName": "Roe^Ann",
        "SliceThickness": "1.256",
    }

    @pytest.mark.parametrize(
        ("template", "text"),
        [
            ("{PatientID}-{StudyDate:%Y}", "42-2024"),
            ("{PatientID:08}", "00000042"),
            ("{StudyDate:%d.%m.%y} {StudyTime:%H:%M}", "03.02.24 10:11"),
            ("{PatientName:family,upper}", "ROE"),
            ("{PatientName:3}", "Roe"),
            ("{SliceThickness:.1f}", "1.3"),
            ("{AccessionNumber|none}", "none"),
            ("{AccessionNumber:upper|}x", "x"),
            ("{{{calling_ae}}}", "{CT_1}"),
            ("{(0010,0020)}", "42"),
            ("{received_at:%Y-%m-%d}", "2026-11-21"),
        ],
    )
    def test_fill_in_values(self, template: str, text: str) -> None:
        action = {"type": "set", "tag": "StudyDescription", "value": template}
        assert after(action, "StudyDescription", self.ATTRIBUTES) == text

    def test_an_absent_value_without_default_fails_the_rule(self) -> None:
        action = {"type": "set", "tag": "StudyDescription", "value": "{AccessionNumber}"}
        assert "AccessionNumber has no Value" in failure(action, self.ATTRIBUTES)

    @pytest.mark.parametrize(
        "template",
        [
            "{PatientID.__class__}",
            "{PatientID!r}",
            "{0}",
            "{PatientID:>10000000000}",
            "{PatientID",
            "PatientID}",
            "{}",
            "{PatientID:%Q}",
            "{RequestAttributesSequence}",
            "{Patient ID}",
            "{PatientID:{StudyDate}}",
        ],
    )
    def test_nothing_but_attributes_facts_and_known_formats(self, template: str) -> None:
        action = {"type": "set", "tag": "StudyDescription", "value": template}
        assert "rules[0].actions[0].value" in faults(action)

    def test_output_is_bounded(self) -> None:
        action = {"type": "set", "tag": "TextValue", "value": "{TextValue}" * 50}
        assert "more than" in failure(action, {"TextValue": "x" * 5_000})


class TestDelete:
    def test_one_several_and_nested(self) -> None:
        header = {"MilitaryRank": "Major", "OtherPatientIDsSequence": [{"PatientID": "1"}]}
        assert after({"type": "delete", "tag": "MilitaryRank"}, "MilitaryRank", header) is None
        assert after({"type": "delete", "tag": "PatientWeight"}, "MilitaryRank", header)
        path = "OtherPatientIDsSequence[*].PatientID"
        assert after({"type": "delete", "tag": path}, path, header) is None

    @pytest.mark.parametrize(
        ("pattern", "gone"),
        [
            ("private", '(0031,"ACME",20)'),
            ("curves", "(5000,0005)"),
            ("overlays", "(6002,0010)"),
            ("group 0032", "RequestedProcedureDescription"),
            ("(0010,21xx)", "EthnicGroup"),
            ("Patient*", "PatientID"),
        ],
    )
    def test_by_pattern(self, pattern: str, gone: str) -> None:
        header = {
            '(0031,"ACME",20)': "x",
            "(5000,0005)": 1,
            "(6002,0010)": 1,
            "RequestedProcedureDescription": "x",
            "EthnicGroup": "x",
            "PatientID": "1",
            "StudyID": "stays",
        }
        decision, delivered = decide([{"type": "delete", "pattern": pattern}], header)
        assert decision.failures == ()
        assert gone in sample_header(header)
        assert gone not in delivered
        assert delivered.text("StudyID") == "stays"

    def test_keep_only_keeps_what_an_instance_needs(self) -> None:
        header = {
            "SOPInstanceUID": "1.2.3",
            "PatientID": "1",
            "StudyID": "2",
            "Rows": 4,
            '(0031,"ACME",20)': "x",
        }
        _, delivered = decide([{"type": "keep_only", "tags": ["StudyID"]}], header)
        kept = [str(path) for path, _ in delivered.walk()]
        assert kept == ["SpecificCharacterSet", "SOPInstanceUID", "StudyID", "Rows"]


class TestTextChanges:
    @pytest.mark.parametrize(
        ("action", "before", "expected"),
        [
            ({"type": "prepend", "value": "002-"}, "7", "002-7"),
            ({"type": "suffix", "value": "-{calling_ae}"}, "7", "7-CT_1"),
            (
                {"type": "regex_replace", "pattern": "^0+", "replacement": ""},
                "0070",
                "70",
            ),
            (
                {"type": "regex_replace", "pattern": r"(\d)-(\d)", "replacement": r"\2-\1"},
                "1-2",
                "2-1",
            ),
            (
                {"type": "regex_replace", "pattern": "a", "replacement": "山"},
                "banana",
                "b山n山n山",
            ),
            (
                {"type": "regex_replace", "pattern": "A", "replacement": "", "ignore_case": True},
                "banana",
                "bnn",
            ),
            (
                {"type": "regex_replace", "pattern": "a", "replacement": "", "only_first": True},
                "banana",
                "bnana",
            ),
            ({"type": "map", "values": {"A": "1"}}, "A\\B", "1\\B"),
            ({"type": "map", "values": {"A": "1"}, "default": "x"}, "B", "x"),
            ({"type": "map", "values": {"a": "1"}, "ignore_case": True}, "A", "1"),
            ({"type": "upper"}, "a^b", "A^B"),
            ({"type": "lower"}, "ABc", "abc"),
            ({"type": "title"}, "ROE^ANN", "Roe^Ann"),
            ({"type": "trim"}, "  a b ", "a b"),
            ({"type": "squeeze"}, "a   b", "a b"),
            ({"type": "pad", "width": 5}, "7", "00007"),
            ({"type": "pad", "width": 3, "character": "x", "side": "right"}, "7", "7xx"),
            ({"type": "truncate", "length": 2}, "abc", "ab"),
        ],
    )
    def test_every_value_is_changed(
        self, action: dict[str, Any], before: str, expected: str
    ) -> None:
        document = {**action, "tag": "OtherPatientNames"}
        assert after(document, "OtherPatientNames", {"OtherPatientNames": before}) == expected

    def test_absent_and_empty_attributes_stay_as_they_are(self) -> None:
        action = {"type": "prepend", "tag": "PatientID", "value": "002-"}
        assert after(action, "PatientID", {}) is None
        assert after(action, "PatientID", {"PatientID": ""}) == ""

    def test_what_changes_nothing_is_no_change(self) -> None:
        decision, _ = decide([{"type": "upper", "tag": "PatientID"}], {"PatientID": "A"})
        assert decision.changes == ()

    def test_a_map_may_fail_on_what_it_lacks(self) -> None:
        action = {"type": "map", "tag": "PatientID", "values": {"A": "1"}, "on_miss": "fail"}
        assert "lacks" in failure(action, {"PatientID": "B"})

    def test_wrong_groups_are_refused(self) -> None:
        action = {"type": "regex_replace", "tag": "PatientID", "pattern": "a"}
        assert "no group 1" in faults({**action, "replacement": r"\1"})
        assert "missing )" in faults({**action, "pattern": "(a"})

    def test_copy_and_move(self) -> None:
        header = {"PatientID": "1", "StudyID": "2"}
        copy = {"type": "copy", "from": "PatientID", "to": "StudyID"}
        _, delivered = decide([copy], header)
        assert (delivered.text("StudyID"), delivered.text("PatientID")) == ("1", "1")
        _, delivered = decide([{**copy, "type": "move"}], header)
        assert (delivered.text("StudyID"), delivered.text("PatientID")) == ("1", None)
        _, delivered = decide([copy], {"StudyID": "2"})
        assert delivered.text("StudyID") == "2"


class TestKeyedChanges:
    def test_a_hash_is_the_same_for_the_same_value_and_key(self) -> None:
        action = {"type": "hash", "tag": "PatientID", "length": 12}
        one = after(action, "PatientID", {"PatientID": "A"})
        assert one is not None
        assert len(one) == 12
        assert one == after(action, "PatientID", {"PatientID": "A"})
        assert one != after(action, "PatientID", {"PatientID": "B"})

    def test_uids_stay_consistent_wherever_they_stand(self) -> None:
        header = {
            "SOPInstanceUID": "1.2.3",
            "ReferencedImageSequence": [{"ReferencedSOPInstanceUID": "1.2.3"}],
        }
        tags = ["SOPInstanceUID", "ReferencedImageSequence[*].ReferencedSOPInstanceUID"]
        _, delivered = decide([{"type": "new_uid", "tags": tags}], header)
        new = delivered.text("SOPInstanceUID")
        assert new is not None
        assert new.startswith("2.25.")
        assert len(new) <= 64
        assert delivered.text(tags[1]) == new
        assert delivered.text("(0002,0003)") == new

    def test_dates_of_a_patient_move_together(self) -> None:
        header = {
            "PatientID": "P",
            "StudyDate": "20240203",
            "SeriesDate": "20240210",
            "AcquisitionDateTime": "20240203101112.5+0100",
            "RequestAttributesSequence": [{"ScheduledProcedureStepStartDate": "20240203"}],
        }
        _, delivered = decide([{"type": "shift", "per": "PatientID", "max_days": 30}], header)
        study, series = delivered.text("StudyDate"), delivered.text("SeriesDate")
        nested = "RequestAttributesSequence[0].ScheduledProcedureStepStartDate"
        assert study is not None
        assert series is not None
        assert study < "20240203"
        assert delivered.text(nested) == study
        assert delivered.text("AcquisitionDateTime") == f"{study}101112.5+0100"

    def test_a_key_is_needed(self) -> None:
        document = {
            "name": "set",
            "rules": [{"name": "r", "actions": [{"type": "hash", "tag": "PatientID"}]}],
        }
        with pytest.raises(InvalidConfigurationError, match="needs a key"):
            compile_rulesets([parse_ruleset(document)])


class TestShift:
    @pytest.mark.parametrize(
        ("action", "tag", "before", "expected"),
        [
            ({"days": -34}, "StudyDate", "20240203", "20231231"),
            ({"days": 1}, "StudyDate", "2024.02.28", "20240229"),
            ({"days": 1}, "AcquisitionDateTime", "20240228", "20240229"),
            ({"seconds": 3600}, "StudyTime", "233000.25", "003000.25"),
            ({"seconds": 60}, "StudyTime", "2359", "0000"),
            ({"seconds": 3600}, "AcquisitionDateTime", "202402282330", "202402290030"),
        ],
    )
    def test_fixed(self, action: dict[str, Any], tag: str, before: str, expected: str) -> None:
        document = {"type": "shift", "tag": tag, **action}
        assert after(document, tag, {tag: before}) == expected

    @pytest.mark.parametrize("value", ["202402", "20241399", "soon"])
    def test_what_is_no_whole_date_fails(self, value: str) -> None:
        assert failure({"type": "shift", "tag": "StudyDate", "days": 1}, {"StudyDate": value})


def test_many_long_values_end_before_they_fill_the_memory() -> None:
    """30,000 Values of one letter, each with 10,000 more: 300 MB of what cannot be kept."""
    action = {"type": "prepend", "tag": "LongCodeValue", "value": "{PatientComments}"}
    attributes = {"LongCodeValue": "\\".join("a" * 30_000), "PatientComments": "b" * 10_000}
    assert "would be larger than" in failure(action, attributes)


class TestWrongActions:
    @pytest.mark.parametrize(
        ("action", "fault"),
        [
            ({"type": "sett", "tag": "PatientID", "value": "x"}, "did you mean set?"),
            ({"type": "set", "tag": "PatientID", "valu": "x"}, "did you mean value?"),
            ({"type": "set", "tag": "PatientD", "value": "x"}, "did you mean PatientID?"),
            ({"type": "set", "tag": "PatientID", "value": None}, "must be text"),
            ({"type": "set", "tag": "PatientID", "value": "x", "vr": "L0"}, "is no VR"),
            ({"type": "standardize"}, "standardizer: is missing"),
            ({"type": "transcode", "transfer_syntax": "any_jpeg"}, "one Transfer Syntax"),
            ({"type": "transcode", "transfer_syntax": "JPEG200"}, "is no Transfer Syntax"),
            ({"type": "transcode", "transfer_syntax": "JPEG2000"}, "only what loses nothing"),
            ({"type": "transcode", "transfer_syntax": "JPEGBaseline8Bit"}, "cannot be made here"),
            (
                {"type": "transcode", "transfer_syntax": "RLELossless", "on_failure": "send"},
                "on_failure",
            ),
            ({"type": "reject", "status": "0000"}, "failure of C-STORE"),
            ({"type": "delete", "pattern": "pri vate"}, "is none of"),
            ({"type": "shift", "tag": "StudyDate"}, "is missing"),
            ({"type": "pad", "tag": "PatientID", "width": 10**9}, "must be from 1 to"),
            ({"tag": "PatientID"}, "type: is missing"),
        ],
    )
    def test_are_refused(self, action: dict[str, Any], fault: str) -> None:
        assert fault in faults(action)


class TestTheUidsOfAnInstance:
    """Without them it is none: a folder would call it `unknown`, and an archive refuse it."""

    @pytest.mark.parametrize(
        "action",
        [
            {"type": "regex_replace", "tag": "SOPInstanceUID", "pattern": ".*", "replacement": ""},
            {"type": "set", "tag": "SOPInstanceUID", "value": "{PatientID|}"},
            {"type": "copy", "from": "PatientID", "to": "SOPInstanceUID"},
        ],
    )
    def test_cannot_become_empty(self, action: dict[str, Any]) -> None:
        reason = failure(action, {"SOPInstanceUID": "1.2.3", "PatientID": ""})
        assert "SOPInstanceUID: no Instance can be without it" in reason

    @pytest.mark.parametrize(
        "keyword", ["SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"]
    )
    def test_cannot_be_deleted(self, keyword: str) -> None:
        path = AttributePath.parse(keyword)
        for action in (
            {"type": "delete", "tag": keyword},
            {"type": "delete", "pattern": f"group {path.last.tag >> 16:04X}"},
            {"type": "move", "from": keyword, "to": "PatientComments"},
            {"type": "set", "tag": keyword, "value": ""},
        ):
            assert "no Instance can be without it" in faults(action)

    def test_can_be_deleted_inside_a_sequence(self) -> None:
        action = {"type": "delete", "tag": "RequestAttributesSequence[*].StudyInstanceUID"}
        decision, delivered = decide(
            [action], {"RequestAttributesSequence": [{"StudyInstanceUID": "1.2"}]}
        )
        assert decision.failures == ()
        assert delivered.text("RequestAttributesSequence[0].StudyInstanceUID") is None


@pytest.mark.parametrize(
    ("action", "path"),
    [
        ({"type": "map", "tag": "Modality", "values": {"CT": "lower"}}, "values.CT"),
        ({"type": "map", "tag": "Modality", "values": {}, "default": "X" * 17}, "default"),
        ({"type": "hash", "tag": "StudyDate"}, "tag"),
        ({"type": "hash", "tags": ["PatientID", "AccessionNumber"], "length": 17}, "tags"),
        ({"type": "new_uid", "tag": "AccessionNumber"}, "tag"),
        ({"type": "lower", "tag": "Modality"}, "tag"),
        ({"type": "upper", "tag": "PixelData"}, "tag"),
        ({"type": "upper", "tag": "RequestAttributesSequence"}, "tag"),
        ({"type": "prepend", "tag": "TransferSyntaxUID", "value": "x"}, "tag"),
        ({"type": "set", "tag": "PixelData", "value": "{PatientID}"}, "tag"),
        ({"type": "set", "tag": '(0031,"ACME",20)', "value": 5}, "value"),
        ({"type": "delete", "tag": "PixelData"}, "tag"),
        ({"type": "delete", "pattern": "group 0002"}, "pattern"),
        ({"type": "delete", "pattern": "(7FE0,0010)"}, "pattern"),
        ({"type": "copy", "from": "RequestAttributesSequence", "to": "PatientID"}, "from"),
        ({"type": "copy", "from": "PatientID", "to": "PixelData"}, "to"),
    ],
)
def test_what_no_instance_can_have_done_to_it_is_refused_at_load(
    action: dict[str, Any], path: str
) -> None:
    """It would fail on every Instance, or do nothing without a word."""
    assert f"rules[0].actions[0].{path}: " in faults(action)


def test_a_misspelt_attribute_is_one_fault() -> None:
    action = {"type": "map", "tag": "PatientIDD", "values": {"1": "x" * 65}}
    assert "did you mean PatientID?" in faults(action)
    assert "at most" not in faults(action)


@pytest.mark.parametrize(
    ("action", "attribute", "value", "expected"),
    [
        ({"type": "pad", "tag": "PatientAge", "width": 4}, "PatientAge", "18Y", "018Y"),
        ({"type": "lower", "tag": "PatientName"}, "PatientName", "A^B", "a^b"),
        ({"type": "map", "tag": "Rows", "values": {"1": "2"}}, "Rows", 1, "2"),
        ({"type": "map", "tag": "PatientID", "values": {"1": ""}}, "PatientID", "1", ""),
        ({"type": "hash", "tag": "AccessionNumber"}, "AccessionNumber", "", ""),
        ({"type": "delete", "pattern": "Patient*"}, "PatientID", "1", None),
        ({"type": "delete", "tags": ["PatientID", "(7FE1,1010)"]}, "PatientID", "1", None),
        ({"type": "delete", "tags": ["PatientID", "(FFFA,FFFA)"]}, "PatientID", "1", None),
    ],
)
def test_what_only_some_instances_can_have_done_to_them_is_not(
    action: dict[str, Any], attribute: str, value: Any, expected: str | None
) -> None:
    assert after(action, attribute, {attribute: value}) == expected
