"""What the gateway stores, as tables: SOP Classes and Transfer Syntaxes (PS3.6 Annex A).

The tables are pydicom's UID dictionary and what the Standard has registered since. Nothing is ever
decoded on the way in, so every storage SOP Class is taken in every Transfer Syntax in which a data
set can be sent with C-STORE. Looking one up is a set membership: no list of the 12,000 combinations
exists anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum

from pydicom._uid_dict import UID_dictionary

from shared.dicom.commitment import STORAGE_COMMITMENT_PUSH_MODEL
from shared.dicom.commitment import TRANSFER_SYNTAXES as COMMITMENT_TRANSFER_SYNTAXES

VERIFICATION_SOP_CLASS = "1.2.840.10008.1.1"
DICOM_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

# Registered after the dictionary's edition (2024b), as of PS3.6 2025.
_LATER_SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.9.100.1": "Waveform Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.9.100.2": "Waveform Acquisition Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
}
_LATER_TRANSFER_SYNTAXES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}

# What the dictionary does not name.
LATER_NAMES = _LATER_SOP_CLASSES | _LATER_TRANSFER_SYNTAXES

# "Storage" in their names, but no Instance of them is ever sent with C-STORE.
_NOT_STORED = frozenset(
    {
        "1.2.840.10008.1.3.10",  # Media Storage Directory Storage: a DICOMDIR, on media alone
        "1.2.840.10008.1.20.1",  # Storage Commitment Push Model
        "1.2.840.10008.1.20.2",  # Storage Commitment Pull Model
    }
)

# Transfer Syntaxes of something else than a data set on an association.
_NOT_SENT = frozenset(
    {
        "1.2.840.10008.1.2.6.1",  # RFC 2557 MIME encapsulation
        "1.2.840.10008.1.2.6.2",  # XML Encoding
        "1.2.840.10008.1.2.7.1",  # SMPTE ST 2110-20, progressive: real-time streams (PS3.22)
        "1.2.840.10008.1.2.7.2",  # SMPTE ST 2110-20, interlaced
        "1.2.840.10008.1.2.7.3",  # SMPTE ST 2110-30
        "1.2.840.10008.1.20",  # Papyrus 3
    }
)


def _registered(kind: str) -> dict[str, str]:
    return {uid: entry[0] for uid, entry in UID_dictionary.items() if entry[1] == kind}


STORAGE_SOP_CLASSES: frozenset[str] = (
    frozenset(uid for uid, name in _registered("SOP Class").items() if "Storage" in name)
    | _LATER_SOP_CLASSES.keys()
) - _NOT_STORED

TRANSFER_SYNTAXES: frozenset[str] = (
    frozenset(_registered("Transfer Syntax")) | _LATER_TRANSFER_SYNTAXES.keys()
) - _NOT_SENT


class ContextResult(IntEnum):
    """Result/Reason of a Presentation Context in an A-ASSOCIATE-AC (PS3.8 Table 9-18)."""

    ACCEPTANCE = 0
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class ContextAnswer:
    """The answer to one proposed Presentation Context; the syntax counts only if accepted."""

    result: ContextResult
    transfer_syntax: str


def is_storage_sop_class(uid: str, *, accept_unknown: bool) -> bool:
    """Instances of the SOP Class are stored; unknown is what no edition of PS3.6 lists."""
    return uid in STORAGE_SOP_CLASSES or (accept_unknown and uid not in UID_dictionary)


def answer_context(
    abstract_syntax: str,
    transfer_syntaxes: Sequence[str],
    *,
    accept_unknown: bool,
    verifies: bool = True,
    stores: bool = True,
    commits: bool = False,
    queries: Collection[str] = (),
) -> ContextAnswer:
    """Decide on one proposed Presentation Context; `verifies`, `stores` and `commits` if we do
    that, `queries` are the SOP Classes of Query/Retrieve that we answer.

    The requestor's order is its preference: the first Transfer Syntax of it that is known wins, and
    with `accept_unknown` the first of all if none is.
    """
    first = transfer_syntaxes[0] if transfer_syntaxes else ""
    # Data sets that are decoded here come in what every AE knows.
    is_commitment = abstract_syntax == STORAGE_COMMITMENT_PUSH_MODEL and commits
    if is_commitment or abstract_syntax in queries:
        for uid in transfer_syntaxes:
            if uid in COMMITMENT_TRANSFER_SYNTAXES:
                return ContextAnswer(ContextResult.ACCEPTANCE, uid)
        return ContextAnswer(ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, first)
    is_verification = abstract_syntax == VERIFICATION_SOP_CLASS and verifies
    is_storage = stores and is_storage_sop_class(abstract_syntax, accept_unknown=accept_unknown)
    if not (is_verification or is_storage):
        return ContextAnswer(ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, first)
    for uid in transfer_syntaxes:
        if uid in TRANSFER_SYNTAXES:
            return ContextAnswer(ContextResult.ACCEPTANCE, uid)
    if accept_unknown and first and first not in UID_dictionary:
        return ContextAnswer(ContextResult.ACCEPTANCE, first)
    return ContextAnswer(ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, first)
