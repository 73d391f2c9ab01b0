"""What a sender is told when an Instance is refused: one table, whatever it was sent over.

Status (0000,0900) of a C-STORE response and Failure Reason (0008,1197) of a STOW-RS response take
the same values: PS3.4 2024e Table B.2-1 (Storage) and Table GG.4-1 (Non-Patient Object Storage),
PS3.18 2024e 10.5.3 with Table I.2-2, and for what has no value of its own PS3.7 2024e Annex C.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from shared.errors import (
    AxiomError,
    InstanceTooLargeError,
    PermanentError,
    RefusedByRuleError,
    SopInstanceMismatchError,
    TransientError,
)

# Error Comment (0000,0902) is LO.
_MAX_COMMENT_CHARACTERS: Final = 64
_CUT: Final = "..."


class Refusal(IntEnum):
    """The values that we answer with; a name is the Standard's meaning."""

    PROCESSING_FAILURE = 0x0110
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    CANNOT_UNDERSTAND = 0xC000


# The first class that an error is an instance of decides, so particular ones stand above general.
REFUSALS: tuple[tuple[type[AxiomError], Refusal], ...] = (
    # The data set is of another SOP Class or Instance than the request says.
    (SopInstanceMismatchError, Refusal.DATA_SET_DOES_NOT_MATCH_SOP_CLASS),
    (InstanceTooLargeError, Refusal.OUT_OF_RESOURCES),
    # Overloaded, storage unavailable: A7xxH is what tells a sender to try again later.
    (TransientError, Refusal.OUT_OF_RESOURCES),
    # Not DICOM, malformed, truncated, or invalid, which is not "does not match SOP Class": that
    # would claim that the SOP Class had been looked into.
    (PermanentError, Refusal.CANNOT_UNDERSTAND),
)


def refusal_for(error: BaseException) -> int:
    """What to answer when `error` kept us from taking an Instance; a bug is our own failure.

    A rule that refuses says itself what.
    """
    if isinstance(error, RefusedByRuleError):
        return error.status
    for kind, refusal in REFUSALS:
        if isinstance(error, kind):
            return refusal
    return Refusal.PROCESSING_FAILURE


def comment_on(error: AxiomError) -> str:
    """What an Error Comment (0000,0902) says of it: the words beside the number, as many whole ones
    as there is room for, since half a UID reads as another.
    """
    text = str(error)
    # A backslash would start another Value; a command set is ISO IR 6 (PS3.7 6.3.1).
    plain = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in text)
    if len(plain) <= _MAX_COMMENT_CHARACTERS:
        return plain
    room = _MAX_COMMENT_CHARACTERS - len(_CUT)
    return (plain[: room + 1].rpartition(" ")[0] or plain[:room]) + _CUT
