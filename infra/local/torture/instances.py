"""Small distinct Instances, each of which says by its Patient ID what is to become of it."""

from __future__ import annotations

import hashlib
import random
import struct
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

ARCHIVE, PACS, WEB = "archive", "pacs", "web"
# Folders: one where later bytes replace, one where other bytes are set aside.
LATEST, FIRST = "latest", "first"
DESTINATIONS = (ARCHIVE, PACS, WEB, LATEST, FIRST)
CHANGED_TO = b"CHANGED BY TORTURE"

_LONG_FORM_VRS = ("OB", "OW")
_ROWS = _COLUMNS = 32


class Kind(StrEnum):
    """What is to become of an Instance; the value is its Patient ID."""

    PLAIN = "PLAIN"  # delivered everywhere as it came
    CHANGED = "CHANGED"  # delivered everywhere with another Series Description
    CORRECTED = "CORRECTED"  # comes again with other bytes, which replace it
    DOUBTED = "DOUBTED"  # comes again with other bytes, and one of the two is set aside
    HELD = "HELD"  # a rule holds it, and a person may release or discard it
    DROPPED = "DROPPED"  # a rule discards it
    UNWANTED = "UNWANTED"  # the PACS refuses it for good
    INVALID = "INVALID"  # validation refuses it after it was acknowledged

    @property
    def destinations(self) -> tuple[str, ...]:
        """Where it belongs; what is held, where it goes if it is released."""
        if self in (Kind.DROPPED, Kind.INVALID):
            return ()
        return _OWN_DESTINATION.get(self, (ARCHIVE, PACS, WEB))

    @property
    def comes_twice(self) -> bool:
        """True if other bytes follow under its SOP Instance UID."""
        return self in _OWN_DESTINATION


_OWN_DESTINATION = {Kind.CORRECTED: (LATEST,), Kind.DOUBTED: (FIRST,)}
_SHARES = {
    Kind.PLAIN: 72,
    Kind.CHANGED: 12,
    Kind.CORRECTED: 3,
    Kind.DOUBTED: 2,
    Kind.HELD: 4,
    Kind.DROPPED: 2,
    Kind.UNWANTED: 3,
    Kind.INVALID: 2,
}


@dataclass(frozen=True, slots=True)
class Instance:
    """One Instance as it is sent, as a file and by what tells its bytes again."""

    sop_instance_uid: str
    # Which of those that have the same SOP Instance UID, from 1.
    version: int
    # Tells the version, in our records too.
    series_instance_uid: str
    kind: Kind
    path: Path = field(repr=False)
    data_set_sha256: bytes = field(repr=False)
    body_sha256: bytes = field(repr=False)
    body_size: int = field(repr=False)

    def is_right(self, data_set: bytes) -> bool:
        """True if these bytes, without File Meta, are what has to arrive at a destination."""
        if self.kind is not Kind.CHANGED:
            return hashlib.sha256(data_set).digest() == self.data_set_sha256
        body = data_set[-self.body_size :]
        return CHANGED_TO in data_set and hashlib.sha256(body).digest() == self.body_sha256


