"""The SOP Classes of Query/Retrieve (PS3.4 C.6) and Modality Worklist (K.6) as a table: what each
does, on which levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.config.entities import Listener
from shared.dicom.command_set import C_FIND_RQ, C_GET_RQ, C_MOVE_RQ
from shared.dicom.query import Level

_PATIENT_ROOT: Final = tuple(Level)
_STUDY_ROOT: Final = (Level.STUDY, Level.SERIES, Level.IMAGE)


@dataclass(frozen=True, slots=True)
class QuerySopClass:
    """One SOP Class: the Command Field of its requests, and the levels of its model; the model of
    a worklist has none.
    """

    command_field: int
    levels: tuple[Level, ...] = ()


QUERY_SOP_CLASSES: Final = {
    "1.2.840.10008.5.1.4.1.2.1.1": QuerySopClass(C_FIND_RQ, _PATIENT_ROOT),
    "1.2.840.10008.5.1.4.1.2.1.2": QuerySopClass(C_MOVE_RQ, _PATIENT_ROOT),
    "1.2.840.10008.5.1.4.1.2.1.3": QuerySopClass(C_GET_RQ, _PATIENT_ROOT),
    "1.2.840.10008.5.1.4.1.2.2.1": QuerySopClass(C_FIND_RQ, _STUDY_ROOT),
    "1.2.840.10008.5.1.4.1.2.2.2": QuerySopClass(C_MOVE_RQ, _STUDY_ROOT),
    "1.2.840.10008.5.1.4.1.2.2.3": QuerySopClass(C_GET_RQ, _STUDY_ROOT),
    "1.2.840.10008.5.1.4.31": QuerySopClass(C_FIND_RQ),
}


def offered(listener: Listener) -> frozenset[str]:
    """The SOP Classes that the listener accepts."""
    services = listener.query_retrieve
    switches: dict[int, bool] = {}
    if services is not None:
        switches = {C_FIND_RQ: services.find, C_MOVE_RQ: services.move, C_GET_RQ: services.get}
    return frozenset(
        uid
        for uid, one in QUERY_SOP_CLASSES.items()
        if (switches.get(one.command_field) if one.levels else listener.worklist)
    )


def gets(sop_class_uid: str) -> bool:
    """True for a SOP Class of C-GET."""
    known = QUERY_SOP_CLASSES.get(sop_class_uid)
    return known is not None and known.command_field == C_GET_RQ
