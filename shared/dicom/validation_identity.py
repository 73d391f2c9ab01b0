"""Checks of what an Instance says it is: UIDs, Patient ID, File Meta, character set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from shared.dicom import validation_findings as kinds
from shared.dicom.header import Header
from shared.dicom.validation_findings import Finding, Kind, UidKinds
from shared.errors import MalformedHeaderError

_MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

# PS3.4 GG.3: these belong to no patient, so they have neither Patient ID nor Study nor Series.
_NON_PATIENT_SOP_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.200.1",  # CT Defined Procedure Protocol
        "1.2.840.10008.5.1.4.1.1.200.3",  # Protocol Approval
        "1.2.840.10008.5.1.4.1.1.200.7",  # XA Defined Procedure Protocol
        "1.2.840.10008.5.1.4.1.1.201.1",  # Inventory
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol
        "1.2.840.10008.5.1.4.39.1",  # Color Palette
        "1.2.840.10008.5.1.4.43.1",  # Generic Implant Template
        "1.2.840.10008.5.1.4.44.1",  # Implant Assembly Template
        "1.2.840.10008.5.1.4.45.1",  # Implant Template Group
    }
)

# PS3.3 C.12.1.1.2, the defined terms of tables C.12-2 to C.12-5.
_CHARACTER_SETS = frozenset(
    [
        *(
            f"ISO_IR {n}"
            for n in (6, 13, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166, 192, 203)
        ),
        *(f"ISO 2022 IR {n}" for n in (6, 13, 58, 87, 100, 101, 109, 110, 126, 127, 138, 144, 148)),
        *(f"ISO 2022 IR {n}" for n in (149, 159, 166, 203)),
        "GB18030",
        "GBK",
        "",  # the first Value may be empty: the default repertoire
    ]
)

_UID_FORM = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*", re.ASCII)
_SAFE_UID = re.compile(r"[0-9][0-9.]{0,63}", re.ASCII)


class Mismatch(NamedTuple):
    """A UID that File Meta and the data set give differently, as it may be shown."""

    kind: Kind
    keyword: str
    in_meta: str
    in_data_set: str


def identity_findings(header: Header) -> Iterator[Finding]:
    """Everything that the header alone shows about the Instance's identity."""
    if is_media_directory(header):
        yield kinds.MEDIA_DIRECTORY(
            "MediaStorageSOPClassUID", "a DICOMDIR lists Instances and is none itself"
        )
        return
    if not header.transfer_syntax_uid:
        yield kinds.TRANSFER_SYNTAX_UID_MISSING(
            "TransferSyntaxUID", "Transfer Syntax UID (0002,0010) is missing"
        )
    yield from _uid(header, "SOPClassUID", kinds.SOP_CLASS_UID)
    yield from _uid(header, "SOPInstanceUID", kinds.SOP_INSTANCE_UID)
    if text(header, "SOPClassUID") not in _NON_PATIENT_SOP_CLASSES:
        yield from _uid(header, "StudyInstanceUID", kinds.STUDY_INSTANCE_UID)
        yield from _uid(header, "SeriesInstanceUID", kinds.SERIES_INSTANCE_UID)
        yield from _patient_id(header)
    yield from _file_meta(header)
    yield from _character_sets(header)


def element_findings(header: Header) -> Iterator[Finding]:
    """What a walk over every Data Element of the header shows, nested ones included."""
    with suppress(MalformedHeaderError):
        if header.data_set.has_even_lengths():
            return
    first, count = None, 0
    try:
        for path, element in header.walk():
            if (element.value_end - element.value_start) % 2 and element.vr != "SQ":
                first = first or path
                count += 1
    except MalformedHeaderError as error:
        yield kinds.SEQUENCE_MALFORMED("", f"a Sequence cannot be walked to its end: {error}")
    if first:
        others = f" and {count - 1} more" if count > 1 else ""
        yield kinds.ODD_LENGTH(str(first), f"{first}{others}: the Value has an odd number of bytes")


