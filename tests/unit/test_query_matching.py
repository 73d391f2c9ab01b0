"""Attribute matching of C-FIND (PS3.4 C.2.2.2), and identifiers that strangers send."""

from __future__ import annotations

from typing import Any

import pydicom.config
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from shared.dicom.matching import matches
from shared.dicom.query import (
    TRANSFER_SYNTAXES,
    Key,
    Level,
    MalformedIdentifierError,
    Query,
    _encode,
    encode_failed,
    encode_match,
)

LEVELS = tuple(Level)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Value", "vr", "Alphabetic", "00080100", "InlineBinary", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def unjudged_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the gateway's process."""
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)


@pytest.mark.parametrize(
    ("vr", "wanted", "shown", "fits"),
    [
        ("LO", "CT HEAD", "CT HEAD", True),
        ("LO", "CT head", "CT HEAD", False),
        ("LO", "CT*", "CT HEAD", True),
        ("LO", "*H?AD", "CT HEAD", True),
        ("LO", "CT?", "CT HEAD", False),
        ("LO", "[A-Z]*", "CT HEAD", False),
        ("UI", "1.2.*", "1.2.3", False),
        ("DA", "20240105", "20240105", True),
        ("DA", "2024.01.05", "20240105", True),
        ("DA", "20240101-20240131", "20240105", True),
        ("DA", "20240101-20240131", "20240201", False),
        ("DA", "20240106-", "20240105", False),
        ("DA", "-20240105", "20240105", True),
        ("TM", "1000-1100", "103000.123", True),
        ("TM", "1000-1100", "110059.999", True),
        ("TM", "1000-1100", "110100", False),
        ("TM", "10", "103000", True),
        ("DT", "20240105100000-20240105110000", "20240105103000.5", True),
        ("IS", "7", "07", True),
        ("IS", "7", "8", False),
        ("IS", "seven", "7", False),
        ("DS", "1.50", "1.5", True),
    ],
)
def test_a_value_fits_as_its_representation_says(
    vr: str, wanted: str, shown: str, fits: bool
) -> None:
    assert matches(Key("00081030", vr, (wanted,)), {"00081030": {"Value": [shown]}}) is fits


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("DOE^JOHN", True),
        ("doe^john", True),
        ("DOE^JOHN^^^", True),
        ("doe*", True),
        ("DOE", False),
        ("=ドウ*", True),
        ("DOE*=ドウ*", True),
        ("ROE*=ドウ*", False),
    ],
)
def test_names_fit_by_component_groups_and_without_case(wanted: str, fits: bool) -> None:
    name = {"Alphabetic": "Doe^John", "Ideographic": "ドウ^ジョン"}
    assert matches(Key("00100010", "PN", (wanted,)), {"00100010": {"Value": [name]}}) is fits


def test_one_of_several_uids_is_enough() -> None:
    key = Key("0020000D", "UI", ("1.2", "1.3"))
    assert matches(key, {"0020000D": {"Value": ["1.3"]}}) is True
    assert matches(key, {"0020000D": {"Value": ["1.4"]}}) is False


def test_what_is_not_shown_cannot_be_matched() -> None:
    assert matches(Key("00080080", "LO", ("A",)), {}) is None
    assert matches(Key("00080080", "LO", ("*",)), {}) is True
    assert matches(Key("00080080", "LO"), {}) is True


def test_one_item_of_a_sequence_has_to_fit_all_keys() -> None:
    wanted = ((Key("00080100", "SH", ("A",)), Key("00080102", "SH", ("DCM",))),)
    key = Key("00081032", "SQ", items=wanted)

    def shown(*codes: tuple[str, str]) -> dict[str, Any]:
        items = [
            {"00080100": {"Value": [value]}, "00080102": {"Value": [scheme]}}
            for value, scheme in codes
        ]
        return {"00081032": {"vr": "SQ", "Value": items}}

    assert matches(key, shown(("B", "DCM"), ("A", "DCM"))) is True
    assert matches(key, shown(("A", "99X"), ("B", "DCM"))) is False


def test_a_pattern_of_stars_takes_no_time_to_speak_of() -> None:
    key = Key("00081030", "LO", ("*a" * 30 + "b",))
    assert matches(key, {"00081030": {"Value": ["a" * 5000]}}) is False


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_an_identifier_is_read_as_it_was_written(syntax: str) -> None:
    sent = Dataset()
    sent.SpecificCharacterSet = "ISO_IR 192"
    sent.QueryRetrieveLevel = "STUDY"
    sent.PatientName = "Mü*"
    sent.StudyInstanceUID = ["1.2", "1.3"]
    sent.NumberOfStudyRelatedInstances = None
    query = Query.parse(_encode(sent, syntax), syntax, LEVELS)
    assert query.level is Level.STUDY
    assert query.uids("0020000D") == ("1.2", "1.3")
    name = query.key("00100010")
    assert name is not None
    assert name.values == ("Mü*",)
    number = query.key("00201208")
    assert number is not None
    assert number.is_universal


def test_a_level_that_the_model_lacks_is_refused() -> None:
    sent = Dataset()
    sent.QueryRetrieveLevel = "PATIENT"
    data = _encode(sent, TRANSFER_SYNTAXES[0])
    with pytest.raises(MalformedIdentifierError):
        Query.parse(data, TRANSFER_SYNTAXES[0], (Level.STUDY,))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(TRANSFER_SYNTAXES), st.data())
def test_whatever_a_stranger_sends_is_read_or_refused(
    noise: bytes, syntax: str, data: st.DataObject
) -> None:
    sent = Dataset()
    sent.QueryRetrieveLevel = "IMAGE"
    sent.PatientName = "A"
    sent.ReferencedStudySequence = [Dataset()]
    whole = bytearray(_encode(sent, syntax))
    at = data.draw(st.integers(0, len(whole)))
    whole[at : at + data.draw(st.integers(0, 8))] = noise
    try:
        query = Query.parse(bytes(whole), syntax, LEVELS)
    except MalformedIdentifierError:
        return
    found = {key.tag: {"Value": ["1"]} for key in query.keys}
    for key in query.keys:
        matches(key, found)
    encode_match(query, found, syntax, retrieve_ae_title="AXIOM")


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=80, deadline=None)
@given(JSON, st.sampled_from(["PN", "DA", "IS", "DS", "US", "FD", "SQ", "UI", "LO", "OB", "AT"]))
def test_whatever_a_store_shows_is_matched_and_answered(shown: Any, vr: str) -> None:
    inner = ((Key("00080100", "SH", ("x",)),),) if vr == "SQ" else ()
    key = Key("00081032", vr, ("1",) if vr != "SQ" else (), inner)
    query = Query(Level.STUDY, (key,))
    for found in ({"00081032": shown}, {"00081032": {"vr": vr, "Value": shown}}):
        matches(key, found)
        answer = encode_match(query, found, TRANSFER_SYNTAXES[0], retrieve_ae_title="AXIOM")
        assert Query.parse(answer, TRANSFER_SYNTAXES[0], LEVELS).key("00081032") is not None


def test_failures_are_listed_as_far_as_they_can_be_told() -> None:
    syntax = TRANSFER_SYNTAXES[0]
    assert encode_failed(["1.2.3"] * 5000, syntax)
