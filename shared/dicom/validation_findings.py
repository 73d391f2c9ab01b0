"""What validation can find: one table of codes, what each does by default, and where it is written.

A code is stable: settings name it, scripts count it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct


class Severity(StrEnum):
    """What a finding does to the Instance."""

    REJECT = "reject"  # refused, or into the exception log
    WARN = "warn"  # passes; the finding travels with it
    IGNORE = "ignore"


class Finding(Struct, frozen=True):
    """One thing that is wrong. `message` holds tags, UIDs, counts and lengths, no other Values."""

    code: str
    path: str  # PS3.6 keyword, "SpecificCharacterSet"
    message: str
    reference: str  # "PS3.5 9.1"

    def __str__(self) -> str:
        return f"{self.code}: {self.message} ({self.reference})"


class Kind(Struct, frozen=True):
    """A row of the table; called with what was found where, it makes the Finding."""

    code: str
    severity: Severity
    reference: str

    def __call__(self, path: str, message: str) -> Finding:
        return Finding(self.code, path, message, self.reference)


class UidKinds(Struct, frozen=True):
    """What can be wrong with one UID that an Instance needs."""

    missing: Kind  # absent or empty
    malformed: Kind  # digits and dots, but not of the form
    unsafe: Kind  # no file name, no key, no 64 byte field can hold it


_REJECT, _WARN = Severity.REJECT, Severity.WARN
_UID_FORM = "PS3.5 9.1"


def _uid_kinds(name: str, reference: str, malformed: Severity) -> UidKinds:
    return UidKinds(
        Kind(f"{name}-missing", _REJECT, reference),
        Kind(f"{name}-malformed", malformed, _UID_FORM),
        Kind(f"{name}-unsafe", _REJECT, _UID_FORM),
    )


# ---- what the Instance is -------------------------------------------------------------------

MEDIA_DIRECTORY = Kind("media-directory", _REJECT, "PS3.10 8.6")
TRANSFER_SYNTAX_UID_MISSING = Kind("transfer-syntax-uid-missing", _REJECT, "PS3.10 7.1")
META_SOP_CLASS_UID_MISSING = Kind("meta-sop-class-uid-missing", _WARN, "PS3.10 7.1")
META_SOP_INSTANCE_UID_MISSING = Kind("meta-sop-instance-uid-missing", _WARN, "PS3.10 7.1")
META_SOP_CLASS_UID_MISMATCH = Kind("meta-sop-class-uid-mismatch", _REJECT, "PS3.10 7.1")
# Many tools that de-identify leave File Meta as it was, and every reader goes by the data set.
META_SOP_INSTANCE_UID_MISMATCH = Kind("meta-sop-instance-uid-mismatch", _WARN, "PS3.10 7.1")

# Modalities that build UIDs from date and time write leading zeros, and readers cope; SOP Classes
# come from a table and have no such excuse.
SOP_CLASS_UID = _uid_kinds("sop-class-uid", "PS3.3 C.12.1", _REJECT)
SOP_INSTANCE_UID = _uid_kinds("sop-instance-uid", "PS3.3 C.12.1", _WARN)
STUDY_INSTANCE_UID = _uid_kinds("study-instance-uid", "PS3.3 C.7.2.1", _WARN)
SERIES_INSTANCE_UID = _uid_kinds("series-instance-uid", "PS3.3 C.7.3.1", _WARN)

PATIENT_ID_MISSING = Kind("patient-id-missing", _REJECT, "PS3.3 C.7.1.1")
PATIENT_ID_EMPTY = Kind("patient-id-empty", _WARN, "PS3.5 7.4.3")  # Type 2: legal
CHARACTER_SET_UNKNOWN = Kind("character-set-unknown", _WARN, "PS3.3 C.12.1.1.2")
# Bytes of a Sequence that nobody asks about pass through unread.
SEQUENCE_MALFORMED = Kind("sequence-malformed", _WARN, "PS3.5 7.5")
ODD_LENGTH = Kind("odd-length", _WARN, "PS3.5 7.1.1")

# ---- pixels ---------------------------------------------------------------------------------

IMAGE_SIZE_MISSING = Kind("image-size-missing", _REJECT, "PS3.3 C.7.6.3")
IMAGE_ATTRIBUTE_MALFORMED = Kind("image-attribute-malformed", _WARN, "PS3.3 C.7.6.3")
PIXEL_DATA_MISSING = Kind("pixel-data-missing", _WARN, "PS3.3 C.7.6.3")
PIXEL_DATA_TRUNCATED = Kind("pixel-data-truncated", _REJECT, "PS3.5 7.1.1")
PIXEL_DATA_TOO_SHORT = Kind("pixel-data-too-short", _REJECT, "PS3.5 8.1.1")
PIXEL_DATA_TOO_LONG = Kind("pixel-data-too-long", _WARN, "PS3.5 8.1.1")
NATIVE_IN_ENCAPSULATED_SYNTAX = Kind("native-in-encapsulated-syntax", _REJECT, "PS3.5 A.4")
ENCAPSULATED_IN_NATIVE_SYNTAX = Kind("encapsulated-in-native-syntax", _REJECT, "PS3.5 A.1")
FRAGMENTS_MALFORMED = Kind("fragments-malformed", _REJECT, "PS3.5 A.4")
FRAGMENTS_TOO_FEW = Kind("fragments-too-few", _REJECT, "PS3.5 A.4")
FRAGMENTS_TOO_MANY = Kind("fragments-too-many", _WARN, "PS3.5 A.4.2")
FRAGMENT_EMPTY = Kind("fragment-empty", _WARN, "PS3.5 A.4")
OFFSET_TABLE_IMPLAUSIBLE = Kind("offset-table-implausible", _WARN, "PS3.5 A.4")
EXTENDED_OFFSET_TABLE_IMPLAUSIBLE = Kind(
    "extended-offset-table-implausible", _WARN, "PS3.3 C.7.6.3.1.8"
)

# ---- the rest of the Body -------------------------------------------------------------------

# The Header ends at a value that is too large for it.
ATTRIBUTES_NOT_READ = Kind("attributes-not-read", _WARN, "PS3.5 7.1")
TOO_MANY_ITEMS = Kind("too-many-items", _REJECT, "PS3.5 7.5")
ELEMENT_TRUNCATED = Kind("element-truncated", _REJECT, "PS3.5 7.1.1")
TRAILING_BYTES = Kind("trailing-bytes", _WARN, "PS3.5 7.1")
DEFLATED_STREAM_BROKEN = Kind("deflated-stream-broken", _REJECT, "PS3.5 A.5")
DEFLATED_STREAM_TOO_LARGE = Kind("deflated-stream-too-large", _REJECT, "PS3.5 A.5")


def _table() -> dict[str, Severity]:
    severities: dict[str, Severity] = {}
    for row in tuple(globals().values()):
        kinds = (row.missing, row.malformed, row.unsafe) if isinstance(row, UidKinds) else (row,)
        severities.update((kind.code, kind.severity) for kind in kinds if isinstance(kind, Kind))
    return severities


# Every code that validation can produce.
DEFAULT_SEVERITIES: Mapping[str, Severity] = _table()