def is_media_directory(header: Header) -> bool:
    """True for a DICOMDIR, by its SOP Class or its Directory Record Sequence."""
    return (
        text(header, "MediaStorageSOPClassUID") == _MEDIA_STORAGE_DIRECTORY
        or text(header, "SOPClassUID") == _MEDIA_STORAGE_DIRECTORY
        or "DirectoryRecordSequence" in header
    )


def mismatches(header: Header) -> Iterator[Mismatch]:
    """UIDs that both File Meta and the data set give, and give differently."""
    for keyword, kind in (
        ("SOPClassUID", kinds.META_SOP_CLASS_UID_MISMATCH),
        ("SOPInstanceUID", kinds.META_SOP_INSTANCE_UID_MISMATCH),
    ):
        in_meta, in_data_set = text(header, f"MediaStorage{keyword}"), text(header, keyword)
        if in_meta and in_data_set and in_meta != in_data_set:
            yield Mismatch(kind, keyword, _shown(in_meta), _shown(in_data_set))


def text(header: Header, keyword: str) -> str | None:
    """The Attribute as text; "" if what it holds is no text at all (a Sequence)."""
    try:
        return header.text(keyword)
    except ValueError:
        return ""


def _uid(header: Header, keyword: str, kinds_: UidKinds) -> Iterator[Finding]:
    uid = text(header, keyword)
    if not uid:
        yield kinds_.missing(keyword, f"{keyword} is {'absent' if uid is None else 'empty'}")
    elif not _SAFE_UID.fullmatch(uid):
        yield kinds_.unsafe(
            keyword,
            f"{keyword} of {len(uid)} characters is not 1 to 64 digits and dots",
        )
    elif not _is_well_formed(uid):
        yield kinds_.malformed(
            keyword, f"{keyword} {uid} has an empty component or one with a leading zero"
        )


def _is_well_formed(uid: str) -> bool:
    """True if no component of the digits and dots is empty or has a leading zero."""
    delimited = f".{uid}.".replace(".0.", ".zero.")
    if ".." not in delimited and ".0" not in delimited:  # nearly all, in a fifth of the time
        return True
    return _UID_FORM.fullmatch(uid) is not None


def _patient_id(header: Header) -> Iterator[Finding]:
    patient_id = text(header, "PatientID")
    if patient_id is None:
        yield kinds.PATIENT_ID_MISSING("PatientID", "PatientID is absent; it may be empty (Type 2)")
    elif not patient_id.strip():
        yield kinds.PATIENT_ID_EMPTY("PatientID", "PatientID is empty")


def _file_meta(header: Header) -> Iterator[Finding]:
    for keyword, kind in (
        ("MediaStorageSOPClassUID", kinds.META_SOP_CLASS_UID_MISSING),
        ("MediaStorageSOPInstanceUID", kinds.META_SOP_INSTANCE_UID_MISSING),
    ):
        if not text(header, keyword):
            yield kind(keyword, f"{keyword} is missing from File Meta Information")
    for kind, keyword, in_meta, in_data_set in mismatches(header):
        yield kind(
            f"MediaStorage{keyword}",
            f"{keyword} is {in_meta} in File Meta Information and {in_data_set} in the data set",
        )


def _shown(uid: str) -> str:
    # What is no UID may be anything, a patient's name too.
    return uid if _SAFE_UID.fullmatch(uid) else f"no UID ({len(uid)} characters)"


def _character_sets(header: Header) -> Iterator[Finding]:
    terms = (text(header, "SpecificCharacterSet") or "").split("\\")
    unknown = sum(term.strip() not in _CHARACTER_SETS for term in terms)
    if unknown:
        yield kinds.CHARACTER_SET_UNKNOWN(
            "SpecificCharacterSet",
            f"{unknown} of {len(terms)} Values of SpecificCharacterSet are no defined terms",
        )
