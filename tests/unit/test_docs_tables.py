"""Tables in the documentation are what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from shared import crash_points
from shared.config.entities import Settings
from shared.dicom.validation import DEFAULT_SEVERITIES

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_finding_of_validation_is_listed_with_its_default() -> None:
    text = (DOCS / "receiving.md").read_text()
    listed = dict(re.findall(r"^\| `([a-z-]+)` \| (reject|warn|ignore) \|", text, re.MULTILINE))
    assert listed == {code: str(severity) for code, severity in DEFAULT_SEVERITIES.items()}


def test_every_setting_is_listed() -> None:
    text = (DOCS / "configuration.md").read_text()
    settings = text.split("## Settings")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", settings, re.MULTILINE)) == set(Settings.model_fields)


def test_every_crash_point_is_listed() -> None:
    text = (DOCS / "reliability.md").read_text()
    assert set(re.findall(r"^\| `(after-[a-z-]+)` \|", text, re.MULTILINE)) == set(
        crash_points.NAMES
    )
