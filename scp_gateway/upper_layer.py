"""The upper layer of one association: bytes to messages, or to events of the state machine.

P-DATA of an established association goes to the `MessageReader` and nowhere else. Every other PDU
becomes an event of PS3.8 Table 9-10, on which pynetdicom's state machine acts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_P_ABORT

from scp_gateway.association_request import put_right
from scp_gateway.connection import GatewaySocket
from scp_gateway.construction import construct_dul
from scp_gateway.message_reader import AbortReason, ProtocolError, Stopped

if TYPE_CHECKING:
    from scp_gateway.association import GatewayAssociation

# Slower than this over a whole network timeout is a peer that only holds the place.
_MIN_BYTES_PER_TIMEOUT = 1024

_PDU_HEADER_BYTES = 6
# 128 Presentation Contexts with all Transfer Syntaxes are less than 200 KB.
_MAX_REQUEST_BYTES = 256 * 1024
_MAX_OTHER_PDU_BYTES = 1024

_A_ASSOCIATE_RQ, _A_RELEASE_RQ, _A_ABORT = 0x01, 0x05, 0x07
# The events of PDUs whose type alone decides what the state machine does (PS3.8 Table 9-10).
_EVENT_OF_PDU = {
    0x01: "Evt6",
    0x02: "Evt3",
    0x03: "Evt4",
    0x04: "Evt10",
    0x05: "Evt12",
    0x06: "Evt13",
    0x07: "Evt16",
}
# The PDUs that the state machine wants decoded, by the state it is in, and how long they may be.
_WANTED = {
    ("Sta2", _A_ASSOCIATE_RQ): _MAX_REQUEST_BYTES,
    ("Sta6", _A_RELEASE_RQ): _MAX_OTHER_PDU_BYTES,
    ("Sta6", _A_ABORT): _MAX_OTHER_PDU_BYTES,
}
_UNRECOGNIZED_PDU, _TRANSPORT_CLOSED, _ARTIM_EXPIRED = "Evt19", "Evt17", "Evt18"
_AWAITING_REQUEST, _ESTABLISHED, _AWAITING_CLOSE = "Sta2", "Sta6", "Sta13"


class GatewayDul(DULServiceProvider):
    """The upper layer, driven by its association's thread; it has none of its own."""

    def __init__(self, assoc: GatewayAssociation) -> None:
        construct_dul(self, assoc)
        self._window_start_s = time.monotonic()
        self._window_bytes = 0

    def is_alive(self) -> bool:
        """False: there is no thread to end."""
        return False

    @property
    def is_over(self) -> bool:
        """The transport connection is closed and the state machine back in Sta1."""
        return bool(self._kill_thread)

    def step(self) -> None:
        """Do one thing: send what is queued, or wait for the peer and act on what it sent."""
        if self.artim_timer.expired:
            self.event_queue.put(_ARTIM_EXPIRED)
        elif self.event_queue.empty() and not self._process_recv_primitive():
            self._receive()
        if self.event_queue.empty():
            return
        event = self.event_queue.get()
        is_request = self.state_machine.current_state == _AWAITING_REQUEST
        try:
            self.state_machine.do_action(event)
        except Exception:
            if not is_request:
                raise
            # The A-ASSOCIATE-RQ was decoded but means nothing, an even context ID say. The state
            # machine gave up on its thread, which is ours and goes on to the A-ABORT.
            self._kill_thread = False
            self.event_queue.put(_UNRECOGNIZED_PDU)

    def abort(self, reason: AbortReason) -> None:
        """Queue an A-ABORT by the service-provider (PS3.8 9.3.8)."""
        primitive = A_P_ABORT()
        primitive.provider_reason = int(reason)
        self.send_pdu(primitive)
        self.assoc.is_aborted, self.assoc.is_established = True, False

    # ---- inside

    def _receive(self) -> None:
        """Read until there is something for the state machine or a whole message."""
        connection = cast(GatewaySocket, self.socket)
        association = cast("GatewayAssociation", self.assoc)
        state = self.state_machine.current_state
        try:
            if state == _AWAITING_CLOSE:
                self._drain(connection)
            elif state == _ESTABLISHED and association.is_busy and not connection.has_input():
                association.advance()
            elif connection.start == connection.end:
                self._fill(connection, association)
            elif state == _ESTABLISHED and self._read_messages(connection, association):
                return
            else:
                self._read_other_pdu(connection, association, state)
        except BlockingIOError:
            self._on_silence(association, state)
        except OSError:
            self.event_queue.put(_TRANSPORT_CLOSED)
        except ProtocolError as error:
            association.ending = f"protocol error: {error}"
            self.abort(error.reason)

    def _read_messages(self, connection: GatewaySocket, association: GatewayAssociation) -> bool:
        """Feed the reader; False if a PDU of another type begins."""
        reader = association.reader
        while True:
            connection.start, stopped = reader.feed(
                connection.view, connection.start, connection.end
            )
            if stopped is Stopped.MESSAGE_ENDED:
                association.served_s = time.monotonic()
                if association.reads_on:
                    # Around again through pynetdicom's queues costs a tenth of an Instance's time.
                    continue
                return True
            if stopped is Stopped.OTHER_PDU:
                return False
            if not self._fill(connection, association):
                return True

    def _read_other_pdu(
        self, connection: GatewaySocket, association: GatewayAssociation, state: str
    ) -> None:
        while connection.end - connection.start < _PDU_HEADER_BYTES:
            if not self._fill(connection, association):
                return
        pdu_type = connection.view[connection.start]
        limit = _WANTED.get((state, pdu_type))
        if limit is None:
            # In this state its type says it all, and its body may be as long as it likes.
            connection.forget()
            self.event_queue.put(_EVENT_OF_PDU.get(pdu_type, _UNRECOGNIZED_PDU))
            return
        length = int.from_bytes(connection.view[connection.start + 2 : connection.start + 6], "big")
        if length > limit:
            connection.forget()
            self.event_queue.put(_UNRECOGNIZED_PDU)
            return
        data = bytearray()
        while len(data) < _PDU_HEADER_BYTES + length:
            data += connection.take(_PDU_HEADER_BYTES + length - len(data))
            if len(data) < _PDU_HEADER_BYTES + length and not self._fill(connection, association):
                return
        if pdu_type == _A_ASSOCIATE_RQ:
            data = bytearray(put_right(data))
        try:
            pdu, event = self._decode_pdu(data)
        except Exception:
            # The decoder raises whatever it stumbles over; each time the PDU is at fault.
            association.ending = "malformed PDU"
            self.event_queue.put(_UNRECOGNIZED_PDU)
            return
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _fill(self, connection: GatewaySocket, association: GatewayAssociation) -> bool:
        """Wait for more bytes; False, with the event queued, if the connection is at its end."""
        if association.listener_closes and association.reader.is_idle:
            received = 0
        elif self.state_machine.current_state == _AWAITING_REQUEST:
            if self.artim_timer.expired:
                raise BlockingIOError
            received = connection.fill(self.artim_timer.remaining)
        else:
            received = connection.fill(association.wait_s)
            self._require_progress(received, association)
        if not received:
            if association.listener_closes and association.is_established:
                association.acse.send_abort(0x00)
            else:
                self.event_queue.put(_TRANSPORT_CLOSED)
        return received > 0

    def _require_progress(self, received: int, association: GatewayAssociation) -> None:
        self._window_bytes += received
        now_s = time.monotonic()
        if association.reader.is_idle:
            self._window_start_s, self._window_bytes = now_s, 0
        elif now_s - self._window_start_s > association.listener.network_timeout_s:
            if self._window_bytes < _MIN_BYTES_PER_TIMEOUT:
                raise ProtocolError(AbortReason.NOT_SPECIFIED, "too slow")
            self._window_start_s, self._window_bytes = now_s, 0

    def _drain(self, connection: GatewaySocket) -> None:
        # Closing on unread bytes would reset the connection and take our last PDU with it.
        connection.forget()
        if not connection.fill(max(self.artim_timer.remaining, 0.001)):
            self.event_queue.put(_TRANSPORT_CLOSED)

    def _on_silence(self, association: GatewayAssociation, state: str) -> None:
        if state == _ESTABLISHED:
            if association.goes_on_waiting():
                return
            association.ending = "network timeout"
            self.abort(AbortReason.NOT_SPECIFIED)
        # In the other states it is for the ARTIM timer, which `step` looks at next.
