"""What each condition holds for, in its three forms."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from tests.unit.rules.cases import faults_of, holds


@pytest.mark.parametrize(
    "condition",
    [
        {"type": "tag_equals", "tag": "(0x0008,0x0060)", "value": "CT"},
        {"type": "tag_equals", "tag": "(0008,0060)", "value": "CT"},
        {"type": "tag_equals", "tag": "00080060", "value": "CT"},
        {"type": "tag_equals", "tag": "Modality", "value": "CT"},
        {"Modality": "CT"},
        {"Modality": {"equals": "CT"}},
        '(0x0008,0x0060) == "CT"',
        "Modality = 'CT'",
        '00080060 == "CT"',
    ],
)
def test_every_form_and_address_means_the_same(condition: Any) -> None:
    assert holds(condition, {"Modality": "CT"})
    assert not holds(condition, {"Modality": "ct"})
    assert not holds(condition, {"Modality": ""})
    assert not holds(condition)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("tag_equals", "CT", True),
        ("tag_equals", "MR", False),
        ("tag_exists", None, True),
        ("tag_exists", True, True),
        ("tag_exists", False, False),
        ("tag_contains", "C", True),
        ("tag_regex", "^C", True),
        ("tag_in", ["CT", "MR"], True),
        ("tag_not_equals", "CT", False),
        ("tag_starts_with", "T", False),
    ],
)
def test_the_long_conditions_that_users_have_load_unchanged(
    kind: str, value: Any, expected: bool
) -> None:
    condition = {"type": kind, "tag": "(0x0008,0x0060)"}
    given = {} if value is None else {"value": value}
    assert holds({**condition, **given}, {"Modality": "CT"}) is expected


@pytest.mark.parametrize(
    ("text", "attributes", "expected"),
    [
        ("(0x0010,0x0030) exists", {"PatientBirthDate": ""}, True),
        ("(0x0010,0x0030) exists", {}, False),
        ("(0x0018,0x0050) > 5.0", {"SliceThickness": "5.5"}, True),
        ("(0x0018,0x0050) > 5.0", {"SliceThickness": "5.0"}, False),
        ('(0x0008,0x0060) in ["CT","MR"]', {"Modality": "MR"}, True),
        ('(0x0008,0x0060) in ["CT","MR"]', {"Modality": "US"}, False),
        (r"(0x0010,0x0020) matches ^PAT\d{6}$", {"PatientID": "PAT123456"}, True),
        (r"(0x0010,0x0020) matches ^PAT\d{6}$", {"PatientID": "PAT12345"}, False),
    ],
)
def test_the_textual_conditions_that_users_have_load_unchanged(
    text: str, attributes: dict[str, Any], expected: bool
) -> None:
    assert holds(text, attributes) is expected


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ('Modality != "CT"', "MR", "CT"),
        ("Modality empty", "", "CT"),
        ("Modality is not empty", "CT", ""),
        ('SeriesDescription contains "CINE"', "2ch CINE", "cine"),
        ('SeriesDescription contains "cine" ignoring case', "2ch CINE", "cin"),
        ('SeriesDescription starts with "T1"', "T1 tra", "tra T1"),
        ('SeriesDescription ends with "tra"', "T1 tra", "tra T1"),
        ('SeriesDescription like "T?w*tra"', "T1w post tra", "T1 tra"),
        ('SeriesDescription like "t1*" ignoring case', "T1", "PD T1"),
        ('SeriesDescription not in ["a", "b"]', "c", "a"),
        ('SeriesDescription matches "t[12]" ignoring case', "FLAIR T2", "PD"),
        ('SeriesDescription not matches "T[12]"', "PD", "T1"),
    ],
)
def test_operators_on_text(text: str, matching: str, other: str) -> None:
    keyword = text.split()[0]
    assert holds(text, {keyword: matching})
    assert not holds(text, {keyword: other})


def test_a_negative_operator_holds_where_the_attribute_is_absent() -> None:
    assert holds('Modality != "CT"')
    assert holds('Modality not in ["CT"]')


def test_a_pattern_has_a_thousand_characters_at_most() -> None:
    """A wildcard costs its length times that of the text."""
    for operator in ("wildcard", "regex"):
        assert faults_of({"PatientID": {operator: "a" * 1000}}) == []
        (fault,) = faults_of({"PatientID": {operator: "a" * 1001}})
        assert "is longer than 1000 characters" in fault


def test_a_wildcard_needs_the_whole_value_and_a_value() -> None:
    assert holds('SeriesDescription like "*"', {"SeriesDescription": "x"})
    assert not holds('SeriesDescription like "*"')
    assert not holds('SeriesDescription like "T1"', {"SeriesDescription": "T1 tra"})
    assert holds('SeriesDescription like "a.c"', {"SeriesDescription": "a.c"})
    assert not holds('SeriesDescription like "a.c"', {"SeriesDescription": "abc"})


class TestNumbers:
    def test_ds_and_is_are_numbers_however_they_are_written(self) -> None:
        assert holds("SliceThickness == 5", {"SliceThickness": "5.00"})
        assert holds("SliceThickness == 5", {"SliceThickness": " 5e0"})
        assert holds({"SeriesNumber": "7"}, {"SeriesNumber": "007"})
        assert holds("Rows between 256 and 512", {"Rows": 512})
        assert not holds("Rows between 256 and 511", {"Rows": 512})
        assert holds("Rows in [512, 1024]", {"Rows": 512})

    @pytest.mark.parametrize("value", ["", "thin", "1_0", "nan", "inf", "0x10"])
    def test_what_is_no_number_fits_nothing(self, value: str) -> None:
        for operator in ("==", "<", "<=", ">", ">="):
            assert not holds(f"SliceThickness {operator} 2", {"SliceThickness": value})


class TestDates:
    @pytest.mark.parametrize(
        ("condition", "value", "expected"),
        [
            ('StudyDate == "20240203"', "20240203", True),
            ("StudyDate == 20240203", "20240203", True),
            ('StudyDate == "2024-02-03"', "20240203", True),
            ('StudyDate == "20240203"', "2024.02.03", True),
            ('StudyDate == "202402"', "20240229", True),
            ('StudyDate == "2024"', "20250101", False),
            ('StudyDate > "2024"', "20241231", False),
            ('StudyDate > "2024"', "20250101", True),
            ('StudyDate <= "202402"', "20240229", True),
            ('StudyDate < "202402"', "20240131", True),
            ('StudyDate between "2023" and "202402"', "20240229", True),
            ('StudyDate in ["2023", "20240203"]', "20230401", True),
            ('StudyDate < "2024"', "2023xx", False),
        ],
    )
    def test_a_partial_date_is_the_stretch_it_names(
        self, condition: str, value: str, expected: bool
    ) -> None:
        assert holds(condition, {"StudyDate": value}) is expected

    def test_times_compare_at_any_precision(self) -> None:
        assert holds('StudyTime == "10"', {"StudyTime": "103059.5"})
        assert holds('StudyTime >= "10:30"', {"StudyTime": "1030"})
        assert holds("StudyTime < 0830", {"StudyTime": "082959.999999"})

    def test_offsets_from_utc_are_minded(self) -> None:
        dt = {"AcquisitionDateTime": "20240203120000+0100"}
        assert holds('AcquisitionDateTime == "20240203110000+0000"', dt)
        assert holds('AcquisitionDateTime < "20240203120000-0500"', dt)

    def test_text_operators_see_the_text_of_a_date(self) -> None:
        assert holds('StudyDate starts with "2024"', {"StudyDate": "20240203"})

    def test_ages_are_compared_across_units(self) -> None:
        assert holds('PatientAge < "018Y"', {"PatientAge": "203M"})
        assert not holds('PatientAge < "018Y"', {"PatientAge": "018Y"})
        assert holds('PatientAge == "12M"', {"PatientAge": "001Y"})


class TestNames:
    NAME = "Yamada^Tarou=山田^太郎=やまだ^たろう"

    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            ('PatientName == "Yamada^Tarou"', True),
            ('PatientName == "Yamada^Tarou^^^"', True),
            ('PatientName == "山田^太郎" in ideographic group', True),
            ('PatientName == "山田^太郎" in alphabetic group', False),
            ('PatientName == "yamada" in family name ignoring case', True),
            ('PatientName == "Tarou" in given name in alphabetic group', True),
            ('PatientName contains "YAMA" ignoring case', True),
            ('PatientName contains "YAMA"', False),
            ('PatientName == "Yamada"', False),
            ('PatientName like "Yama*"', True),
        ],
    )
    def test_component_groups_and_components(self, condition: str, expected: bool) -> None:
        assert holds(condition, {"PatientName": self.NAME}) is expected


class TestSeveralValues:
    def test_any_value_is_enough_unless_every_is_asked(self) -> None:
        image = {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}
        assert holds('ImageType == "PRIMARY"', image)
        assert not holds('ImageType == "PRIMARY" for every value', image)
        assert holds('ImageType matches "^[A-Z]+$" for every value', image)
        assert not holds('ImageType matches "^[A-Z]+$" for every value')

    def test_an_operand_with_backslashes_is_all_values(self) -> None:
        image = {"ImageType": ["ORIGINAL", "PRIMARY"]}
        assert holds({"ImageType": "ORIGINAL\\PRIMARY"}, image)
        assert not holds({"ImageType": "PRIMARY\\ORIGINAL"}, image)


class TestAddresses:
    SEQUENCE: ClassVar[dict[str, Any]] = {
        "RequestAttributesSequence": [
            {"ScheduledProcedureStepID": "A"},
            {"ScheduledProcedureStepID": "B"},
        ]
    }

    def test_items_by_number_or_any(self) -> None:
        path = "RequestAttributesSequence[{}].ScheduledProcedureStepID == 'B'"
        assert holds(path.format("*"), self.SEQUENCE)
        assert holds(path.format(1), self.SEQUENCE)
        assert not holds(path.format(0), self.SEQUENCE)
        assert not holds(path.format(7), self.SEQUENCE)

    def test_a_sequence_is_empty_without_items(self) -> None:
        assert holds("RequestAttributesSequence empty", {"RequestAttributesSequence": []})
        assert not holds("RequestAttributesSequence empty", self.SEQUENCE)
        assert holds("RequestAttributesSequence exists", {"RequestAttributesSequence": []})

    def test_private_attributes_by_creator(self) -> None:
        ours = {'(0031,"ACME",20)': "x"}
        assert holds('(0031,"ACME",20) == "x"', ours)
        assert not holds('(0031,"OTHER",20) == "x"', ours)

    def test_two_attributes_are_compared_by_their_kind(self) -> None:
        dates = {"StudyDate": "20240203", "SeriesDate": "20240204"}
        assert holds("StudyDate < SeriesDate", dates)
        assert not holds("StudyDate == SeriesDate", dates)
        assert holds({"type": "tag_lt", "tag": "StudyDate", "other": "SeriesDate"}, dates)
        assert holds({"StudyDate": {"<": {"attribute": "SeriesDate"}}}, dates)


class TestFacts:
    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            ({"calling_ae": "CT_1"}, True),
            ({"calling_ae": "ct_1"}, False),
            ({"type": "calling_ae", "operator": "wildcard", "value": "CT*"}, True),
            ({"type": "called_ae", "value": ["AXIOM", "X"]}, True),
            ({"peer_address": "10.0.0.0/8"}, True),
            ({"peer_address": ["192.168.0.0/16", "10.1.2.3"]}, True),
            ({"peer_address": "10.2.0.0/16"}, False),
            ({"listener": "main"}, True),
            ({"type": "source", "value": "main"}, True),
            ({"source_type": "stow"}, False),
            ({"sop_class": "image"}, True),
            ({"sop_class": ["SR", "RT"]}, False),
            ({"sop_class": "CT Image Storage"}, True),
            ("sop_class == 'CTImage'", True),
            ({"transfer_syntax": "uncompressed"}, True),
            ({"transfer_syntax": ["JPEG2000", "any_jpegls"]}, False),
            ("size >= 1000000", True),
            ("size < 1000", False),
            ("returned", False),
            ({"returned": False}, True),
        ],
    )
    def test_what_is_known_beside_the_header(self, condition: Any, expected: bool) -> None:
        assert holds(condition) is expected

    @pytest.mark.parametrize("address", ["::ffff:10.1.2.3", "10.1.2.3"])
    def test_an_ipv4_peer_of_an_ipv6_socket_is_an_ipv4_peer(self, address: str) -> None:
        assert holds({"peer_address": "10.0.0.0/8"}, peer_address=address)

    def test_ipv6_networks(self) -> None:
        assert holds({"peer_address": "2001:db8::/32"}, peer_address="2001:db8::7")
        assert holds({"peer_address": "fe80::/10"}, peer_address="fe80::1%eth0")
        assert not holds({"peer_address": "2001:db8::/32"}, peer_address="")


class TestCombinations:
    def test_all_any_not_in_every_form(self) -> None:
        text = 'Modality == "CT" and (Rows > 100 or not PatientID exists)'
        short = {
            "all": [
                {"Modality": "CT"},
                {"any": [{"Rows": {">": 100}}, {"not": {"PatientID": {"exists": True}}}]},
            ]
        }
        long = {
            "type": "all",
            "conditions": [
                {"type": "tag_equals", "tag": "Modality", "value": "CT"},
                {
                    "type": "any",
                    "conditions": [
                        {"type": "tag_gt", "tag": "Rows", "value": 100},
                        {"type": "not", "condition": {"type": "tag_exists", "tag": "PatientID"}},
                    ],
                },
            ],
        }
        for condition in (text, short, long):
            assert holds(condition, {"Modality": "CT", "Rows": 512, "PatientID": "1"})
            assert holds(condition, {"Modality": "CT"})
            assert not holds(condition, {"Modality": "CT", "PatientID": "1"})
            assert not holds(condition, {"Modality": "MR"})

    def test_and_binds_tighter_than_or(self) -> None:
        text = 'Modality == "MR" or Modality == "CT" and Rows > 100'
        assert holds(text, {"Modality": "MR"})
        assert not holds(text, {"Modality": "CT"})

    def test_a_list_means_all_and_an_empty_list_always(self) -> None:
        assert holds([])
        assert not holds([{"Modality": "CT"}, "Rows > 100"], {"Modality": "CT"})


class TestWrongConditions:
    @pytest.mark.parametrize(
        ("condition", "fault"),
        [
            ({"type": "tag_equls", "tag": "Modality"}, "did you mean tag_equals?"),
            ({"type": "tag_equals", "tag": "Modalty", "value": "x"}, "did you mean Modality?"),
            ({"Modalty": "CT"}, "did you mean Modality?"),
            ({"caling_ae": "CT"}, "did you mean calling_ae?"),
            ({"typ": "tag_equals"}, "did you mean type?"),
            ({"Modality": {"equls": "CT"}}, "did you mean equals?"),
            ('Modality matchs "x"', "did you mean matches?"),
            ("Modality == CT", "put text in quotes"),
            ('Modality == "CT', "the quote is not closed"),
            ('Modality > "CT"', "cannot order text"),
            ('StudyDate == "soon"', "needs a date"),
            ("SliceThickness > 'thick'", "needs a number"),
            ("Modality matches (a", "missing )"),
            (r"Modality matches (a)\1", "invalid escape sequence"),
            ("PixelData == 'x'", "cannot compare bytes"),
            ("RequestAttributesSequence == 'x'", "cannot compare sequence"),
            ({"peer_address": "10.0.0.0/33"}, "no IPv4 or IPv6"),
            ({"sop_class": "imag"}, "did you mean image?"),
            ("StudyDate < SliceThickness", "of the kind"),
            ({"Modality": None}, "needs text or a number"),
            ({"Modality": True}, "needs text or a number"),
            ({"type": "tag_in", "tag": "Modality", "value": "CT"}, "needs a list"),
            ({"type": "tag_equals", "tag": "Modality", "value": ["CT"]}, "use `in`"),
            (7, "must be a condition"),
            ({}, "is an empty condition"),
            ('Modality == "CT" Modality', "expected `and`, `or` or the end"),
        ],
    )
    def test_is_refused_with_a_reason(self, condition: Any, fault: str) -> None:
        found = faults_of(condition)
        assert found
        assert fault in "; ".join(found)

    def test_all_faults_are_told_at_once(self) -> None:
        found = faults_of([{"Modalty": "CT"}, "Rows >> 1", {"type": "tag_exists"}])
        assert [fault.partition(":")[0] for fault in found] == [
            "condition[0].Modalty",
            "condition[1]",
            "condition[2].tag",
        ]

    def test_what_names_no_attribute_is_one_fault(self) -> None:
        """Another one, about an Attribute that nobody named, would send people looking for it."""
        for condition in (
            {"type": "tag_equals", "tag": "Modalty", "value": 1},
            {"type": "tag_equals", "tag": "Modality", "other": "Modalty"},
        ):
            (fault,) = faults_of(condition)
            assert "Modalty" in fault
        (fault,) = faults_of({"type": "tag_equals", "tag": "PatientID", "value": 1})
        assert "PatientID: needs text" in fault

    def test_depth_is_bounded(self) -> None:
        deep: Any = {"Modality": "CT"}
        for _ in range(40):
            deep = {"not": deep}
        assert any("nested deeper" in fault for fault in faults_of(deep))
        assert any("nested deeper" in fault for fault in faults_of("(" * 40 + "a" + ")" * 40))


@pytest.mark.parametrize(
    "condition",
    [
        'StudyDescription matches "^(a+)+$"',
        'StudyDescription matches "(a|aa)*b"',
        'StudyDescription like "*a*a*a*a*a*a*a*a*a*a*b"',
    ],
)
def test_a_catastrophic_pattern_takes_no_time(condition: str) -> None:
    """A backtracking engine needs longer than the universe is old: then this never ends."""
    assert not holds(condition, {"StudyDescription": "a" * 5_000 + "!"})
