"""Measure reading a header and ten Values of it against pydicom, on a real CT; and rewriting it.

Rewriting changes five tags of a synthetic Instance, from one file to another, without a sync:
against a plain copy by the kernel, and against what pydicom's documentation shows.
"""

from __future__ import annotations

import io
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.data import get_testdata_file

from infra.local.benches import median_ratio
from infra.local.benching import programs
from infra.local.benching.instances import synthetic_ct, synthetic_multi_frame
from shared.adapters.destinations.file_copy import append_range
from shared.dicom.edit import HeaderEdit
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


_SMALL_FILES = 25
_REWRITING_ROUNDS = 10

Rewrite = Callable[[Path, Path], None]


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
        **_rewriting(rounds),
    }


def _rewriting(rounds: int) -> dict[str, float]:
    """Medians in milliseconds for a file, and ratios: a way rewrites all files, then the next."""
    values: dict[str, float] = {}
    with programs.work_folder(on_disk=True) as folder:
        small = synthetic_ct(folder / "ct", _SMALL_FILES)
        large = [synthetic_multi_frame(folder / "large.dcm", 50)]
        for name, paths in (("small", small), ("large", large)):
            ways = {"copy": _copy, "ours": _rewrite}
            if name == "small":
                ways["pydicom"] = _rewrite_by_pydicom
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(min(rounds, _REWRITING_ROUNDS)):
                for way, rewrite in ways.items():
                    times[way].append(_one_by_one(rewrite, paths, folder / way))
            for way, each in times.items():
                values[f"rewrite_{name}_{way}_ms"] = statistics.median(each)
            values[f"rewrite_{name}_vs_copy"] = median_ratio(times["ours"], times["copy"])
            if name == "small":
                values["rewrite_small_vs_pydicom"] = median_ratio(times["pydicom"], times["ours"])
    return values


def _one_by_one(rewrite: Rewrite, paths: Sequence[Path], target: Path) -> float:
    """Milliseconds for a file; to forget the one before is nobody's work."""
    spent_s = 0.0
    for path in paths:
        began_s = time.perf_counter()
        rewrite(path, target)
        spent_s += time.perf_counter() - began_s
        target.unlink()
    return spent_s / len(paths) * 1e3


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as received, target.open("xb") as written:
        offset = 0
        while sent := os.sendfile(written.fileno(), received.fileno(), offset, 1 << 30):
            offset += sent


def _rewrite(source: Path, target: Path) -> None:
    with source.open("rb", buffering=0) as received, target.open("xb", buffering=0) as written:
        header = Header.parse(received.read(65536))
        edit = HeaderEdit(header)
        edit.set("PatientName", ["ANON^ONE"], by="bench")
        edit.set("PatientID", ["ANON1"], by="bench")
        edit.set("InstitutionName", ["ELSEWHERE"], by="bench")
        edit.delete("PatientBirthDate", by="bench")
        edit.set("ClinicalTrialSponsorName", ["BENCH"], by="bench")
        size = os.fstat(received.fileno()).st_size
        start = header.body_offset
        head = edit.header().data
        append_range(received.fileno(), start, size - start, written.fileno(), head)


def _rewrite_by_pydicom(source: Path, target: Path) -> None:
    dataset = dcmread(source)
    dataset.PatientName, dataset.PatientID = "ANON^ONE", "ANON1"
    dataset.InstitutionName = "ELSEWHERE"
    del dataset.PatientBirthDate
    dataset.ClinicalTrialSponsorName = "BENCH"
    dataset.save_as(target)
