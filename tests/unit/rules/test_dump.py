"""A tag dump that is pasted stands for the Instance it was made of."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from shared.dicom.header import Header
from shared.rules.dump import DumpError, read_dump

DCMDUMP = r"""
# Dicom-File-Format

# Dicom-Meta-Information-Header
# Used TransferSyntax: Little Endian Explicit
(0002,0000) UL 192                                      #   4, 1 FileMetaInformationGroupLength
(0002,0010) UI =JPEGBaseline                            #  22, 1 TransferSyntaxUID

# Dicom-Data-Set
# Used TransferSyntax: JPEG Baseline
(0008,0005) CS [ISO_IR 100]                             #  10, 1 SpecificCharacterSet
(0008,0008) CS [ORIGINAL\PRIMARY]                       #  16, 2 ImageType
(0008,0016) UI =CTImageStorage                          #  26, 1 SOPClassUID
(0008,0050) SH (no value available)                     #   0, 0 AccessionNumber
(0008,1030) LO [a description that goes on and on and ...#  80, 1 StudyDescription
(0009,0010) LO [ACME]                                   #   4, 1 PrivateCreator
(0009,1010) OB 53\56\31\30                              #   4, 1 Unknown Tag & Data
(0010,1002) SQ (Sequence with explicit length #=2)      #  72, 1 OtherPatientIDsSequence
  (fffe,e000) na (Item with explicit length #=2)          #  28, 1 Item
    (0010,0020) LO [A # 1, 1 B]                             #   8, 1 PatientID
  (fffe,e00d) na (ItemDelimitationItem for re-encoding)   #   0, 0 ItemDelimitationItem
  (fffe,e000) na (Item with explicit length #=0)          #   0, 1 Item
  (fffe,e00d) na (ItemDelimitationItem for re-encoding)   #   0, 0 ItemDelimitationItem
(fffe,e0dd) na (SequenceDelimitationItem for re-encod.) #   0, 0 SequenceDelimitationItem
(0010,4000) LT [first line
second line]                                            #  22, 1 PatientComments
(0018,9305) FD 0.5                                      #   8, 1 RevolutionTime
(0028,0010) US 512                                      #   2, 1 Rows
(0028,0009) AT (0018,1063)                              #   4, 1 FrameIncrementPointer
(7fe0,0010) OB (PixelSequence #=2)                      # u/l, 1 PixelData
  (fffe,e000) pi (no value available)                     #   0, 1 Item
  (fffe,e000) pi ff\d8\ff                                 #   4, 1 Item
(fffe,e0dd) na (SequenceDelimitationItem)               #   0, 0 SequenceDelimitationItem
(fffc,fffc) OB 00                                       #   2, 1 DataSetTrailingPadding
"""


def test_the_text_of_dcmdump_is_read() -> None:
    dumped = read_dump(DCMDUMP)
    header = dumped.header
    assert dumped.transfer_syntax_uid == "1.2.840.10008.1.2.4.50"
    assert header.values("ImageType") == ("ORIGINAL", "PRIMARY")
    assert header.text("SOPClassUID") == "1.2.840.10008.5.1.4.1.1.2"
    assert header.values("AccessionNumber") == ()
    assert header.values('(0009,"ACME",10)') == (b"SV10",)
    assert header.text("OtherPatientIDsSequence[0].PatientID") == "A # 1, 1 B"
    element = header.element("OtherPatientIDsSequence")
    assert element is not None
    assert len(element.items or ()) == 2
    assert header.text("PatientComments") == "first line\nsecond line"
    assert header.values("RevolutionTime") == (0.5,)
    assert header.values("Rows") == (512,)
    assert header.text("FrameIncrementPointer") == "(0018,1063)"
    assert "PixelData" not in header
    assert dumped.warnings == ("(0008,1030): its Value is cut short; dcmdump +L shows it whole",)


@pytest.mark.peer("dcmtk")
@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmdump is not installed")
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "JPEG2000.dcm"])
def test_what_dcmdump_says_of_a_file_is_what_we_read_in_it(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    done = subprocess.run(["dcmdump", "+L", str(path)], capture_output=True, check=True)
    data = path.read_bytes()
    assert_equal(Header.parse(data, file_size=len(data)), read_dump(done.stdout.decode()).header)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm"])
def test_dicom_json_is_read(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    data = path.read_bytes()
    header = Header.parse(data, file_size=len(data))
    for dump in (dataset.to_json(), dataset.to_json_dict(), [dataset.to_json_dict()]):
        assert_equal(header, read_dump(dump).header, textual_numbers=False)


def test_json_may_name_attributes_by_keyword() -> None:
    header = read_dump('{"Modality": "CT", "ImageType": ["A", "B"], "(0028,0010)": 512}').header
    assert header.text("Modality") == "CT"
    assert header.values("ImageType") == ("A", "B")
    assert header.values("Rows") == (512,)


def assert_equal(expected: Header, found: Header, *, textual_numbers: bool = True) -> None:
    for path, element in expected.walk():
        if element.vr == "SQ" or not path.last.tag & 0xFFFF or str(path) == "SpecificCharacterSet":
            continue
        if not textual_numbers and element.vr in ("DS", "IS"):
            numbers = [map(float, header.values(path) or ()) for header in (expected, found)]
            assert list(numbers[0]) == list(numbers[1]), path
        else:
            assert found.values(path) == expected.values(path), path


@pytest.mark.parametrize(
    ("dump", "reason"),
    [
        ("", "no Attributes"),
        ("hello", "line 1 is none of dcmdump"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ([{}, {}], "2 data sets"),
        (["x"], "no object"),
        ({"00080060": {"Value": ["CT"]}}, "00080060 has no VR"),
        ({"00280010": {"vr": "US", "Value": ["x"]}}, "is no number"),
        ({"00280010": {"vr": "US", "Value": [70_000]}}, "out of the range"),
        ({"Modalty": "CT"}, "Modality"),
    ],
)
def test_what_is_no_dump_is_said_without_quoting_it(dump: Any, reason: str) -> None:
    with pytest.raises(DumpError, match=reason):
        read_dump(dump)


@given(st.text(max_size=200) | st.lists(st.sampled_from(DCMDUMP.splitlines()), max_size=12))
def test_any_text_is_read_or_refused(text: str | list[str]) -> None:
    with contextlib.suppress(DumpError):
        read_dump(text if isinstance(text, str) else "\n".join(text))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["00080060", "00400275", "vr", "Value", "Modality", "7FE00010"]),
                inner | st.sampled_from(["SQ", "PN", "US", "OB", "AT"]),
                max_size=3,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(document: Any) -> None:
    with contextlib.suppress(DumpError):
        read_dump(json.dumps(document))
