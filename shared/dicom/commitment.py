"""The Storage Commitment Push Model (PS3.4 Annex J) as values, and their data sets.

An SCU asks with N-ACTION that an SCP commit itself to keep Instances; the SCP says what became of
it with N-EVENT-REPORT, on the same association or on one of its own. The transaction's UID ties
the two together.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from enum import IntEnum
from io import BytesIO
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

STORAGE_COMMITMENT_PUSH_MODEL = "1.2.840.10008.1.20.1"
# The one SOP Instance that every request is about (PS3.4 J.3.5).
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST_STORAGE_COMMITMENT = 1  # Action Type ID (PS3.4 J.3.2.1)
ALL_COMMITTED, FAILURES_EXIST = 1, 2  # Event Type ID (PS3.4 J.3.3.1)

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
# What these small data sets are encoded in, the preferred first.
TRANSFER_SYNTAXES = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)


class FailureReason(IntEnum):
    """Failure Reason (0008,1197) of an Instance that is not committed (PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    REFERENCED_SOP_CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION_UID = 0x0131
    RESOURCE_LIMITATION = 0x0213


class MalformedCommitmentError(ValueError):
    """The data set is no request for, or no report of, storage commitment."""


class Reference(Struct, frozen=True):
    """One Instance."""

    sop_class_uid: str
    sop_instance_uid: str


class Failure(Struct, frozen=True):
    """One Instance that is not committed. `reason` is a FailureReason, or what a peer says."""

    reference: Reference
    reason: int


class CommitmentRequest(Struct, frozen=True):
    """What an N-ACTION asks."""

    transaction_uid: str
    references: tuple[Reference, ...]

    def encode(self, transfer_syntax_uid: str) -> bytes:
        """The Action Information (PS3.4 Table J.3-1)."""
        dataset = _dataset(self.transaction_uid)
        dataset.ReferencedSOPSequence = [_item(one) for one in self.references]
        return _encode(dataset, transfer_syntax_uid)

    @classmethod
    def parse(cls, data: bytes, transfer_syntax_uid: str) -> CommitmentRequest:
        """Raises: MalformedCommitmentError."""
        dataset = _parse(data, transfer_syntax_uid)
        references = tuple(map(_reference, _items(dataset, "ReferencedSOPSequence")))
        if not references:
            raise MalformedCommitmentError("no Instance is referenced")
        return cls(_transaction_uid(dataset), references)


class CommitmentReport(Struct, frozen=True):
    """What an N-EVENT-REPORT tells."""

    transaction_uid: str
    committed: tuple[Reference, ...] = ()
    failures: tuple[Failure, ...] = ()

    @property
    def event_type_id(self) -> int:
        """ALL_COMMITTED or FAILURES_EXIST."""
        return FAILURES_EXIST if self.failures else ALL_COMMITTED

    def encode(self, transfer_syntax_uid: str) -> bytes:
        """The Event Information (PS3.4 Table J.3-2)."""
        dataset = _dataset(self.transaction_uid)
        if self.committed:
            dataset.ReferencedSOPSequence = [_item(one) for one in self.committed]
        if self.failures:
            dataset.FailedSOPSequence = [_item(one.reference) for one in self.failures]
            for item, failure in zip(dataset.FailedSOPSequence, self.failures, strict=True):
                item.FailureReason = failure.reason
        return _encode(dataset, transfer_syntax_uid)

    @classmethod
    def parse(cls, data: bytes, transfer_syntax_uid: str) -> CommitmentReport:
        """Raises: MalformedCommitmentError."""
        dataset = _parse(data, transfer_syntax_uid)
        return cls(
            _transaction_uid(dataset),
            tuple(map(_reference, _items(dataset, "ReferencedSOPSequence"))),
            tuple(
                Failure(_reference(item), _reason(item))
                for item in _items(dataset, "FailedSOPSequence")
            ),
        )


def new_transaction_uid() -> str:
    """A UID of its own (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def unique(references: Iterable[Reference]) -> tuple[Reference, ...]:
    """The references, each once, in their order."""
    return tuple(dict.fromkeys(references))


def _dataset(transaction_uid: str) -> Dataset:
    from pydicom.dataset import Dataset

    dataset = Dataset()
    dataset.TransactionUID = transaction_uid
    return dataset


def _item(reference: Reference) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _encode(dataset: Dataset, transfer_syntax_uid: str) -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def _parse(data: bytes, transfer_syntax_uid: str) -> Dataset:
    from pydicom.filereader import read_dataset

    is_implicit_vr = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    try:
        dataset = read_dataset(BytesIO(data), is_implicit_vr, True)
        # Elements are decoded when they are asked for; those that we ask for are, here.
        for keyword in ("TransactionUID", "ReferencedSOPSequence", "FailedSOPSequence"):
            dataset.get(keyword)
    except Exception:
        # The reader raises whatever it stumbles over; each time the data set is at fault.
        raise MalformedCommitmentError("the data set cannot be read") from None
    return dataset


def _transaction_uid(dataset: Dataset) -> str:
    return _uid(dataset, "TransactionUID")


def _reference(item: Dataset) -> Reference:
    return Reference(_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID"))


def _items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    from pydicom.sequence import Sequence as Items

    found = dataset.get(keyword) or ()
    if not isinstance(found, Items | tuple):
        raise MalformedCommitmentError(f"{keyword} is no Sequence")
    return found


def _reason(item: Dataset) -> int:
    try:
        return int(item.get("FailureReason") or FailureReason.PROCESSING_FAILURE)
    except Exception:
        # As above; why the peer does not keep the Instance matters less than that it does not.
        return FailureReason.PROCESSING_FAILURE


def _uid(dataset: Dataset, keyword: str) -> str:
    try:
        text = str(dataset.get(keyword) or "")
    except Exception:
        raise MalformedCommitmentError(f"{keyword} cannot be read") from None
    # It becomes part of a document's key, and of what the log says.
    if not 0 < len(text) <= 64 or not text.replace(".", "").isdecimal() or not text.isascii():
        raise MalformedCommitmentError(f"{keyword} is no UID")
    return text
