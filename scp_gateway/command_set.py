"""Command Sets (PS3.7 6.3.1, Annex E): read any, write ours.

A Command Set is always Implicit VR Little Endian, so a dozen lines read and write it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from scp_gateway.dimse_status import Answer
from shared.dicom.commitment import STORAGE_COMMITMENT_PUSH_MODEL, WELL_KNOWN_INSTANCE
from shared.ports import Buffer

C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
C_GET_RQ, C_FIND_RQ, C_MOVE_RQ = 0x0010, 0x0020, 0x0021
C_CANCEL_RQ = 0x0FFF
N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP = 0x0100, 0x8100
N_ACTION_RQ = 0x0130
_RESPONSE = 0x8000
NO_DATA_SET = 0x0101  # Command Data Set Type (0000,0800); any other value says there is one

_AFFECTED_SOP_CLASS_UID = 0x0002
_REQUESTED_SOP_CLASS_UID = 0x0003
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_MOVE_DESTINATION = 0x0600
_PRIORITY = 0x0700
_COMMAND_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_REQUESTED_SOP_INSTANCE_UID = 0x1001
_EVENT_TYPE_ID = 0x1002
_ACTION_TYPE_ID = 0x1008
_NUMBER_OF_REMAINING_SUB_OPERATIONS = 0x1020
_NUMBER_OF_COMPLETED_SUB_OPERATIONS = 0x1021
_NUMBER_OF_FAILED_SUB_OPERATIONS = 0x1022
_NUMBER_OF_WARNING_SUB_OPERATIONS = 0x1023
_MOVE_ORIGINATOR_AE_TITLE = 0x1030

_ELEMENT = struct.Struct("<HHL")
_US = struct.Struct("<H")
_PDU_AND_PDV_HEADER = struct.Struct(">BxLLBB")
_P_DATA_TF = 0x04
_DATA_FRAGMENT, _LAST_DATA_FRAGMENT, _LAST_COMMAND_FRAGMENT = 0x00, 0x02, 0x03
_PDV_HEADER_BYTES = 6
# Of a peer that says that it has no limit.
_LARGEST_FRAGMENT_BYTES = 64 * 1024


class MalformedCommandSetError(ValueError):
    """The bytes are no Command Set, or lack what every request has."""


@dataclass(frozen=True, slots=True)
class Command:
    """What the gateway has to know of a Command Set. An absent UID is "", an absent number 0."""

    field: int
    message_id: int  # of a response: the one responded to
    has_data_set: bool
    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    requested_sop_class_uid: str = ""
    requested_sop_instance_uid: str = ""
    type_id: int = 0  # Action Type ID or Event Type ID
    status: int = 0
    # Who had a C-MOVE SCP send this (PS3.7 9.3.1.1), "" if nobody had.
    move_originator: str = ""
    # Where a C-MOVE is to send (PS3.7 9.3.4.1).
    move_destination: str = ""


@dataclass(frozen=True, slots=True)
class SubOperations:
    """How many C-STORE sub-operations of a C-MOVE or C-GET came to what (PS3.7 9.3.4.2)."""

    remaining: int  # None are told in a final response
    completed: int
    failed: int
    warning: int


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
            message_id=_number(values, _MESSAGE_ID, _MESSAGE_ID_BEING_RESPONDED_TO),
            has_data_set=_US.unpack(values[_COMMAND_DATA_SET_TYPE])[0] != NO_DATA_SET,
            affected_sop_class_uid=_uid(values.get(_AFFECTED_SOP_CLASS_UID, b"")),
            affected_sop_instance_uid=_uid(values.get(_AFFECTED_SOP_INSTANCE_UID, b"")),
            requested_sop_class_uid=_uid(values.get(_REQUESTED_SOP_CLASS_UID, b"")),
            requested_sop_instance_uid=_uid(values.get(_REQUESTED_SOP_INSTANCE_UID, b"")),
            type_id=_number(values, _ACTION_TYPE_ID, _EVENT_TYPE_ID),
            status=_number(values, _STATUS),
            move_originator=_ae_title(values.get(_MOVE_ORIGINATOR_AE_TITLE, b"")),
            move_destination=_ae_title(values.get(_MOVE_DESTINATION, b"")),
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
    return _command_pdu(context_id, elements)


def normalized_response(context_id: int, request: Command, answer: Answer) -> bytes:
    """The P-DATA-TF PDU with the response to N-ACTION or N-EVENT-REPORT (PS3.7 10.3), or to any
    other request, without a data set.
    """
    sop_class_uid = request.affected_sop_class_uid or request.requested_sop_class_uid
    sop_instance_uid = request.affected_sop_instance_uid or request.requested_sop_instance_uid
    elements = [
        _element(_AFFECTED_SOP_CLASS_UID, _padded(sop_class_uid, b"\0")),
        _element(_COMMAND_FIELD, _US.pack(request.field | _RESPONSE)),
        _element(_MESSAGE_ID_BEING_RESPONDED_TO, _US.pack(request.message_id)),
        _element(_COMMAND_DATA_SET_TYPE, _US.pack(NO_DATA_SET)),
        _element(_STATUS, _US.pack(answer.status)),
    ]
    if answer.comment:
        elements.append(_element(_ERROR_COMMENT, _padded(answer.comment[:64], b" ")))
    elements.append(_element(_AFFECTED_SOP_INSTANCE_UID, _padded(sop_instance_uid, b"\0")))
    if request.field in (N_ACTION_RQ, N_EVENT_REPORT_RQ):
        number = _ACTION_TYPE_ID if request.field == N_ACTION_RQ else _EVENT_TYPE_ID
        elements.append(_element(number, _US.pack(request.type_id)))
    return _command_pdu(context_id, elements)


def event_report_request(
    context_id: int, message_id: int, event_type_id: int, data_set: bytes, max_pdu_size: int
) -> bytes:
    """The P-DATA-TF PDUs of an N-EVENT-REPORT of storage commitment (PS3.4 J.3.3).

    `max_pdu_size` is the peer's limit; 0 is none.
    """
    command = _command_pdu(
        context_id,
        [
            _element(_AFFECTED_SOP_CLASS_UID, _padded(STORAGE_COMMITMENT_PUSH_MODEL, b"\0")),
            _element(_COMMAND_FIELD, _US.pack(N_EVENT_REPORT_RQ)),
            _element(_MESSAGE_ID, _US.pack(message_id)),
            _element(_COMMAND_DATA_SET_TYPE, _US.pack(0)),
            _element(_AFFECTED_SOP_INSTANCE_UID, _padded(WELL_KNOWN_INSTANCE, b"\0")),
            _element(_EVENT_TYPE_ID, _US.pack(event_type_id)),
        ],
    )
    return command + b"".join(data_pdus(context_id, [data_set], len(data_set), max_pdu_size))


def query_response(
    context_id: int,
    request: Command,
    answer: Answer,
    *,
    identifier: bytes = b"",
    counts: SubOperations | None = None,
    max_pdu_size: int = 0,
) -> bytes:
    """The P-DATA-TF PDUs of a response to C-FIND, C-GET or C-MOVE (PS3.7 9.3.2 to 9.3.4).

    `max_pdu_size` is the peer's limit; 0 is none.
    """
    elements = [
        _element(_AFFECTED_SOP_CLASS_UID, _padded(request.affected_sop_class_uid, b"\0")),
        _element(_COMMAND_FIELD, _US.pack(request.field | _RESPONSE)),
        _element(_MESSAGE_ID_BEING_RESPONDED_TO, _US.pack(request.message_id)),
        _element(_COMMAND_DATA_SET_TYPE, _US.pack(0 if identifier else NO_DATA_SET)),
        _element(_STATUS, _US.pack(answer.status)),
    ]
    if answer.comment:
        elements.append(_element(_ERROR_COMMENT, _padded(answer.comment[:64], b" ")))
    if counts is not None:
        numbers = {
            _NUMBER_OF_REMAINING_SUB_OPERATIONS: counts.remaining,
            _NUMBER_OF_COMPLETED_SUB_OPERATIONS: counts.completed,
            _NUMBER_OF_FAILED_SUB_OPERATIONS: counts.failed,
            _NUMBER_OF_WARNING_SUB_OPERATIONS: counts.warning,
        }
        for element, number in numbers.items():
            if element != _NUMBER_OF_REMAINING_SUB_OPERATIONS or counts.remaining:
                elements.append(_element(element, _US.pack(min(number, 0xFFFF))))
    command = _command_pdu(context_id, elements)
    return command + b"".join(data_pdus(context_id, [identifier], len(identifier), max_pdu_size))


def store_request(
    context_id: int, message_id: int, sop_class_uid: str, sop_instance_uid: str
) -> bytes:
    """The P-DATA-TF PDU of a C-STORE request (PS3.7 9.3.1.1), which a data set follows."""
    return _command_pdu(
        context_id,
        [
            _element(_AFFECTED_SOP_CLASS_UID, _padded(sop_class_uid, b"\0")),
            _element(_COMMAND_FIELD, _US.pack(C_STORE_RQ)),
            _element(_MESSAGE_ID, _US.pack(message_id)),
            _element(_PRIORITY, _US.pack(0)),
            _element(_COMMAND_DATA_SET_TYPE, _US.pack(0)),
            _element(_AFFECTED_SOP_INSTANCE_UID, _padded(sop_instance_uid, b"\0")),
        ],
    )


def data_pdus(
    context_id: int, pieces: Iterable[Buffer], size: int, max_pdu_size: int
) -> Iterator[bytes]:
    """The P-DATA-TF PDUs of a data set of `size` bytes; `max_pdu_size` as of `query_response`."""
    # A fragment has an even number of bytes (PS3.8 E.1).
    room = max_pdu_size - _PDV_HEADER_BYTES if max_pdu_size else _LARGEST_FRAGMENT_BYTES
    room = max(2, min(room, _LARGEST_FRAGMENT_BYTES) & ~1)
    held = bytearray()
    left = size
    for piece in pieces:
        held += piece
        while left and len(held) >= min(room, left):
            fragment = bytes(held[: min(room, left)])
            del held[: len(fragment)]
            left -= len(fragment)
            control = _DATA_FRAGMENT if left else _LAST_DATA_FRAGMENT
            yield _pdu(context_id, control, fragment)


def _command_pdu(context_id: int, elements: Sequence[bytes]) -> bytes:
    body = b"".join(elements)
    command = _element(0x0000, struct.pack("<L", len(body))) + body
    return _pdu(context_id, _LAST_COMMAND_FRAGMENT, command)


def _pdu(context_id: int, control: int, fragment: bytes) -> bytes:
    size = len(fragment)
    return _PDU_AND_PDV_HEADER.pack(_P_DATA_TF, size + 6, size + 2, context_id, control) + fragment


def _number(values: Mapping[int, bytes], *elements: int) -> int:
    """The first of the elements that there is; 0 if there is none."""
    for element in elements:
        if element in values:
            return int(_US.unpack(values[element])[0])
    return 0


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _padded(text: str, pad: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + pad if len(value) % 2 else value


def _ae_title(value: bytes) -> str:
    text = value[:16].decode("ascii", "replace").strip("\0 ")
    return text if text.isascii() and text.isprintable() else ""


def _uid(value: bytes) -> str:
    # Some senders pad with spaces, or pad twice.
    return value.decode("ascii", "replace").strip("\0 ")
