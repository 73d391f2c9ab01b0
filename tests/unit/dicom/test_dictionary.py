"""The data dictionary, and that it costs no import of pydicom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydicom._dicom_dict import DicomDictionary

from shared.dicom import dictionary


@pytest.mark.parametrize(
    ("tag", "keyword", "vr"),
    [
        (0x00100010, "PatientName", "PN"),
        (0x00280106, "SmallestImagePixelValue", "US or SS"),
        (0x7FE00010, "PixelData", "OB or OW"),
        (0x04000561, "OriginalAttributesSequence", "SQ"),
    ],
)
def test_attributes_of_the_standard(tag: int, keyword: str, vr: str) -> None:
    assert dictionary.keyword_for_tag(tag) == keyword
    assert dictionary.tag_for_keyword(keyword) == tag
    assert dictionary.vr_for_tag(tag) == vr


def test_a_repeating_group_has_an_entry_but_no_keyword_of_its_own() -> None:
    """OverlayData names sixteen tags, so a path must say which."""
    entry = dictionary.entry_for_tag(0x60023000)
    assert entry is not None
    assert (entry.keyword, entry.vr) == ("OverlayData", "OB or OW")
    assert dictionary.keyword_for_tag(0x60023000) is None
    assert dictionary.tag_for_keyword("OverlayData") is None


def test_every_group_has_a_length() -> None:
    assert dictionary.vr_for_tag(0x00090000) == "UL"


def test_what_nobody_knows() -> None:
    assert dictionary.vr_for_tag(0x00080FFF) is None
    assert dictionary.entry_for_tag(0x00091001) is None
    assert dictionary.tag_for_keyword("NoSuchKeyword") is None
    assert dictionary.nearest_keyword("qqqqqqqqqq") is None
    assert dictionary.private_vr("NOBODY", 0x00091001) is None


def test_private_attributes_are_known_in_any_block() -> None:
    assert dictionary.private_vr("GEMS_ACQU_01", 0x001910E2) == "DS"
    assert dictionary.private_vr("GEMS_ACQU_01", 0x001922E2) == "DS"


def test_it_is_all_that_pydicom_has() -> None:
    """The tables are read by their place in pydicom: this fails when they move."""
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        assert dictionary.vr_for_tag(tag) == vr
        assert dictionary.keyword_for_tag(tag) == (keyword or None)


def test_editing_imports_neither_pydicom_nor_numpy() -> None:
    """A stage starts in milliseconds because of it."""
    program = (
        "import sys\n"
        "from shared.dicom import edit, original_attributes, paths\n"
        "paths.AttributePath.parse('PatientID')\n"
        "sys.exit(any(name in sys.modules for name in ('pydicom', 'numpy')))\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, check=False, timeout=60)
    assert done.returncode == 0
