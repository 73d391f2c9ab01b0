"""What a peer answers: the Command Sets (PS3.7 6.3.1) of responses, and of its reports."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from msgspec import Struct

from shared.adapters.destinations.upper_layer import ProtocolError
from shared.dicom import command_set
from shared.dicom.command_set import MalformedCommandSetError, text_of, us


class Response(Struct, frozen=True):
    """A DIMSE response. `words` are the peer's: comment, error ID and offending tags."""

    status: int
    words: str
    has_data_set: bool


def parse_response(data: bytes, request: int, message_id: int) -> Response:
    """Read the response to the request with this Command Field and Message ID.

    Raises: ProtocolError.
    """
    elements = _elements(data)
    if _number(elements, command_set.COMMAND_FIELD) != request | command_set.RESPONSE:
        raise ProtocolError("the answer is not the response to what was asked")
    if _number(elements, command_set.MESSAGE_ID_BEING_RESPONDED_TO) != message_id:
        raise ProtocolError("the answer responds to another message")
    words = []
    if comment := elements.get(command_set.ERROR_COMMENT):
        words.append(text_of(comment))
    if error_id := elements.get(command_set.ERROR_ID):
        words.append(f"error {int.from_bytes(error_id[:2], 'little')}")
    if offending := elements.get(command_set.OFFENDING_ELEMENT):
        tags = struct.iter_unpack("<HH", offending[: len(offending) // 4 * 4])
        words.append("offending " + " ".join(f"({g:04X},{e:04X})" for g, e in tags))
    return Response(
        status=_number(elements, command_set.STATUS),
        words=", ".join(filter(None, words)),
        has_data_set=_has_data_set(elements),
    )


def has_data_set(command: bytes) -> bool:
    """True if a data set follows the Command Set. Raises: ProtocolError."""
    return _has_data_set(_elements(command))


def event_report_answer(request: bytes) -> bytes | None:
    """The N-EVENT-REPORT-RSP that takes the report of this request (PS3.7 10.3.1.2); None if it is
    another message. Raises: ProtocolError.
    """
    elements = _elements(request)
    if _number(elements, command_set.COMMAND_FIELD) != command_set.N_EVENT_REPORT_RQ:
        return None
    sop_class_uid = elements.get(command_set.AFFECTED_SOP_CLASS_UID, b"")
    sop_instance_uid = elements.get(command_set.AFFECTED_SOP_INSTANCE_UID, b"")
    return command_set.encoded(
        {
            command_set.AFFECTED_SOP_CLASS_UID: sop_class_uid,
            command_set.COMMAND_FIELD: us(command_set.N_EVENT_REPORT_RSP),
            command_set.MESSAGE_ID_BEING_RESPONDED_TO: us(
                _number(elements, command_set.MESSAGE_ID)
            ),
            command_set.COMMAND_DATA_SET_TYPE: us(command_set.NO_DATA_SET),
            command_set.STATUS: us(0x0000),
            command_set.AFFECTED_SOP_INSTANCE_UID: sop_instance_uid,
            command_set.EVENT_TYPE_ID: us(_number(elements, command_set.EVENT_TYPE_ID)),
        }
    )


def _has_data_set(elements: Mapping[int, bytes]) -> bool:
    return _number(elements, command_set.COMMAND_DATA_SET_TYPE) != command_set.NO_DATA_SET


def _elements(data: bytes) -> dict[int, bytes]:
    try:
        return command_set.elements_of(data)
    except MalformedCommandSetError as error:
        raise ProtocolError(f"the command set is malformed: {error}") from None


def _number(elements: Mapping[int, bytes], number: int) -> int:
    try:
        return command_set.number_of(elements[number])
    except (KeyError, struct.error):
        raise ProtocolError(f"the answer has no usable (0000,{number:04X})") from None
