"""DIMSE messages out of P-DATA-TF PDUs (PS3.8 9.3.5, Annex E), in place and as they come.

The reader is fed whatever the connection had. The lengths that a peer declares are counters here:
nothing is ever allocated for them, so a PDU of 4 GB costs what one of 4 KB does.
"""

from __future__ import annotations

import struct
from enum import Enum, IntEnum
from typing import Protocol

P_DATA_TF = 0x04

_HEADER_BYTES = 6  # of a PDU, and of a PDV with its Message Control Header alike
_PDU_HEADER = struct.Struct(">BxL")
_PDV_HEADER = struct.Struct(">LBB")
_COMMAND = 0x01
_LAST = 0x02

# A Command Set has a few dozen short elements.
_MAX_COMMAND_BYTES = 16 * 1024
# writev(2) takes 1024 at once.
_MAX_FRAGMENTS = 512


class AbortReason(IntEnum):
    """Reason of an A-ABORT by the service-provider (PS3.8 Table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNEXPECTED_PDU_PARAMETER = 5
    INVALID_PDU_PARAMETER_VALUE = 6


class ProtocolError(Exception):
    """The peer breaks PS3.8 or PS3.7 in a way that leaves nothing to answer but A-ABORT."""

    def __init__(self, reason: AbortReason, text: str) -> None:
        super().__init__(reason, text)
        self.reason, self.text = reason, text

    def __str__(self) -> str:
        return self.text


class MessageHandler(Protocol):
    """Who gets the messages. Any method may raise ProtocolError."""

    def command(self, context_id: int, command: bytes) -> bool:
        """A whole Command Set; True if a data set follows."""

    def data(self, fragments: list[memoryview]) -> None:
        """More of the data set, in order; the fragments are gone once this returns."""

    def end(self) -> None:
        """The message is complete."""


class Stopped(Enum):
    """Why the reader stopped taking bytes."""

    NEEDS_MORE = "what is left is no whole header"
    MESSAGE_ENDED = "a message is complete"
    OTHER_PDU = "a PDU of another type begins"


class MessageReader:
    """Reads the messages of one association for `handler`."""

    def __init__(self, handler: MessageHandler) -> None:
        self._handler = handler
        self._pdu_left = 0
        self._pdv_left = 0
        self._in_pdv = False
        self._context_id = 0
        self._control = 0
        self._command = bytearray()
        self._in_command = False
        self._in_data_set = False

    @property
    def is_idle(self) -> bool:
        """Between two messages and two PDUs: nothing of either has been read."""
        return not (self._pdu_left or self._in_pdv or self._in_command or self._in_data_set)

    def feed(self, view: memoryview, start: int, end: int) -> tuple[int, Stopped]:
        """Take bytes of `view[start:end]`; returns where the untaken ones start, and why.

        Raises: ProtocolError, after which the reader is of no more use.
        """
        position = start
        fragments: list[memoryview] = []
        while True:
            if self._in_pdv:
                take = min(self._pdv_left, end - position)
                if take:
                    fragment = view[position : position + take]
                    position += take
                    self._pdv_left -= take
                    self._pdu_left -= take
                    if self._control & _COMMAND:
                        self._add_to_command(fragment)
                    else:
                        fragments.append(fragment)
                        if len(fragments) == _MAX_FRAGMENTS:
                            self._handler.data(fragments)
                            fragments = []
                if self._pdv_left:
                    break
                self._in_pdv = False
                if self._control & _LAST and self._end_part(fragments):
                    return position, Stopped.MESSAGE_ENDED
            elif self._pdu_left:
                if self._pdu_left < _HEADER_BYTES:
                    raise _invalid("a P-DATA-TF PDU ends within the header of a PDV")
                if end - position < _HEADER_BYTES:
                    break
                self._begin_pdv(*_PDV_HEADER.unpack_from(view, position))
                position += _HEADER_BYTES
            else:
                if position < end and view[position] != P_DATA_TF:
                    # Only between messages: a release in the middle of one is out of order too,
                    # and the state machine or the staged file's end deals with both.
                    self._flush(fragments)
                    return position, Stopped.OTHER_PDU
                if end - position < _HEADER_BYTES:
                    break
                _, self._pdu_left = _PDU_HEADER.unpack_from(view, position)
                if self._pdu_left < _HEADER_BYTES:
                    raise _invalid("a P-DATA-TF PDU has no PDV")
                position += _HEADER_BYTES
        self._flush(fragments)
        return position, Stopped.NEEDS_MORE

    def _begin_pdv(self, item_length: int, context_id: int, control: int) -> None:
        # The item's length counts Presentation Context ID and Message Control Header.
        if item_length < 2 or item_length + 4 > self._pdu_left:
            raise _invalid("the length of a PDV does not fit its PDU")
        is_command = bool(control & _COMMAND)
        if is_command == self._in_data_set:
            raise _unexpected("command and data set fragments out of order")
        if (self._in_command or self._in_data_set) and context_id != self._context_id:
            raise _unexpected("a message changes its Presentation Context")
        self._pdu_left -= _HEADER_BYTES
        self._pdv_left = item_length - 2
        self._context_id, self._control = context_id, control
        self._in_pdv = True
        self._in_command = is_command

    def _add_to_command(self, fragment: memoryview) -> None:
        if len(self._command) + len(fragment) > _MAX_COMMAND_BYTES:
            raise _invalid("a Command Set is too long")
        self._command += fragment

    def _end_part(self, fragments: list[memoryview]) -> bool:
        """A Command Set or a data set is complete; True if so is the message."""
        if self._control & _COMMAND:
            command = bytes(self._command)
            self._command.clear()
            self._in_command = False
            self._in_data_set = self._handler.command(self._context_id, command)
            if self._in_data_set:
                return False
        else:
            self._flush(fragments)
            self._in_data_set = False
        self._handler.end()
        return True

    def _flush(self, fragments: list[memoryview]) -> None:
        if fragments:
            self._handler.data(fragments)


def _invalid(text: str) -> ProtocolError:
    return ProtocolError(AbortReason.INVALID_PDU_PARAMETER_VALUE, text)


def _unexpected(text: str) -> ProtocolError:
    return ProtocolError(AbortReason.UNEXPECTED_PDU_PARAMETER, text)
