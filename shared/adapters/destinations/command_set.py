"""DIMSE command sets (PS3.7 2024e 6.3 and Annex E): Implicit VR Little Endian, group 0000."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from msgspec import Struct

from shared.adapters.destinations.upper_layer import ProtocolError

VERIFICATION = "1.2.840.10008.1.1"

# Command Field
C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
N_EVENT_REPORT_RQ = 0x0100
N_ACTION_RQ = 0x0130
_RESPONSE = 0x8000

# Element numbers of group 0000
_GROUP_LENGTH = 0x0000
_AFFECTED_SOP_CLASS_UID = 0x0002
_REQUESTED_SOP_CLASS_UID = 0x0003
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_RESPONDED_TO = 0x0120
_PRIORITY = 0x0700
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_OFFENDING_ELEMENT = 0x0901
_ERROR_COMMENT = 0x0902
_ERROR_ID = 0x0903
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_REQUESTED_SOP_INSTANCE_UID = 0x1001
_EVENT_TYPE_ID = 0x1002
_ACTION_TYPE_ID = 0x1008
_MOVE_ORIGINATOR_AE_TITLE = 0x1030
_MOVE_ORIGINATOR_MESSAGE_ID = 0x1031

_NO_DATA_SET = 0x0101
_MEDIUM_PRIORITY = 0

_ELEMENT = struct.Struct("<HHL")


class Response(Struct, frozen=True):
    """A DIMSE response. `words` are the peer's: comment, error ID and offending tags."""

    status: int
    words: str
    has_data_set: bool


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
        ae_title = originator[0].encode("ascii", "replace")
        moved = {
            _MOVE_ORIGINATOR_AE_TITLE: ae_title + b" " * (len(ae_title) % 2),
            _MOVE_ORIGINATOR_MESSAGE_ID: _us(originator[1]),
        }
    return _command(
        {
            _AFFECTED_SOP_CLASS_UID: _uid(sop_class_uid),
            _COMMAND_FIELD: _us(C_STORE_RQ),
            _MESSAGE_ID: _us(message_id),
            _PRIORITY: _us(_MEDIUM_PRIORITY),
            _DATA_SET_TYPE: _us(0x0000),
            _AFFECTED_SOP_INSTANCE_UID: _uid(sop_instance_uid),
            **moved,
        }
    )


def echo_request(message_id: int) -> bytes:
    """A C-ECHO-RQ (PS3.7 9.3.5.1)."""
    return _command(
        {
            _AFFECTED_SOP_CLASS_UID: _uid(VERIFICATION),
            _COMMAND_FIELD: _us(C_ECHO_RQ),
            _MESSAGE_ID: _us(message_id),
            _DATA_SET_TYPE: _us(_NO_DATA_SET),
        }
    )


def action_request(
    message_id: int, sop_class_uid: str, sop_instance_uid: str, action_type_id: int
) -> bytes:
    """An N-ACTION-RQ (PS3.7 10.3.4.1); a data set follows it."""
    return _command(
        {
            _REQUESTED_SOP_CLASS_UID: _uid(sop_class_uid),
            _COMMAND_FIELD: _us(N_ACTION_RQ),
            _MESSAGE_ID: _us(message_id),
            _DATA_SET_TYPE: _us(0x0000),
            _REQUESTED_SOP_INSTANCE_UID: _uid(sop_instance_uid),
            _ACTION_TYPE_ID: _us(action_type_id),
        }
    )


def event_report_request(
    message_id: int, sop_class_uid: str, sop_instance_uid: str, event_type_id: int
) -> bytes:
    """An N-EVENT-REPORT-RQ (PS3.7 10.3.1.1); a data set follows it."""
    return _command(
        {
            _AFFECTED_SOP_CLASS_UID: _uid(sop_class_uid),
            _COMMAND_FIELD: _us(N_EVENT_REPORT_RQ),
            _MESSAGE_ID: _us(message_id),
            _DATA_SET_TYPE: _us(0x0000),
            _AFFECTED_SOP_INSTANCE_UID: _uid(sop_instance_uid),
            _EVENT_TYPE_ID: _us(event_type_id),
        }
    )


