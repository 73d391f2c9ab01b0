"""One association as a Storage SCU (PS3.4 Annex B, PS3.8), and the only reader of its socket.

Data sets go out as they lie in the received file: 12 bytes of framing, then sendfile(2) where
nothing is encrypted, so that neither a decoder nor this process's memory ever sees the pixels.
Nothing here polls; an idle association costs a socket.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from msgspec import Struct

from shared.adapters.destinations import outcomes, responses, upper_layer
from shared.adapters.destinations.channel import Channel, Security, connect
from shared.adapters.destinations.responses import Response
from shared.adapters.destinations.upper_layer import Context, ProtocolError, Rejected
from shared.adapters.destinations.user_identity import Presents
from shared.dicom import command_set
from shared.dicom.commitment import REQUEST_STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE
from shared.dicom.outgoing import FileRange, Part
from shared.errors import TruncatedInstanceError

# A peer without a limit gets PDUs of this size: framing costs nothing then, and a peer that holds
# a PDU in memory holds no more.
_LARGEST_PDU_BYTES = 1 << 20
_LARGEST_ANSWER_BYTES = 1 << 20
_LARGEST_COMMAND_BYTES = 1 << 16
_GATHER_BUFFERS = 256  # sendmsg(2) takes at most 1024
_GATHER_BYTES = 1 << 20
_RECEIVE_BYTES = 1 << 16
_PARTING_S = 2.0


class AssociationRejectedError(Exception):
    """The peer answered with an A-ASSOCIATE-RJ."""

    def __init__(self, rejected: Rejected) -> None:
        super().__init__(rejected)
        self.rejected = rejected


class AssociationLostError(ConnectionError):
    """The association ended while an answer was awaited; the text says how."""


class Peer(Struct, frozen=True):
    """Whom to associate with, and as whom."""

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str
    max_pdu_size: int  # of what the peer sends to us; 0 is no limit
    timeout_s: float  # without progress, in either direction
    security: Security | None = None  # in the clear without it
    presents: Presents | None = None  # says nothing of itself without it


class Association:
    """An established association, used by one thread at a time.

    After any error it is of no more use: `abort` it. Raises, besides what each method says: OSError
    (AssociationLostError, and BlockingIOError where `timeout_s` went by), ProtocolError.
    """

    def __init__(
        self,
        peer: Peer,
        contexts: Sequence[Context],
        *,
        accept_within_s: float | None = None,
        scp_of: Sequence[str] = (),
    ) -> None:
        """Connect and negotiate `contexts`, at most `upper_layer.MAX_CONTEXTS` of them, and that we
        are SCP of the SOP Classes `scp_of`.

        Raises: AssociationRejectedError.
        """
        within_s = accept_within_s or peer.timeout_s
        identity = peer.presents() if peer.presents is not None else None
        self._buffer = bytearray()
        self._message_id = 0
        self._is_over = False
        self._events: list[bytes] = []  # reported and not asked for yet
        self._timeout_s = peer.timeout_s
        self.calling_ae_title = peer.calling_ae_title
        self._channel: Channel = connect((peer.host, peer.port), within_s, peer.security)
        try:
            self._channel.limit_waiting(within_s)
            self._send(
                [
                    upper_layer.associate_request(
                        peer.called_ae_title,
                        peer.calling_ae_title,
                        contexts,
                        peer.max_pdu_size,
                        scp_of,
                        identity,
                    )
                ]
            )
            accepted = self._negotiated(within_s)
            self._channel.limit_waiting(peer.timeout_s)
        except BaseException:
            self._channel.close()
            raise
        self.implementation = accepted.implementation
        self._context_ids = {
            context: upper_layer.context_id(index)
            for index, context in enumerate(contexts)
            if accepted.transfer_syntaxes.get(upper_layer.context_id(index))
            == context.transfer_syntax
        }
        limit = min(accepted.max_pdu_size or _LARGEST_PDU_BYTES, _LARGEST_PDU_BYTES)
        # A fragment has an even number of bytes (PS3.8 E.1).
        self._fragment_bytes = (limit - upper_layer.PDV_HEADER_BYTES) & ~1
        if self._fragment_bytes < 2:
            self.abort()
            raise ProtocolError(f"the peer takes PDUs of {limit} bytes, which hold nothing")

    def accepts(self, context: Context) -> bool:
        """True if the peer accepted this Presentation Context."""
        return context in self._context_ids

    @property
    def has_contexts(self) -> bool:
        return bool(self._context_ids)

    @property
    def was_used(self) -> bool:
        """True once a message was sent, so that the peer may have ended it meanwhile."""
        return self._message_id > 0

    def store(
        self,
        context: Context,
        sop_instance_uid: str,
        data_set: Sequence[Part],
        originator: tuple[str, int] | None = None,
    ) -> Response:
        """C-STORE one Instance whose data set is encoded as `context` says; `originator` is the AE
        Title and the Message ID of the C-MOVE that it is a part of.

        Raises: TruncatedInstanceError if the received file is shorter than it was.
        """
        message_id = self._next_message_id()
        request = command_set.store_request(
            message_id, context.abstract_syntax, sop_instance_uid, originator
        )
        number = self._context_ids[context]
        try:
            self._send_message(number, request, data_set)
        except ConnectionError:
            refusal = self._early_refusal(number, message_id)
            if refusal is None:
                raise
            return refusal
        return self._response(number, command_set.C_STORE_RQ, message_id, self._timeout_s)

    def echo(self, context: Context) -> Response:
        """C-ECHO (PS3.4 Annex A)."""
        message_id = self._next_message_id()
        number = self._context_ids[context]
        self._send_message(number, command_set.echo_request(message_id), [])
        return self._response(number, command_set.C_ECHO_RQ, message_id, self._timeout_s)

    def act(self, context: Context, data_set: bytes) -> Response:
        """N-ACTION that requests storage commitment (PS3.4 J.3.2)."""
        message_id = self._next_message_id()
        request = command_set.action_request(
            message_id, context.abstract_syntax, WELL_KNOWN_INSTANCE, REQUEST_STORAGE_COMMITMENT
        )
        number = self._context_ids[context]
        self._send_message(number, request, [data_set])
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            command, data = self._receive_message(number, deadline_s)
            # A peer that is quick may report before it responds.
            if not self._take_event(number, command, data):
                return responses.parse_response(command, command_set.N_ACTION_RQ, message_id)

    def report(self, context: Context, event_type_id: int, data_set: bytes) -> Response:
        """N-EVENT-REPORT of storage commitment (PS3.4 J.3.3)."""
        message_id = self._next_message_id()
        request = command_set.event_report_request(
            message_id, context.abstract_syntax, WELL_KNOWN_INSTANCE, event_type_id
        )
        number = self._context_ids[context]
        self._send_message(number, request, [data_set])
        return self._response(number, command_set.N_EVENT_REPORT_RQ, message_id, self._timeout_s)

    def await_event(self, context: Context, within_s: float) -> bytes | None:
        """The data set of the N-EVENT-REPORT that comes, which is answered with success; None if
        none begins to come in time.
        """
        number = self._context_ids[context]
        if not self._events:
            if not self._buffer and not self._channel.is_readable(within_s):
                return None
            command, data = self._receive_message(number, time.monotonic() + self._timeout_s)
            if not self._take_event(number, command, data):
                raise ProtocolError("a message came that is no N-EVENT-REPORT")
        return self._events.pop(0)

    @property
    def is_quiet(self) -> bool:
        """False if the peer has sent something unasked, or ended the association: it is over."""
        if self._is_over:
            return False
        return not self._buffer and not self._channel.is_readable(0)

    def release(self) -> None:
        """End the association in order (PS3.8 7.2); never raises, and takes two seconds at most."""
        with suppress(OSError, ProtocolError):
            self._channel.limit_waiting(_PARTING_S)
            self._send([upper_layer.RELEASE_RQ])
            deadline_s = time.monotonic() + _PARTING_S
            while True:
                kind, _ = self._receive_pdu(deadline_s)
                if kind == upper_layer.A_RELEASE_RQ:
                    # Both ask at once: the requestor answers first (PS3.8 7.2.2.7).
                    self._send([upper_layer.RELEASE_RP])
                else:
                    break
        self._channel.close()

    def abort(self) -> None:
        """End the association at once; never raises."""
        # Where a PDU was cut short the peer cannot read this, and sees the connection close.
        self._channel.send_last(upper_layer.ABORT)
        self._channel.close()

    # ---- sending ----------------------------------------------------------------------------

    def _send_message(self, number: int, command: bytes, data_set: Sequence[Part]) -> None:
        gathered: list[bytes | memoryview] = []
        for fragment, is_last in _fragments(command, self._fragment_bytes):
            control = upper_layer.COMMAND | (upper_layer.LAST if is_last else 0)
            gathered += [upper_layer.pdata_header(number, control, len(fragment)), fragment]
        self._send_data_set(number, data_set, gathered)

    def _send_data_set(
        self, number: int, data_set: Sequence[Part], gathered: list[bytes | memoryview]
    ) -> None:
        """Send what is `gathered`, then the data set in P-DATA-TFs, one PDV in each."""
        left = sum(map(len, data_set))
        room = 0  # bytes that are still to come in the PDU that was begun
        held = 0  # bytes of what is gathered, which keep their pieces in memory
        for piece in _pieces(data_set):
            done = 0
            while done < len(piece):
                if not room:
                    room = min(self._fragment_bytes, left)
                    control = upper_layer.LAST if room == left else 0
                    gathered.append(upper_layer.pdata_header(number, control, room))
                count = min(room, len(piece) - done)
                if isinstance(piece, FileRange):
                    self._send(gathered, more=True)
                    gathered = []
                    self._send_file(piece, done, count)
                else:
                    gathered.append(piece[done : done + count])
                    held += count
                    if len(gathered) >= _GATHER_BUFFERS or held >= _GATHER_BYTES:
                        self._send(gathered)
                        gathered, held = [], 0
                done += count
                room -= count
                left -= count
        self._send(gathered)

    def _send(self, buffers: Sequence[bytes | memoryview], *, more: bool = False) -> None:
        if buffers:
            self._channel.send(buffers, more=more)

    def _send_file(self, piece: FileRange, start: int, count: int) -> None:
        file = piece.reader.fileno()
        assert file is not None
        offset, end = piece.offset + start, piece.offset + start + count
        while offset < end:
            sent = self._channel.send_file(file, offset, end - offset)
            if not sent:
                raise TruncatedInstanceError("the received file", end, offset)
            offset += sent

    def _early_refusal(self, number: int, message_id: int) -> Response | None:
        """Why the peer closed while we were sending, if it says so."""
        self._is_over = True
        self._channel.limit_waiting(_PARTING_S)
        try:
            response = self._response(number, command_set.C_STORE_RQ, message_id, _PARTING_S)
        except BlockingIOError:
            return None
        # What was cut short is not stored, whatever the peer says of it.
        return None if outcomes.dimse_status(response.status).outcome.is_stored else response

    # ---- receiving --------------------------------------------------------------------------

    def _negotiated(self, within_s: float) -> upper_layer.Accepted:
        kind, body = self._receive_pdu(time.monotonic() + within_s)
        if kind == upper_layer.A_ASSOCIATE_AC:
            return upper_layer.parse_associate_accept(body)
        if kind == upper_layer.A_ASSOCIATE_RJ:
            raise AssociationRejectedError(upper_layer.parse_associate_reject(body))
        if kind == upper_layer.A_ABORT:
            raise AssociationLostError(f"aborted {upper_layer.abort_reason(body)}")
        raise ProtocolError(f"PDU type {kind:02X}H answers an A-ASSOCIATE-RQ")

    def _response(self, number: int, request: int, message_id: int, within_s: float) -> Response:
        deadline_s = time.monotonic() + within_s
        command = bytearray()
        response: Response | None = None
        while True:
            kind, body = self._receive_pdu(deadline_s)
            if kind == upper_layer.A_ABORT:
                raise AssociationLostError(f"aborted {upper_layer.abort_reason(body)}")
            if kind == upper_layer.A_RELEASE_RQ:
                raise AssociationLostError("released before it answered")
            if kind != upper_layer.P_DATA_TF:
                raise ProtocolError(f"PDU type {kind:02X}H where a response is due")
            for pdv_number, control, fragment in upper_layer.pdvs(body):
                if pdv_number != number:
                    raise ProtocolError("the answer came in another Presentation Context")
                if control & upper_layer.COMMAND:
                    command += fragment
                    if len(command) > _LARGEST_COMMAND_BYTES:
                        raise ProtocolError("the answer's command set is too large")
                    if control & upper_layer.LAST:
                        response = responses.parse_response(bytes(command), request, message_id)
                        if not response.has_data_set:
                            return response
                elif response is not None and control & upper_layer.LAST:
                    # No response to C-STORE or C-ECHO has a data set; one that has is read past.
                    return response

    def _receive_message(self, number: int, deadline_s: float) -> tuple[bytes, bytes]:
        """The command set and the data set of whatever message comes."""
        command, data = bytearray(), bytearray()
        while True:
            kind, body = self._receive_pdu(deadline_s)
            if kind != upper_layer.P_DATA_TF:
                raise AssociationLostError("ended before it answered")
            for pdv_number, control, fragment in upper_layer.pdvs(body):
                if pdv_number != number:
                    raise ProtocolError("the answer came in another Presentation Context")
                part = command if control & upper_layer.COMMAND else data
                part += fragment
                if len(part) > _LARGEST_ANSWER_BYTES:
                    raise ProtocolError("the answer is too large")
                if control & upper_layer.LAST and (
                    part is data or not responses.has_data_set(bytes(command))
                ):
                    return bytes(command), bytes(data)

    def _take_event(self, number: int, command: bytes, data: bytes) -> bool:
        """Answer an N-EVENT-REPORT with success and keep it; False if the message is none."""
        answer = responses.event_report_answer(command)
        if answer is None:
            return False
        self._send_message(number, answer, [])
        self._events.append(data)
        return True

    def _receive_pdu(self, deadline_s: float) -> tuple[int, bytes]:
        kind, length = upper_layer.parse_pdu_header(
            self._receive(upper_layer.PDU_HEADER_BYTES, deadline_s)
        )
        if length > _LARGEST_ANSWER_BYTES:
            raise ProtocolError(f"a PDU of {length} bytes where an answer is due")
        return kind, self._receive(length, deadline_s)

    def _receive(self, count: int, deadline_s: float) -> bytes:
        while len(self._buffer) < count:
            if time.monotonic() > deadline_s:
                raise BlockingIOError("the answer is too slow")
            received = self._channel.receive(_RECEIVE_BYTES)
            if not received:
                raise AssociationLostError("the peer closed the connection")
            self._buffer += received
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id


def _fragments(data: bytes, size: int) -> Iterator[tuple[bytes, bool]]:
    for start in range(0, len(data), size):
        yield data[start : start + size], start + size >= len(data)


def _pieces(parts: Sequence[Part]) -> Iterator[memoryview | FileRange]:
    """The parts, those that sendfile(2) cannot take as memory of at most 1 MiB."""
    for part in parts:
        if not isinstance(part, FileRange):
            yield memoryview(part)
        elif part.reader.fileno() is not None:
            yield part
        else:
            for chunk in part.chunks():
                yield memoryview(chunk)
