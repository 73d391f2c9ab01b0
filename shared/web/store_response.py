"""The Store Instances Response Module (PS3.18 Annex I), as DICOM JSON and Native DICOM Model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from shared.errors import AxiomError
from shared.refusals import comment_on, refusal_for

_NATIVE_MODEL = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
# Tag: VR and keyword (PS3.6).
_ATTRIBUTES = {
    # Beside the numbers of the Standard, what an operator understands.
    "00000902": ("LO", "ErrorComment"),
    "00081150": ("UI", "ReferencedSOPClassUID"),
    "00081155": ("UI", "ReferencedSOPInstanceUID"),
    "00081190": ("UR", "RetrieveURL"),
    "00081197": ("US", "FailureReason"),
    "00081198": ("SQ", "FailedSOPSequence"),
    "00081199": ("SQ", "ReferencedSOPSequence"),
    "0008119A": ("SQ", "OtherFailuresSequence"),
}

DataSet = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """An Instance that was accepted."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class FailedInstance:
    """An Instance, or what was sent in the place of one, that was not. UIDs are "" if unknown."""

    error: AxiomError
    sop_class_uid: str = ""
    sop_instance_uid: str = ""

    @property
    def failure_reason(self) -> int:
        """Failure Reason (0008,1197)."""
        return refusal_for(self.error)


def store_response(stored: Sequence[StoredInstance], failed: Sequence[FailedInstance]) -> DataSet:
    """The module as DICOM JSON.

    Retrieve URLs (Type 2) are empty: a router has the Instances go elsewhere, and serves none.
    """
    no_url = {"00081190": _attribute("00081190", ())}
    response: dict[str, Mapping[str, Any]] = {**no_url}
    known = [failure for failure in failed if failure.sop_instance_uid and failure.sop_class_uid]
    other = [failure for failure in failed if failure not in known]
    if known:
        items = [
            _reference(failure.sop_class_uid, failure.sop_instance_uid) | _reason(failure)
            for failure in known
        ]
        response["00081198"] = _attribute("00081198", items)
    if stored:
        items = [
            _reference(instance.sop_class_uid, instance.sop_instance_uid) | no_url
            for instance in stored
        ]
        response["00081199"] = _attribute("00081199", items)
    if other:
        response["0008119A"] = _attribute("0008119A", [_reason(failure) for failure in other])
    return response


def to_json(response: DataSet) -> bytes:
    """DICOM JSON Model (PS3.18 Annex F)."""
    return json.dumps(response, separators=(",", ":")).encode()


def to_xml(response: DataSet) -> bytes:
    """Native DICOM Model (PS3.19 A.1)."""
    ElementTree.register_namespace("", _NATIVE_MODEL)
    root = ElementTree.Element(f"{{{_NATIVE_MODEL}}}NativeDicomModel", {"xml:space": "preserve"})
    _append_attributes(root, response)
    encoded: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return encoded


def _attribute(tag: str, values: Sequence[object]) -> dict[str, Any]:
    vr = _ATTRIBUTES[tag][0]
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def _reference(sop_class_uid: str, sop_instance_uid: str) -> dict[str, Mapping[str, Any]]:
    return {
        "00081150": _attribute("00081150", [sop_class_uid]),
        "00081155": _attribute("00081155", [sop_instance_uid]),
    }


def _reason(failure: FailedInstance) -> dict[str, Mapping[str, Any]]:
    return {
        "00000902": _attribute("00000902", [comment_on(failure.error)]),
        "00081197": _attribute("00081197", [failure.failure_reason]),
    }


def _append_attributes(parent: ElementTree.Element, data_set: DataSet) -> None:
    for tag, attribute in data_set.items():
        vr, keyword = _ATTRIBUTES[tag]
        element = ElementTree.SubElement(
            parent,
            f"{{{_NATIVE_MODEL}}}DicomAttribute",
            {"tag": tag, "vr": vr, "keyword": keyword},
        )
        _append_values(element, vr, attribute.get("Value", ()))


def _append_values(element: ElementTree.Element, vr: str, values: Iterable[Any]) -> None:
    for number, value in enumerate(values, start=1):
        name = "Item" if vr == "SQ" else "Value"
        child = ElementTree.SubElement(
            element, f"{{{_NATIVE_MODEL}}}{name}", {"number": str(number)}
        )
        if vr == "SQ":
            _append_attributes(child, value)
        else:
            child.text = str(value)
