"""DIMSE messages as they cross an association: Command Sets that are read, PDUs that are sent."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from scp_gateway.dimse_status import Answer
from shared.dicom import command_set
from shared.dicom.command_set import MalformedCommandSetError, text_of, uid, us, words
from shared.dicom.commitment import STORAGE_COMMITMENT_PUSH_MODEL, WELL_KNOWN_INSTANCE
from shared.ports import Buffer

_PDU_AND_PDV_HEADER = struct.Struct(">BxLLBB")
_P_DATA_TF = 0x04
_DATA_FRAGMENT, _LAST_DATA_FRAGMENT, _LAST_COMMAND_FRAGMENT = 0x00, 0x02, 0x03
_PDV_HEADER_BYTES = 6
# Of a peer that says that it has no limit.
_LARGEST_FRAGMENT_BYTES = 64 * 1024
# Error Comment is an LO.
_MOST_CHARACTERS = 64


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
    values = command_set.elements_of(data)
    data_set_type = values.get(command_set.COMMAND_DATA_SET_TYPE, b"")
    try:
        return Command(
            field=command_set.number_of(values[command_set.COMMAND_FIELD]),
            # A response, or C-CANCEL, has the ID of a request instead of one of its own.
            message_id=_number(
                values, command_set.MESSAGE_ID, command_set.MESSAGE_ID_BEING_RESPONDED_TO
            ),
            has_data_set=command_set.number_of(data_set_type) != command_set.NO_DATA_SET,
            affected_sop_class_uid=_text(values, command_set.AFFECTED_SOP_CLASS_UID),
            affected_sop_instance_uid=_text(values, command_set.AFFECTED_SOP_INSTANCE_UID),
            requested_sop_class_uid=_text(values, command_set.REQUESTED_SOP_CLASS_UID),
            requested_sop_instance_uid=_text(values, command_set.REQUESTED_SOP_INSTANCE_UID),
            type_id=_number(values, command_set.ACTION_TYPE_ID, command_set.EVENT_TYPE_ID),
            status=_number(values, command_set.STATUS),
            move_originator=_ae_title(values.get(command_set.MOVE_ORIGINATOR_AE_TITLE, b"")),
            move_destination=_ae_title(values.get(command_set.MOVE_DESTINATION, b"")),
        )
    except (KeyError, struct.error):
        raise MalformedCommandSetError("a required element is missing or of a wrong size") from None


def store_response(context_id: int, request: Command, answer: Answer) -> bytes:
    """The P-DATA-TF PDU with the C-STORE response (PS3.7 9.3.1.2), ready to send."""
    elements: dict[int, bytes] = {}
    if request.affected_sop_class_uid:
        elements[command_set.AFFECTED_SOP_CLASS_UID] = uid(request.affected_sop_class_uid)
    elements |= _answered(request, answer)
    if request.affected_sop_instance_uid:
        elements[command_set.AFFECTED_SOP_INSTANCE_UID] = uid(request.affected_sop_instance_uid)
    return _command_pdu(context_id, command_set.encoded(elements))


def normalized_response(context_id: int, request: Command, answer: Answer) -> bytes:
    """The P-DATA-TF PDU with the response to N-ACTION or N-EVENT-REPORT (PS3.7 10.3), or to any
    other request, without a data set.
    """
    sop_class_uid = request.affected_sop_class_uid or request.requested_sop_class_uid
    sop_instance_uid = request.affected_sop_instance_uid or request.requested_sop_instance_uid
    elements = {
        command_set.AFFECTED_SOP_CLASS_UID: uid(sop_class_uid),
        **_answered(request, answer),
        command_set.AFFECTED_SOP_INSTANCE_UID: uid(sop_instance_uid),
    }
    if request.field == command_set.N_EVENT_REPORT_RQ:
        elements[command_set.EVENT_TYPE_ID] = us(request.type_id)
    elif request.field == command_set.N_ACTION_RQ:
        elements[command_set.ACTION_TYPE_ID] = us(request.type_id)
    return _command_pdu(context_id, command_set.encoded(elements))


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
    elements = {
        command_set.AFFECTED_SOP_CLASS_UID: uid(request.affected_sop_class_uid),
        **_answered(request, answer, has_data_set=bool(identifier)),
    }
    if counts is not None:
        if counts.remaining:
            elements[command_set.NUMBER_OF_REMAINING_SUB_OPERATIONS] = _count(counts.remaining)
        elements |= {
            command_set.NUMBER_OF_COMPLETED_SUB_OPERATIONS: _count(counts.completed),
            command_set.NUMBER_OF_FAILED_SUB_OPERATIONS: _count(counts.failed),
            command_set.NUMBER_OF_WARNING_SUB_OPERATIONS: _count(counts.warning),
        }
    return _message(context_id, command_set.encoded(elements), identifier, max_pdu_size)


def event_report_request(
    context_id: int, message_id: int, event_type_id: int, data_set: bytes, max_pdu_size: int
) -> bytes:
    """The P-DATA-TF PDUs of an N-EVENT-REPORT of storage commitment (PS3.4 J.3.3);
    `max_pdu_size` as of `query_response`.
    """
    command = command_set.event_report_request(
        message_id, STORAGE_COMMITMENT_PUSH_MODEL, WELL_KNOWN_INSTANCE, event_type_id
    )
    return _message(context_id, command, data_set, max_pdu_size)


def store_request(
    context_id: int, message_id: int, sop_class_uid: str, sop_instance_uid: str
) -> bytes:
    """The P-DATA-TF PDU of a C-STORE request (PS3.7 9.3.1.1), which a data set follows."""
    request = command_set.store_request(message_id, sop_class_uid, sop_instance_uid)
    return _command_pdu(context_id, request)


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


def _message(context_id: int, command: bytes, data_set: bytes, max_pdu_size: int) -> bytes:
    data = data_pdus(context_id, [data_set], len(data_set), max_pdu_size)
    return _command_pdu(context_id, command) + b"".join(data)


def _command_pdu(context_id: int, command: bytes) -> bytes:
    return _pdu(context_id, _LAST_COMMAND_FRAGMENT, command)


def _pdu(context_id: int, control: int, fragment: bytes) -> bytes:
    size = len(fragment)
    return _PDU_AND_PDV_HEADER.pack(_P_DATA_TF, size + 6, size + 2, context_id, control) + fragment


def _answered(request: Command, answer: Answer, *, has_data_set: bool = False) -> dict[int, bytes]:
    """What every response says, but of whom."""
    follows = command_set.DATA_SET if has_data_set else command_set.NO_DATA_SET
    elements = {
        command_set.COMMAND_FIELD: us(request.field | command_set.RESPONSE),
        command_set.MESSAGE_ID_BEING_RESPONDED_TO: us(request.message_id),
        command_set.COMMAND_DATA_SET_TYPE: us(follows),
        command_set.STATUS: us(answer.status),
    }
    if answer.comment:
        elements[command_set.ERROR_COMMENT] = words(answer.comment[:_MOST_CHARACTERS])
    return elements


def _count(number: int) -> bytes:
    return us(min(number, 0xFFFF))


def _number(values: Mapping[int, bytes], *elements: int) -> int:
    """The first of the elements that there is; 0 if there is none."""
    for element in elements:
        if element in values:
            return command_set.number_of(values[element])
    return 0


def _text(values: Mapping[int, bytes], element: int) -> str:
    return text_of(values.get(element, b""))


def _ae_title(value: bytes) -> str:
    text = text_of(value[:16])
    return text if text.isascii() and text.isprintable() else ""
