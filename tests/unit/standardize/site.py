"""A site that standardises Body Part Examined and routes by it, in one process."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pydicom

from shared.dicom.validation import DEFAULT_SEVERITIES
from shared.messages import Receipt
from tests.data import build
from tests.unit.operating import System
from tests.unit.rules.whole_system import part10

STANDARDIZER: dict[str, Any] = {"name": "body-parts", "attributes": ["BodyPartExamined"]}
ROUTES: dict[str, Any] = {
    "name": "routes",
    "execution_mode": "ALL_MATCHES",
    "rules": [
        {
            "name": "terms",
            "conditions": [{"type": "tag_not_equals", "tag": "Modality", "value": "SR"}],
            "actions": [{"type": "standardize", "standardizer": "body-parts"}],
        },
        {
            "name": "spine",
            "conditions": [
                {"type": "tag_equals", "tag": "BodyPartExamined", "value": "TSPINE"},
            ],
            "storage_backends": ["spare"],
        },
    ],
}


def configure(
    system: System,
    standardizer: Mapping[str, Any] | None = None,
    ruleset: Mapping[str, Any] = ROUTES,
    **more: Any,
) -> None:
    """Have the site use this standardizer."""
    entity = {**STANDARDIZER, **(standardizer or {})}
    settings = {
        "min_free_bytes": 0,
        "default_route": ["pacs"],
        "validation": dict.fromkeys(DEFAULT_SEVERITIES, "ignore"),
    }
    document = {
        "settings": settings,
        "standardizers": [entity],
        "rulesets": [dict(ruleset)],
        **more,
    }
    system.ports.configuration.apply(document, by="test")


def image(number: int = 0, *, series: str = "series", **attributes: Any) -> bytes:
    """A CT Instance of the thoracic spine, whose Body Part Examined is what somebody typed."""
    usual = {
        "Modality": "CT",
        "BodyPartExamined": "BWS",
        "SeriesDescription": "BWS sag",
        "SOPInstanceUID": build.uid(f"instance {series} {number}"),
        "SeriesInstanceUID": build.uid(series),
        "PatientName": "Miller^Jane",
        "PatientID": "P-4711",
    }
    return part10({**usual, **attributes}, number)


def send(system: System, *files: bytes) -> list[Receipt]:
    """Receive the files, and work until nothing is left to do."""
    receipts = [system.receive(data) for data in files]
    system.pump()
    return receipts


def delivered(system: System, receipt: Receipt, peer: str = "spare") -> pydicom.Dataset:
    """What a destination has of an Instance."""
    data = system.peers[peer].stored[receipt.sop_instance_uid]
    return pydicom.dcmread(io.BytesIO(data))
