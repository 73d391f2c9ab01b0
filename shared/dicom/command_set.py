"""Command Sets (PS3.7 6.3.1, Annex E): read, written, and the requests that we make.

A Command Set is always Implicit VR Little Endian, so a dozen lines read and write it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

VERIFICATION: Final = "1.2.840.10008.1.1"

# Command Field
C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
C_GET_RQ, C_FIND_RQ, C_MOVE_RQ = 0x0010, 0x0020, 0x0021
C_ECHO_RQ = 0x0030
N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP = 0x0100, 0x8100
N_ACTION_RQ = 0x0130
C_CANCEL_RQ = 0x0FFF
RESPONSE: Final = 0x8000  # the bit that makes it of a request's
NO_DATA_SET: Final = 0x0101  # Command Data Set Type; any other value says that there is one
DATA_SET: Final = 0x0000
_MEDIUM_PRIORITY = 0x0000

# Element numbers of group 0000
_GROUP_LENGTH = 0x0000
AFFECTED_SOP_CLASS_UID = 0x0002
REQUESTED_SOP_CLASS_UID = 0x0003
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
MOVE_DESTINATION = 0x0600
PRIORITY = 0x0700
COMMAND_DATA_SET_TYPE = 0x0800
STATUS = 0x0900
OFFENDING_ELEMENT = 0x0901
ERROR_COMMENT = 0x0902
ERROR_ID = 0x0903
AFFECTED_SOP_INSTANCE_UID = 0x1000
REQUESTED_SOP_INSTANCE_UID = 0x1001
EVENT_TYPE_ID = 0x1002
ACTION_TYPE_ID = 0x1008
NUMBER_OF_REMAINING_SUB_OPERATIONS = 0x1020
NUMBER_OF_COMPLETED_SUB_OPERATIONS = 0x1021
NUMBER_OF_FAILED_SUB_OPERATIONS = 0x1022
NUMBER_OF_WARNING_SUB_OPERATIONS = 0x1023
MOVE_ORIGINATOR_AE_TITLE = 0x1030
MOVE_ORIGINATOR_MESSAGE_ID = 0x1031

_ELEMENT = struct.Struct("<HHL")
_US = struct.Struct("<H")


class MalformedCommandSetError(ValueError):
    """The bytes are no Command Set, or lack what every message has."""


def elements_of(data: bytes) -> dict[int, bytes]:
    """The encoded Values by element number. Raises: MalformedCommandSetError."""
    elements: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        if len(data) - position < _ELEMENT.size:
            raise MalformedCommandSetError("it ends within an element")
        group, element, length = _ELEMENT.unpack_from(data, position)
        position += _ELEMENT.size
        if group != 0 or length > len(data) - position:
            raise MalformedCommandSetError("an element is of another group or too long")
        elements[element] = data[position : position + length]
        position += length
    return elements


def encoded(elements: Mapping[int, bytes]) -> bytes:
    """The Command Set with these encoded Values, which are in ascending order."""
    body = b"".join(
        _ELEMENT.pack(0, number, len(value)) + value for number, value in elements.items()
    )
    return _ELEMENT.pack(0, _GROUP_LENGTH, 4) + struct.pack("<L", len(body)) + body


def us(value: int) -> bytes:
    """A number as VR US. Raises: struct.error if it needs more than 16 bits."""
    return _US.pack(value)


def number_of(value: bytes) -> int:
    """Of VR US. Raises: struct.error if it has not two bytes."""
    return int(_US.unpack(value)[0])


def uid(text: str) -> bytes:
    """A UID with what makes its length even (PS3.5 9.1)."""
    return _even(text, b"\0")


def words(text: str) -> bytes:
    """Text, or an AE Title, of even length; what is not ASCII is replaced."""
    return _even(text, b" ")


def text_of(value: bytes) -> str:
    """Of a UID or text, without padding: some senders pad UIDs with spaces, or twice."""
    return value.decode("ascii", "replace").strip("\0 ")


def store_request(
    message_id: int,
    sop_class_uid: str,
    sop_instance_uid: str,
    originator: tuple[str, int] | None = None,
) -> bytes:
    """A C-STORE-RQ (PS3.7 9.3.1.1); a data set follows it.

    `originator` is the AE Title and the Message ID of the C-MOVE that it is a part of.
    """
    moved = {}
    if originator is not None:
        moved = {
            MOVE_ORIGINATOR_AE_TITLE: words(originator[0]),
            MOVE_ORIGINATOR_MESSAGE_ID: us(originator[1]),
        }
    return encoded(
        {
            AFFECTED_SOP_CLASS_UID: uid(sop_class_uid),
            COMMAND_FIELD: us(C_STORE_RQ),
            MESSAGE_ID: us(message_id),
            PRIORITY: us(_MEDIUM_PRIORITY),
            COMMAND_DATA_SET_TYPE: us(DATA_SET),
            AFFECTED_SOP_INSTANCE_UID: uid(sop_instance_uid),
            **moved,
        }
    )


def echo_request(message_id: int) -> bytes:
    """A C-ECHO-RQ (PS3.7 9.3.5.1)."""
    return encoded(
        {
            AFFECTED_SOP_CLASS_UID: uid(VERIFICATION),
            COMMAND_FIELD: us(C_ECHO_RQ),
            MESSAGE_ID: us(message_id),
            COMMAND_DATA_SET_TYPE: us(NO_DATA_SET),
        }
    )


def action_request(
    message_id: int, sop_class_uid: str, sop_instance_uid: str, action_type_id: int
) -> bytes:
    """An N-ACTION-RQ (PS3.7 10.3.4.1); a data set follows it."""
    return encoded(
        {
            REQUESTED_SOP_CLASS_UID: uid(sop_class_uid),
            COMMAND_FIELD: us(N_ACTION_RQ),
            MESSAGE_ID: us(message_id),
            COMMAND_DATA_SET_TYPE: us(DATA_SET),
            REQUESTED_SOP_INSTANCE_UID: uid(sop_instance_uid),
            ACTION_TYPE_ID: us(action_type_id),
        }
    )


def event_report_request(
    message_id: int, sop_class_uid: str, sop_instance_uid: str, event_type_id: int
) -> bytes:
    """An N-EVENT-REPORT-RQ (PS3.7 10.3.1.1); a data set follows it."""
    return encoded(
        {
            AFFECTED_SOP_CLASS_UID: uid(sop_class_uid),
            COMMAND_FIELD: us(N_EVENT_REPORT_RQ),
            MESSAGE_ID: us(message_id),
            COMMAND_DATA_SET_TYPE: us(DATA_SET),
            AFFECTED_SOP_INSTANCE_UID: uid(sop_instance_uid),
            EVENT_TYPE_ID: us(event_type_id),
        }
    )


def _even(text: str, pad: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + pad if len(value) % 2 else value
