"""Command Sets (PS3.7 6.3.1, Annex E): read any, write the C-STORE response.

A Command Set is always Implicit VR Little Endian, so a dozen lines read and write it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from scp_gateway.dimse_status import Answer

C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
NO_DATA_SET = 0x0101  # Command Data Set Type (0000,0800); any other value says there is one

_AFFECTED_SOP_CLASS_UID = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_COMMAND_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000

_ELEMENT = struct.Struct("<HHL")
_US = struct.Struct("<H")
_PDU_AND_PDV_HEADER = struct.Struct(">BxLLBB")
_P_DATA_TF = 0x04
_LAST_COMMAND_FRAGMENT = 0x03


class MalformedCommandSetError(ValueError):
    """The bytes are no Command Set, or lack what every request has."""


@dataclass(frozen=True, slots=True)
class Command:
    """What the gateway has to know of a Command Set. An absent UID is ""."""

    field: int
    message_id: int
    has_data_set: bool
    affected_sop_class_uid: str
    affected_sop_instance_uid: str


def parse_command(data: bytes) -> Command:
    """Raises: MalformedCommandSetError."""
    values: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        if len(data) - position < _ELEMENT.size:
            raise MalformedCommandSetError("it ends within an element")
        group, element, length = _ELEMENT.unpack_from(data, position)
        position += _ELEMENT.size
        if group != 0 or length > len(data) - position:
            raise MalformedCommandSetError("an element is of another group or too long")
        values[element] = data[position : position + length]
        position += length
    try:
        return Command(
            field=_US.unpack(values[_COMMAND_FIELD])[0],
            # A response, or C-CANCEL, has the ID of a request instead of one of its own.
            message_id=_US.unpack(values[_MESSAGE_ID])[0] if _MESSAGE_ID in values else 0,
            has_data_set=_US.unpack(values[_COMMAND_DATA_SET_TYPE])[0] != NO_DATA_SET,
            affected_sop_class_uid=_uid(values.get(_AFFECTED_SOP_CLASS_UID, b"")),
            affected_sop_instance_uid=_uid(values.get(_AFFECTED_SOP_INSTANCE_UID, b"")),
        )
    except (KeyError, struct.error):
        raise MalformedCommandSetError("a required element is missing or of a wrong size") from None


def store_response(context_id: int, request: Command, answer: Answer) -> bytes:
    """The P-DATA-TF PDU with the C-STORE response (PS3.7 9.3.1.2), ready to send."""
    elements = [
        _element(_COMMAND_FIELD, _US.pack(C_STORE_RSP)),
        _element(_MESSAGE_ID_BEING_RESPONDED_TO, _US.pack(request.message_id)),
        _element(_COMMAND_DATA_SET_TYPE, _US.pack(NO_DATA_SET)),
        _element(_STATUS, _US.pack(answer.status)),
    ]
    if answer.comment:
        elements.append(_element(_ERROR_COMMENT, _padded(answer.comment, b" ")))
    if request.affected_sop_class_uid:
        elements.insert(
            0, _element(_AFFECTED_SOP_CLASS_UID, _padded(request.affected_sop_class_uid, b"\0"))
        )
    if request.affected_sop_instance_uid:
        uid = _padded(request.affected_sop_instance_uid, b"\0")
        elements.append(_element(_AFFECTED_SOP_INSTANCE_UID, uid))
    body = b"".join(elements)
    command = _element(0x0000, struct.pack("<L", len(body))) + body
    header = _PDU_AND_PDV_HEADER.pack(
        _P_DATA_TF, len(command) + 6, len(command) + 2, context_id, _LAST_COMMAND_FRAGMENT
    )
    return header + command


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _padded(text: str, pad: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + pad if len(value) % 2 else value


def _uid(value: bytes) -> str:
    # Some senders pad with spaces, or pad twice.
    return value.decode("ascii", "replace").strip("\0 ")
