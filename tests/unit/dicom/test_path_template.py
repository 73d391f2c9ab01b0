"""Paths made of Values that strangers sent."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.dicom.path_template import DEFAULT_TEMPLATE, PathTemplate, safe_name
from tests.data import build
from tests.unit.destinations.received import outgoing


def rendered(tmp_path: Path, template: str, patient_id: str | bytes) -> tuple[str, ...]:
    # UTF-8, so that any text is a Value.
    changes = {
        0x00080005: build.element(0x00080005, "CS", "ISO_IR 192"),
        build.PATIENT_ID: build.element(build.PATIENT_ID, "LO", patient_id),
    }
    return PathTemplate.parse(template).render(outgoing(tmp_path, build.ct(changes=changes)))


def test_the_default_is_study_series_instance(tmp_path: Path) -> None:
    instance = outgoing(tmp_path, build.ct())
    assert PathTemplate.parse(DEFAULT_TEMPLATE).render(instance) == (
        build.uid("study"),
        build.uid("ct-series"),
        build.uid("ct-1") + ".dcm",
    )


def test_attributes_can_be_named_by_tag_and_mixed_with_text(tmp_path: Path) -> None:
    instance = outgoing(tmp_path, build.ct())
    template = PathTemplate.parse("{(0008,0060)}-{calling_ae_title}/{receipt_id}_{SOPInstanceUID}")
    assert template.render(instance) == ("CT-SENDER", "receipt-1_" + build.uid("ct-1"))


def test_an_absent_or_empty_value_is_unknown(tmp_path: Path) -> None:
    assert rendered(tmp_path, "{PatientID}/{InstitutionName}.dcm", "") == ("unknown", "unknown.dcm")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("../../etc/passwd", "__.._etc_passwd"),
        ("..", "_"),
        (".", "_"),
        ("/absolute", "_absolute"),
        ("C:\\x", "C_x"),
        ("a\\b", "a_b"),
        ("CON", "_CON"),
        ("lpt1.txt", "_lpt1.txt"),
        (".hidden", "_hidden"),
        ("dots...", "dots_"),
        ("a\x00b\x1b[31m", "a_b_[31m"),
        ("e\u0301", "\u00e9"),
        ("invoice\u202egpj", "invoice_gpj"),
    ],
)
def test_a_value_cannot_lead_elsewhere(tmp_path: Path, value: str, name: str) -> None:
    assert safe_name(value) == name


def test_a_patient_id_with_a_path_in_it_is_one_name(tmp_path: Path) -> None:
    assert rendered(tmp_path, "{PatientID}/{SOPInstanceUID}", "../../../etc") == (
        "__.._.._etc",
        build.uid("ct-1"),
    )


def test_long_values_are_shortened_but_stay_apart(tmp_path: Path) -> None:
    one, other = (rendered(tmp_path, "{PatientID}.dcm", "x" * 200 + tail)[0] for tail in "ab")
    assert one != other
    assert len(one) <= 64 + len(".dcm")
    assert one.endswith(".dcm")


@given(st.text(max_size=400))
def test_whatever_the_text_the_name_is_one_safe_name(text: str) -> None:
    name = safe_name(text)
    assert PurePosixPath("/root", name).parent == PurePosixPath("/root")
    assert name not in ("", ".", "..")
    assert not set(name) & set('/\\\0:*?"<>|\n')
    assert len(name.encode()) <= 255
    assert safe_name(name) == name


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("/{PatientID}", "relative"),
        ("a//{PatientID}", "relative"),
        ("../{PatientID}", "not usable"),
        ("{PatientID}/..", "not usable"),
        ("{PatienID}", "PatientID"),
        ("{PatientID!r}", "no more"),
        ("{PatientID:>10}", "no more"),
        ("{PatientID", "expected '}'"),
        ("all.dcm", "no Attribute"),
        ("a\\{PatientID}", "backslash"),
        ("{}", "names no Attribute"),
        ("", "relative"),
    ],
)
def test_a_template_that_cannot_work_is_refused(template: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PathTemplate.parse(template)
