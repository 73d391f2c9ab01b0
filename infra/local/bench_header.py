"""Measure reading a header and ten Values of it against pydicom, on a real CT."""

from __future__ import annotations

import io
import statistics
import time
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.data import get_testdata_file

from infra.local.benches import median_ratio
from shared.dicom.header import Header

_KEYWORDS = (
    "PatientID",
    "PatientName",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "Modality",
    "StudyDescription",
    "InstitutionName",
    "StudyDate",
    "Rows",
)


def run(rounds: int) -> dict[str, Any]:
    """Medians in microseconds of a round each, taken in turns, and the median of their ratios."""
    data = Path(str(get_testdata_file("CT_small.dcm", download=False))).read_bytes()
    ours, theirs = [], []
    for _ in range(rounds):
        began_s = time.perf_counter()
        header = Header.parse(data)
        found = [header.text(keyword) for keyword in _KEYWORDS]
        between_s = time.perf_counter()
        dataset = dcmread(io.BytesIO(data), stop_before_pixels=True)
        expected = [str(dataset.get(keyword)) for keyword in _KEYWORDS]
        ours.append((between_s - began_s) * 1e6)
        theirs.append((time.perf_counter() - between_s) * 1e6)
        if found != expected:
            raise AssertionError("the two ways read different Values")
    return {
        "rounds": rounds,
        "ours_us": statistics.median(ours),
        "pydicom_us": statistics.median(theirs),
        "ratio_vs_pydicom": median_ratio(ours, theirs),
    }
