"""DIMSE Status of our responses (PS3.4 B.2.3, C.4, PS3.7 C); `shared.refusals` maps our errors."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from shared.errors import AxiomError
from shared.refusals import comment_on, refusal_for


class Status(IntEnum):
    """The Status codes (0000,0900) that the gateway answers with."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_SOP_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    INVALID_ARGUMENT_VALUE = 0x0115
    INVALID_SOP_INSTANCE = 0x0117
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NO_SUCH_ACTION = 0x0123
    UNRECOGNIZED_OPERATION = 0x0211
    RESOURCE_LIMITATION = 0x0213
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    CANNOT_COUNT_MATCHES = 0xA701
    CANNOT_PERFORM_SUB_OPERATIONS = 0xA702
    MOVE_DESTINATION_UNKNOWN = 0xA801
    SUB_OPERATIONS_FAILED = 0xB000  # one or more of them
    CANNOT_UNDERSTAND = 0xC000
    UNABLE_TO_PROCESS = 0xC001
    CANCELLED = 0xFE00
    PENDING = 0xFF00
    PENDING_NOT_ALL_KEYS = 0xFF01  # an optional key was not matched


@dataclass(frozen=True, slots=True)
class Answer:
    """What a C-STORE response says: Status and Error Comment (0000,0902), "" for none."""

    status: int  # one of Status, or what a rule says
    comment: str = ""


SUCCESS = Answer(Status.SUCCESS)


def answer_for(error: BaseException) -> Answer:
    """The answer that this error deserves.

    The comment is the text of an error of ours, which holds no patient's Values; of any other
    error, which is a bug here, the sender learns no more than that.
    """
    status = refusal_for(error)
    if isinstance(error, AxiomError):
        return Answer(status, comment_on(error))
    return Answer(status, "processing failure, see the gateway's log")
