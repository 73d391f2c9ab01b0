"""What the header engine reads from real files is what pydicom reads."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue

from shared.dicom.data_set import DataSet
from shared.dicom.paths import format_tag
from shared.dicom.values import Value
from shared.errors import AxiomError, NotDicomError
from tests.unit.dicom.real_files import CORPUS, header_of, name_of, readable_files, real_files

# Where the two differ, and why ours is the one to keep.
PYDICOM_DIFFERS = {
    "fo-dicom/GH179A.dcm": "takes a VR of two spaces for Implicit VR and loses the rest",
    "fo-dicom/GH179B.dcm": "the same",
    "fo-dicom/GH626.dcm": "reads zeros after the data set, and Explicit VR as if it were Implicit",
    "fo-dicom/charset/chrGB2312.dcm": "leaves the escape sequences of ISO 2022 IR 58 in the text",
    "pydicom-data/emri_small_jpeg_2k_lossless_too_short.dcm": "gives up on cut Pixel Data",
}
REFUSED_BY_US = {
    "test_files/meta_missing_tsyntax.dcm": "without a Transfer Syntax nothing can be sent on",
    "test_files/rtplan_truncated.dcm": "a Data Element is cut short",
    "test_files/dicomdirtests/DICOMDIR-nooffset": "an Item runs past its Sequence",
    "pydicom/meta_missing_tsyntax.dcm": "as above",
    "pydicom/rtplan_truncated.dcm": "as above",
    "pydicom/dicomdirtests/DICOMDIR-nooffset": "as above",
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """These files are odd on purpose, and pydicom says so at length."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("path", readable_files(), ids=name_of)
def test_values_are_those_that_pydicom_reads(path: Path) -> None:
    if name_of(path) in PYDICOM_DIFFERS:
        pytest.skip(f"pydicom {PYDICOM_DIFFERS[name_of(path)]}")
    header = header_of(path)
    try:
        theirs = pydicom.dcmread(io.BytesIO(path.read_bytes()))
    except OSError as error:
        pytest.skip(f"pydicom cannot read it: {type(error).__name__}")
    assert list(differences(header.meta, theirs.file_meta)) == []
    assert list(differences(header.data_set, theirs)) == []


def test_what_pydicom_reads_and_we_refuse_is_known() -> None:
    readable = set(readable_files())
    refused = set()
    for path in real_files():
        if path in readable:
            continue
        with pytest.raises(AxiomError) as caught:
            list(header_of(path).walk())
        try:
            pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            assert isinstance(caught.value, NotDicomError)
        else:
            refused.add(name_of(path))
    assert refused <= set(REFUSED_BY_US)


def test_the_corpus_is_read() -> None:
    if not CORPUS.is_dir():
        pytest.skip("the corpus is not beside the repository")
    assert len(readable_files()) > 380


def differences(ours: DataSet, theirs: pydicom.Dataset, where: str = "") -> Iterator[str]:
    """A line for each Data Element that is not the same."""
    is_top_level = ours.parent is None
    tags = {int(tag) for tag in theirs.keys() if not is_top_level or tag < 0x7FE00008}  # noqa: SIM118
    for tag in set(ours.entries) ^ tags:
        if not (is_top_level and tag >= 0x7FE00008):
            yield f"{where}{format_tag(tag)} only one has it"
    for tag in set(ours.entries) & tags:
        name = where + format_tag(tag)
        if tag & 0x1FFFF == 0x10000:
            continue  # the group length of a private group is UL for us, UN for pydicom
        try:
            element = theirs[tag]
        except (AttributeError, NotImplementedError, KeyError):
            continue  # pydicom cannot settle the VR
        if ours.vr(tag) == "SQ" and element.VR == "SQ":
            items = ours.items(tag)
            if len(items) != len(element.value):
                yield f"{name} has {len(items)} Items, not {len(element.value)}"
                continue
            for position, (item, item_theirs) in enumerate(zip(items, element.value, strict=True)):
                yield from differences(item.data_set, item_theirs, f"{name}[{position}].")
        elif ours.vr(tag) == "SQ" or element.VR == "SQ":
            yield f"{name} is {ours.vr(tag)}, not {element.VR}"
        elif not are_equal(ours.values(tag), tuple(plain(element.value, element.VR))):
            yield f"{name} differs"


def plain(value: Any, vr: str) -> Iterable[Value]:
    """The value from pydicom as we give it."""
    if value is None or (hasattr(value, "__len__") and len(value) == 0):
        return
    values = list(value) if isinstance(value, MultiValue | list) else [value]
    if values == [""]:
        return
    for one in values:
        if vr in ("DS", "IS"):
            yield str(getattr(one, "original_string", one)).strip()
        elif vr == "AT":
            yield format_tag(int(one))
        elif isinstance(one, int | float | bytes):
            yield one
        else:
            yield str(one)


def are_equal(ours: tuple[Value, ...], theirs: tuple[Value, ...]) -> bool:
    """NaN is as good as NaN."""
    return len(ours) == len(theirs) and all(
        a == b or (a != a and b != b) for a, b in zip(ours, theirs, strict=True)
    )