def event_report_answer(request: bytes) -> bytes | None:
    """The N-EVENT-REPORT-RSP that takes the report of this request (PS3.7 10.3.1.2); None if it is
    another message. Raises: ProtocolError.
    """
    elements = _elements(request)
    if _number(elements, _COMMAND_FIELD) != N_EVENT_REPORT_RQ:
        return None
    return _command(
        {
            _AFFECTED_SOP_CLASS_UID: elements.get(_AFFECTED_SOP_CLASS_UID, b""),
            _COMMAND_FIELD: _us(N_EVENT_REPORT_RQ | _RESPONSE),
            _MESSAGE_ID_RESPONDED_TO: _us(_number(elements, _MESSAGE_ID)),
            _DATA_SET_TYPE: _us(_NO_DATA_SET),
            _STATUS: _us(0x0000),
            _AFFECTED_SOP_INSTANCE_UID: elements.get(_AFFECTED_SOP_INSTANCE_UID, b""),
            _EVENT_TYPE_ID: _us(_number(elements, _EVENT_TYPE_ID)),
        }
    )


def has_data_set(command: bytes) -> bool:
    """True if a data set follows the command set. Raises: ProtocolError."""
    return _number(_elements(command), _DATA_SET_TYPE) != _NO_DATA_SET


def parse_response(data: bytes, request: int, message_id: int) -> Response:
    """Read the response to the request with this Command Field and Message ID.

    Raises: ProtocolError.
    """
    elements = _elements(data)
    if _number(elements, _COMMAND_FIELD) != request | _RESPONSE:
        raise ProtocolError("the answer is not the response to what was asked")
    if _number(elements, _MESSAGE_ID_RESPONDED_TO) != message_id:
        raise ProtocolError("the answer responds to another message")
    words = []
    if comment := elements.get(_ERROR_COMMENT):
        words.append(comment.decode("ascii", "replace").strip("\0 "))
    if error_id := elements.get(_ERROR_ID):
        words.append(f"error {int.from_bytes(error_id[:2], 'little')}")
    if offending := elements.get(_OFFENDING_ELEMENT):
        tags = struct.iter_unpack("<HH", offending[: len(offending) // 4 * 4])
        words.append("offending " + " ".join(f"({g:04X},{e:04X})" for g, e in tags))
    return Response(
        status=_number(elements, _STATUS),
        words=", ".join(filter(None, words)),
        has_data_set=_number(elements, _DATA_SET_TYPE) != _NO_DATA_SET,
    )


def _command(elements: Mapping[int, bytes]) -> bytes:
    body = b"".join(
        _ELEMENT.pack(0, number, len(value)) + value for number, value in elements.items()
    )
    return _ELEMENT.pack(0, _GROUP_LENGTH, 4) + struct.pack("<L", len(body)) + body


def _elements(data: bytes) -> dict[int, bytes]:
    elements: dict[int, bytes] = {}
    offset = 0
    while offset < len(data):
        if offset + _ELEMENT.size > len(data):
            raise ProtocolError("a command element is cut short")
        group, number, length = _ELEMENT.unpack_from(data, offset)
        offset += _ELEMENT.size
        if group != 0 or offset + length > len(data):
            raise ProtocolError("the command set is malformed")
        elements[number] = data[offset : offset + length]
        offset += length
    return elements


def _number(elements: Mapping[int, bytes], number: int) -> int:
    value = elements.get(number, b"")
    if len(value) != 2:
        raise ProtocolError(f"the answer has no usable (0000,{number:04X})")
    return int.from_bytes(value, "little")


def _us(value: int) -> bytes:
    return struct.pack("<H", value)


def _uid(value: str) -> bytes:
    encoded = value.encode("ascii", "replace")
    return encoded + b"\0" * (len(encoded) % 2)