class Maker:
    """Makes Instances from a seed, and their files in `folder`. Used from one thread."""

    def __init__(self, folder: Path, random_: random.Random) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._random = folder, random_
        self._study = self._uid()
        self._made = 0

    def make(self, kind: Kind | None = None) -> Instance:
        """One more Instance; of a kind by lot unless one is asked for."""
        if kind is None:
            (kind,) = self._random.choices(list(_SHARES), list(_SHARES.values()))
        self._made += 1
        if self._made % 100 == 0:
            self._study = self._uid()
        return self._version(self._uid(), kind, 1)

    def correct(self, instance: Instance) -> Instance:
        """Other bytes under the same SOP Instance UID."""
        return self._version(instance.sop_instance_uid, instance.kind, instance.version + 1)

    def _version(self, sop_instance_uid: str, kind: Kind, version: int) -> Instance:
        series = f"{self._study[:60]}.{version}"
        pixels = self._random.randbytes(2 * _ROWS * _COLUMNS)
        body = _element(0x7FE0, 0x0010, "OW", pixels)
        header = self._header(sop_instance_uid, series, kind)
        path = self._folder / str(version) / f"{sop_instance_uid}.dcm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_file_meta(sop_instance_uid) + header + body)
        return Instance(
            sop_instance_uid,
            version,
            series,
            kind,
            path,
            hashlib.sha256(header + body).digest(),
            hashlib.sha256(body).digest(),
            len(body),
        )

    def _uid(self) -> str:
        return f"2.25.{uuid.UUID(int=self._random.getrandbits(128), version=4).int}"

    def _header(self, sop_instance_uid: str, series: str, kind: Kind) -> bytes:
        def us(group: int, element: int, number: int) -> bytes:
            return _element(group, element, "US", struct.pack("<H", number))

        # Left out it is a finding that rejects, though not before it is received.
        patient_id = b"" if kind is Kind.INVALID else _element(0x0010, 0x0020, "LO", kind.encode())
        return b"".join(
            (
                _element(0x0008, 0x0008, "CS", b"ORIGINAL\\PRIMARY\\AXIAL"),
                _element(0x0008, 0x0016, "UI", CT_IMAGE_STORAGE.encode()),
                _element(0x0008, 0x0018, "UI", sop_instance_uid.encode()),
                _element(0x0008, 0x0020, "DA", b"20240229"),
                _element(0x0008, 0x0030, "TM", b"120000"),
                _element(0x0008, 0x0050, "SH", b"ACC-1"),
                _element(0x0008, 0x0060, "CS", b"CT"),
                _element(0x0008, 0x0090, "PN", b""),
                _element(0x0008, 0x103E, "LO", b"AS IT WAS SENT"),
                _element(0x0010, 0x0010, "PN", b"Torture^Test"),
                patient_id,
                _element(0x0010, 0x0030, "DA", b""),
                _element(0x0010, 0x0040, "CS", b"O"),
                _element(0x0020, 0x000D, "UI", self._study.encode()),
                _element(0x0020, 0x000E, "UI", series.encode()),
                _element(0x0020, 0x0010, "SH", b"1"),
                _element(0x0020, 0x0011, "IS", b"1"),
                _element(0x0020, 0x0013, "IS", b"1"),
                us(0x0028, 0x0002, 1),
                _element(0x0028, 0x0004, "CS", b"MONOCHROME2"),
                us(0x0028, 0x0010, _ROWS),
                us(0x0028, 0x0011, _COLUMNS),
                us(0x0028, 0x0100, 16),
                us(0x0028, 0x0101, 16),
                us(0x0028, 0x0102, 15),
                us(0x0028, 0x0103, 0),
            )
        )


def data_set_of(part10: bytes) -> bytes:
    """A Part 10 file without preamble, prefix and File Meta (PS3.10 7.1)."""
    return part10[144 + int.from_bytes(part10[140:144], "little") :]


def _file_meta(sop_instance_uid: str) -> bytes:
    group = b"".join(
        (
            _element(0x0002, 0x0001, "OB", b"\0\1"),
            _element(0x0002, 0x0002, "UI", CT_IMAGE_STORAGE.encode()),
            _element(0x0002, 0x0003, "UI", sop_instance_uid.encode()),
            _element(0x0002, 0x0010, "UI", EXPLICIT_VR_LITTLE_ENDIAN.encode()),
            _element(0x0002, 0x0012, "UI", b"2.25.1"),
        )
    )
    length = _element(0x0002, 0x0000, "UL", struct.pack("<I", len(group)))
    return bytes(128) + b"DICM" + length + group


def _element(group: int, element: int, vr: str, value: bytes) -> bytes:
    """One Data Element in Explicit VR Little Endian, padded to even length (PS3.5 7.1.2)."""
    if len(value) % 2:
        value += b"\0" if vr in ("UI", "OB") else b" "
    start = struct.pack("<HH2s", group, element, vr.encode())
    if vr in _LONG_FORM_VRS:
        return start + struct.pack("<HI", 0, len(value)) + value
    return start + struct.pack("<H", len(value)) + value
