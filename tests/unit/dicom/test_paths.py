"""Attribute paths as people write them."""

from __future__ import annotations

import pytest

from shared.dicom.paths import AttributePath, UnknownAttributeError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("PatientID", "PatientID"),
        ("(0010,0020)", "PatientID"),
        ("(0x0010,0x0020)", "PatientID"),
        ("00100020", "PatientID"),
        ("0010,0020", "PatientID"),
        (" (0010, 0020) ", "PatientID"),
        ("(0009,1001)", "(0009,1001)"),
        ("(6002,3000)", "(6002,3000)"),
        ("(00fe,dcba)", "(00FE,DCBA)"),
        ('(0031,"CREATOR",20)', '(0031,"CREATOR",20)'),
        ('(0x0031, "TWO WORDS", 0xfe)', '(0031,"TWO WORDS",FE)'),
        ("(0040,0275)[0].(0040,0009)", "RequestAttributesSequence[0].ScheduledProcedureStepID"),
        ("RequestAttributesSequence[*].00080050", "RequestAttributesSequence[*].AccessionNumber"),
        ('(0031,"A",20)[1].(0031,"B",2F)', '(0031,"A",20)[1].(0031,"B",2F)'),
    ],
)
def test_paths_are_read_and_have_one_canonical_text(text: str, canonical: str) -> None:
    path = AttributePath.parse(text)
    assert str(path) == canonical
    assert AttributePath.parse(canonical) == path
    assert hash(AttributePath.parse(canonical)) == hash(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[0]",
        "PatientID.",
        "PatientID[",
        "PatientID[-1].StudyDate",
        "RequestAttributesSequence[0]",
        "RequestAttributesSequence.AccessionNumber",
        "(0010,002)",
        '(0030,"CREATOR",20)',
        '(0031,"",20)',
        "0010 0020",
        "PatientID\nStudyDate",
    ],
)
def test_what_names_no_attribute_is_refused(text: str) -> None:
    with pytest.raises(UnknownAttributeError):
        AttributePath.parse(text)


def test_a_misspelt_keyword_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownAttributeError, match="did you mean PatientName") as caught:
        AttributePath.parse("PatientsName")
    assert caught.value.nearest == "PatientName"
