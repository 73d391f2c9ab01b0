"""The SOP Classes of Query/Retrieve (PS3.4 C.6) as a table: what each does, on which levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scp_gateway.command_set import C_FIND_RQ, C_GET_RQ, C_MOVE_RQ
from shared.config.query_retrieve import QueryRetrieve
from shared.dicom.query import Level

_PATIENT_ROOT: Final = tuple(Level)
_STUDY_ROOT: Final = (Level.STUDY, Level.SERIES, Level.IMAGE)


@dataclass(frozen=True, slots=True)
class QuerySopClass:
    """One SOP Class: the Command Field of its requests, and the levels of its model."""

    command_field: int
    levels: tuple[Level, ...]


QUERY_SOP_CLASSES: Final = {
    "1.2.840.10008.5.1.4.1.2.1.1": QuerySopClass(C_FIND_RQ, _PATIENT_ROOT),
    "1.2.840.10008.5.1.4.1.2.1.2": QuerySopClass(C_MOVE_RQ, _PATIENT_ROOT),
    "1.2.840.10008.5.1.4.1.2.1.3": QuerySopClass(C_GET_RQ, _PATIENT_ROOT),
    "1.2.840.10008.5.1.4.1.2.2.1": QuerySopClass(C_FIND_RQ, _STUDY_ROOT),
    "1.2.840.10008.5.1.4.1.2.2.2": QuerySopClass(C_MOVE_RQ, _STUDY_ROOT),
    "1.2.840.10008.5.1.4.1.2.2.3": QuerySopClass(C_GET_RQ, _STUDY_ROOT),
}


def offered(services: QueryRetrieve | None) -> frozenset[str]:
    """The SOP Classes that a listener with these services accepts."""
    if services is None:
        return frozenset()
    switches = {C_FIND_RQ: services.find, C_MOVE_RQ: services.move, C_GET_RQ: services.get}
    return frozenset(uid for uid, one in QUERY_SOP_CLASSES.items() if switches[one.command_field])


def gets(sop_class_uid: str) -> bool:
    """True for a SOP Class of C-GET."""
    known = QUERY_SOP_CLASSES.get(sop_class_uid)
    return known is not None and known.command_field == C_GET_RQ
