"""Audit messages of DICOM (PS3.15 A.5): who saw and changed what, for an audit repository."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from shared.pipeline.audit_message import audit_message

ENTRY: dict[str, Any] = {
    "who": "ada (session)",
    "when": "2026-11-21T10:00:00.000000Z",
    "what": "instances.read",
    "id": "receipt-1",
    "before": "",
    "after": "",
    "reason": "",
    "address": "10.1.2.3",
    "purpose": "a second opinion",
    "study_instance_uid": "1.2.3",
}


def read(**changes: Any) -> ElementTree.Element:
    text = audit_message({**ENTRY, **changes})
    assert "\n" not in text
    return ElementTree.fromstring(text)


def test_tells_who_saw_which_study_and_why() -> None:
    message = read()
    event = message.find("EventIdentification")
    assert event is not None
    assert (event.get("EventActionCode"), event.get("EventOutcomeIndicator")) == ("R", "0")
    code = event.find("EventID")
    assert code is not None
    assert (code.get("csd-code"), code.get("codeSystemName")) == ("110103", "DCM")
    who = message.find("ActiveParticipant")
    assert who is not None
    assert (who.get("UserID"), who.get("NetworkAccessPointID")) == ("ada (session)", "10.1.2.3")
    objects = {
        found.get("ParticipantObjectID"): found.get("ParticipantObjectTypeCodeRole")
        for found in message.findall("ParticipantObjectIdentification")
    }
    assert objects == {"1.2.3": "3", "receipt-1": "3"}
    purpose = event.find("PurposeOfUse")
    assert purpose is not None
    assert purpose.get("originalText") == "a second opinion"


@pytest.mark.parametrize(
    ("what", "event", "kind", "action"),
    [
        ("configuration.change", "110113", "110131", "U"),
        ("keys.create", "110113", "110137", "C"),
        ("roles.delete", "110113", "110136", "D"),
        ("audit.export", "110101", None, "R"),
        ("exceptions.retry", "110100", None, "E"),
        ("associations.refuse", "110114", "110122", "E"),
    ],
)
def test_tells_what_kind_of_event_it_was(
    what: str, event: str, kind: str | None, action: str
) -> None:
    found = read(what=what).find("EventIdentification")
    assert found is not None
    codes = {child.tag: child.get("csd-code") for child in found}
    assert (codes["EventID"], codes.get("EventTypeCode")) == (event, kind)
    assert found.get("EventActionCode") == action
    assert found.get("EventOutcomeIndicator") == ("4" if what.endswith(".refuse") else "0")


def test_is_one_line_whatever_is_in_it() -> None:
    message = read(purpose="<a>&\n\u20ac", who='"quoted"\r\n')
    who = message.find("ActiveParticipant")
    assert who is not None
    assert who.get("UserID") == '"quoted"\r\n'
