"""Entries of the audit log as audit messages of DICOM (PS3.15 2024e A.5), for repositories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from xml.etree import ElementTree

# Event ID and, of a security alert, its type (PS3.16 CID 400 and 403), by how `what` begins; the
# first that fits counts.
_EVENTS: Final = (
    ("instances.read", "110103", "DICOM Instances Accessed", "", ""),
    ("instances.explain", "110103", "DICOM Instances Accessed", "", ""),
    ("crosswalks.lookup", "110112", "Query", "", ""),
    ("data-browser.query", "110112", "Query", "", ""),
    ("data-browser.show", "110103", "DICOM Instances Accessed", "", ""),
    ("audit.", "110101", "Audit Log Used", "", ""),
    ("roles.", "110113", "Security Alert", "110136", "Security Roles Changed"),
    ("users.", "110113", "Security Alert", "110137", "User Security Attributes Changed"),
    ("keys.", "110113", "Security Alert", "110137", "User Security Attributes Changed"),
    ("associations.refuse", "110114", "User Authentication", "110122", "Login"),
    ("configuration.", "110113", "Security Alert", "110131", "Software Configuration"),
    ("", "110100", "Application Activity", "", ""),
)
_ACTIONS: Final = {
    "create": "C",
    "read": "R",
    "explain": "R",
    "lookup": "R",
    "show": "R",
    "export": "R",
    "change": "U",
    "replace": "U",
    "rotate": "U",
    "delete": "D",
    "revoke": "D",
}
_EXECUTE: Final = "E"
_SUCCESS, _MINOR_FAILURE = "0", "4"
_STUDY: Final = ("110180", "Study Instance UID")
_SYSTEM_OBJECT: Final = ("2", "3")  # type and role: system object, report
_STUDY_ROLES: Final = ("2", "3")


def audit_message(entry: Mapping[str, Any], source: str = "axiom-flow") -> str:
    """One entry as one `AuditMessage` on one line. It holds no patient's Values, as the entry."""
    what = str(entry["what"])
    _, event, meaning, kind, kind_meaning = next(e for e in _EVENTS if what.startswith(e[0]))
    root = ElementTree.Element("AuditMessage")
    identification = ElementTree.SubElement(
        root,
        "EventIdentification",
        {
            "EventActionCode": _ACTIONS.get(what.rpartition(".")[2], _EXECUTE),
            "EventDateTime": str(entry["when"]),
            "EventOutcomeIndicator": _MINOR_FAILURE if what.endswith(".refuse") else _SUCCESS,
        },
    )
    _code(identification, "EventID", event, meaning)
    if kind:
        _code(identification, "EventTypeCode", kind, kind_meaning)
    if entry.get("purpose"):
        _code(identification, "PurposeOfUse", "purpose", str(entry["purpose"]), system="axiom-flow")
    participant = {"UserID": str(entry["who"]), "UserIsRequestor": "true"}
    if entry.get("address"):
        participant |= {
            "NetworkAccessPointID": str(entry["address"]),
            "NetworkAccessPointTypeCode": "2",  # an IP address
        }
    ElementTree.SubElement(root, "ActiveParticipant", participant)
    ElementTree.SubElement(root, "AuditSourceIdentification", {"AuditSourceID": source})
    shown = entry.get("study_instance_uids") or [entry.get("study_instance_uid")]
    for study in filter(None, shown):
        _object(root, str(study), _STUDY_ROLES, *_STUDY, "DCM")
    _object(root, str(entry["id"]), _SYSTEM_OBJECT, what, what, "axiom-flow")
    text: str = ElementTree.tostring(root, encoding="unicode")
    return text.replace("\n", "&#10;")


def _object(
    root: ElementTree.Element, id: str, kind: tuple[str, str], code: str, meaning: str, system: str
) -> None:
    found = ElementTree.SubElement(
        root,
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": id,
            "ParticipantObjectTypeCode": kind[0],
            "ParticipantObjectTypeCodeRole": kind[1],
        },
    )
    _code(found, "ParticipantObjectIDTypeCode", code, meaning, system=system)


def _code(
    parent: ElementTree.Element, name: str, code: str, meaning: str, *, system: str = "DCM"
) -> None:
    ElementTree.SubElement(
        parent, name, {"csd-code": code, "codeSystemName": system, "originalText": meaning}
    )
