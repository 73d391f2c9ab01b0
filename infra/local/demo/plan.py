"""What the demo sends, what its rules are, and what must come of it.

The files ship inside the pydicom wheel. The expectations are written down here, apart from the
rules, so that the demo cannot agree with itself about something wrong.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARCHIVE, PACS, WEB = "archive", "pacs", "web"
PACS_AE_TITLE = "DEMO_PACS"

# The name of a file that is no DICOM at all; the others are pydicom's.
TEXT_FILE = "notes.txt"
_TEXT = b"Not everything that reaches a router is DICOM.\n" * 20

RULESET: Mapping[str, Any] = {
    "name": "demo",
    "execution_mode": "ALL_MATCHES",
    "rules": [
        {
            "name": "ct-everywhere",
            "conditions": [
                {"type": "tag_equals", "tag": "(0x0008,0x0060)", "value": "CT"},
                {"type": "tag_contains", "tag": "InstitutionName", "value": "JFK"},
            ],
            "actions": [
                {"type": "set", "tag": "SeriesDescription", "value": "CT - ROUTED BY AXIOM FLOW"},
                {"type": "prepend", "tag": "PatientID", "value": "JFK-"},
            ],
            "storage_backends": [ARCHIVE, PACS, WEB],
        },
        {
            "name": "mr-to-pacs",
            "conditions": [{"type": "tag_equals", "tag": "Modality", "value": "MR"}],
            "actions": [{"type": "set", "tag": "StationName", "value": "MR-1"}],
            "storage_backends": [ARCHIVE, PACS],
        },
        {
            "name": "bone-scans",
            "conditions": [
                {"type": "tag_contains", "tag": "StudyDescription", "value": "Bone"},
            ],
            "actions": [
                {
                    "type": "regex_replace",
                    "tag": "InstitutionName",
                    "pattern": "[0-9]+$",
                    "replacement": "(main site)",
                }
            ],
            "storage_backends": [PACS, WEB],
        },
    ],
}


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One file, how it is sent, and what must become of it."""

    file: str
    sent_by: str  # "C-STORE" or "STOW-RS"
    rules: tuple[str, ...] = ()
    changes: Mapping[str, str] = field(default_factory=dict)  # keyword: new value
    destinations: tuple[str, ...] = ()
    refused_as: tuple[str, ...] = ()  # codes of which the exception log must have one


EXHIBITS = (
    Exhibit(
        "CT_small.dcm",
        "C-STORE",
        ("demo/ct-everywhere",),
        {"SeriesDescription": "CT - ROUTED BY AXIOM FLOW", "PatientID": "JFK-1CT1"},
        (ARCHIVE, PACS, WEB),
    ),
    Exhibit(
        "MR_small.dcm", "C-STORE", ("demo/mr-to-pacs",), {"StationName": "MR-1"}, (ARCHIVE, PACS)
    ),
    Exhibit(
        "JPEG2000.dcm",
        "C-STORE",
        ("demo/bone-scans",),
        {"InstitutionName": "Hospital Name (main site)"},
        (PACS, WEB),
    ),
    # No rule is for it: it takes the default route as it is.
    Exhibit("SC_rgb_rle.dcm", "STOW-RS", destinations=(ARCHIVE,)),
    Exhibit("rtplan_truncated.dcm", "C-STORE", refused_as=("truncated", "malformed-header")),
    Exhibit(TEXT_FILE, "STOW-RS", refused_as=("not-dicom",)),
)


def write_exhibits(folder: Path) -> dict[str, Path]:
    """Put the files into `folder`; returns where each is."""
    folder.mkdir(parents=True)
    paths = {}
    for exhibit in EXHIBITS:
        path = paths[exhibit.file] = folder / exhibit.file
        path.write_bytes(_TEXT if exhibit.file == TEXT_FILE else _shipped(exhibit.file))
    return paths


def _shipped(name: str) -> bytes:
    package = importlib.util.find_spec("pydicom")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(package.submodule_search_locations[0])
    return (folder / "data" / "test_files" / name).read_bytes()
