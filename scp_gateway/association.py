"""One association: pynetdicom's state machine and negotiation, our own data phase.

pynetdicom runs two polling threads for each association and collects every PDU in memory. Here one
thread drives both of its halves by turns and sleeps in recv(2) between PDUs: an idle association
costs nothing, a C-STORE is streamed and answered by the thread that reads it, and everything else
(negotiation, C-ECHO, release, abort, the state machine of PS3.8 9.2) stays pynetdicom's.

The members of pynetdicom that are not public and used here are pinned by
`tests/unit/test_gateway_pynetdicom.py`.
"""

from __future__ import annotations

import itertools
import logging
import queue
import socket
import struct
import time
from functools import partial
from typing import TYPE_CHECKING, cast

from pynetdicom import AE, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket

from scp_gateway.admission import TEMPORARY_CONGESTION, Rejection, rejection
from scp_gateway.association_request import put_right
from scp_gateway.dispatch import Dispatch
from scp_gateway.message_reader import AbortReason, MessageReader, ProtocolError, Stopped
from scp_gateway.presentation_contexts import (
    ContextResult,
    answer_context,
    is_storage_sop_class,
)
from scp_gateway.storage import Receiver, StorageScp
from shared.config.entities import Listener
from shared.messages import Source

if TYPE_CHECKING:
    from scp_gateway.listening import ListeningServer

log = logging.getLogger(__name__)

# One read; larger ones gain nothing, and this much is held for each association.
BUFFER_BYTES = 256 * 1024
# ARTIM (PS3.8 9.1.5): how long a peer may take over its A-ASSOCIATE-RQ, and to close at the end.
REQUEST_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 3.0
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

_TIMEVAL = struct.Struct("ll")
_numbers = itertools.count(1)


class GatewaySocket(AssociationSocket):
    """The connection with a read buffer, `view[start:end]`, that the data phase walks in place."""

    def __init__(self, assoc: Association, connection: socket.socket) -> None:
        super().__init__(assoc, client_socket=connection)
        self.view = memoryview(bytearray(BUFFER_BYTES))
        self.start = self.end = 0
        self._timeout_s = -1.0
        # Responses are one write each, and nobody should wait for Nagle to let them go.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def set_send_timeout(self, seconds: float) -> None:
        """Give up on a peer that does not take its responses."""
        self._set_timeout(socket.SO_SNDTIMEO, seconds)

    def fill(self, timeout_s: float) -> int:
        """Wait for bytes and append them to the buffer; 0 at the end of the connection.

        Raises: BlockingIOError after `timeout_s` without any; OSError.
        """
        connection = self._connection()
        if timeout_s != self._timeout_s:
            self._set_timeout(socket.SO_RCVTIMEO, timeout_s)
            self._timeout_s = timeout_s
        if self.start:
            # What is left is the start of one header, a few bytes.
            left = self.end - self.start
            self.view[:left] = bytes(self.view[self.start : self.end])
            self.start, self.end = 0, left
        # The kernel takes the flag back by itself. Without it a sender with Nagle on, which is
        # dcmtk as it is shipped, waits 40 ms for our delayed acknowledgement in every message.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        received = connection.recv_into(self.view[self.end :])
        self.end += received
        return received

    def take(self, length: int) -> bytes:
        """Take up to `length` bytes that are in the buffer."""
        length = min(length, self.end - self.start)
        taken = bytes(self.view[self.start : self.start + length])
        self.start += length
        return taken

    def forget(self) -> None:
        """Empty the buffer unread."""
        self.start = self.end = 0

    def stop_receiving(self) -> None:
        """From another thread: let a `fill` that waits return 0."""
        connection = self.socket
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RD)
            except OSError:
                return  # it is closed already

    def send_all(self, data: bytes) -> None:
        """Raises: OSError."""
        self._connection().sendall(data)

    def _connection(self) -> socket.socket:
        if self.socket is None:
            raise ConnectionResetError("the connection is closed")
        return self.socket

    def _set_timeout(self, option: int, seconds: float) -> None:
        # In the kernel: a Python timeout would cost a poll(2) before every read.
        whole, fraction = divmod(max(seconds, 0.001), 1)
        value = _TIMEVAL.pack(int(whole), int(fraction * 1_000_000))
        self._connection().setsockopt(socket.SOL_SOCKET, option, value)


class GatewayAcse(ACSE):
    """Negotiation as acceptor by our own tables, which are looked up and never copied."""

    def negotiate_association(self) -> None:
        """Answer the A-ASSOCIATE-RQ that `assoc.requestor.primitive` holds.

        No role selection, user identity or extended negotiation item is answered: the requestor
        then knows that it is SCU, and that the defaults hold (PS3.7 D.3.3).
        """
        association = cast(GatewayAssociation, self.assoc)
        request = cast(A_ASSOCIATE, self.requestor.primitive)
        self.requestor.ae_title = request.calling_ae_title
        refused = association.admit(request)
        if refused is not None:
            self.send_reject(refused.result, refused.source, refused.reason)
            evt.trigger(association, evt.EVT_REJECTED, {})
            return
        accept_unknown = association.listener.accept_unknown_sop_classes
        answered = [
            _answered(proposed, accept_unknown)
            for proposed in request.presentation_context_definition_list
        ]
        association.set_contexts(answered)
        self.send_accept()
        evt.trigger(association, evt.EVT_ACCEPTED, {})
        association.is_established = True
        evt.trigger(association, evt.EVT_ESTABLISHED, {})


def _answered(proposed: PresentationContext, accept_unknown: bool) -> PresentationContext:
    answer = answer_context(
        str(proposed.abstract_syntax),
        [str(uid) for uid in proposed.transfer_syntax],
        accept_unknown=accept_unknown,
    )
    context = PresentationContext()
    context.context_id = proposed.context_id
    context.abstract_syntax = proposed.abstract_syntax
    if answer.transfer_syntax:
        context.add_transfer_syntax(answer.transfer_syntax)
    context.result = int(answer.result)
    # Default roles: the requestor is SCU, we are SCP.
    context._as_scu, context._as_scp = False, True
    return context


class GatewayDul(DULServiceProvider):
    """The upper layer, driven by its association's thread; its own thread is never started."""

    def __init__(self, assoc: GatewayAssociation) -> None:
        super().__init__(assoc)
        self._window_start_s = time.monotonic()
        self._window_bytes = 0

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
        try:
            event = self.event_queue.get(block=False)
        except queue.Empty:
            return
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
        association = cast(GatewayAssociation, self.assoc)
        state = self.state_machine.current_state
        try:
            if state == _AWAITING_CLOSE:
                self._drain(connection)
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
            received = connection.fill(association.listener.network_timeout_s)
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
            association.ending = "network timeout"
            self.abort(AbortReason.NOT_SPECIFIED)
        # In the other states it is for the ARTIM timer, which `step` looks at next.


class GatewayAssociation(Association):
    """An association as acceptor; its thread runs it from the first byte to the last."""

    def __init__(
        self,
        ae: AE,
        connection: socket.socket,
        peer: AddressInformation,
        server: ListeningServer,
        receiver: Receiver,
    ) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.listener: Listener = server.listener
        self.number = next(_numbers)
        self.name = f"association-{self.number}"
        # Why it ended, for the log.
        self.ending = ""
        # The listener goes away: finish the message at hand, then abort.
        self.listener_closes = False
        self._gateway_server, self._receiver = server, receiver
        self._began_s = time.monotonic()
        self._is_requested = False
        self._dispatch = Dispatch(self._pass_on)
        self.reader = MessageReader(self._dispatch)
        self.acse = GatewayAcse(self)
        self.dul = GatewayDul(self)
        self.acse_timeout = REQUEST_TIMEOUT_S
        self.network_timeout = self.listener.network_timeout_s
        self.requestor.address_info = peer
        self.acceptor.ae_title = self.listener.ae_title
        self.acceptor.maximum_length = self.listener.max_pdu_size
        self.acceptor.implementation_class_uid = ae.implementation_class_uid
        self.acceptor.implementation_version_name = ae.implementation_version_name
        self.set_socket(GatewaySocket(self, connection))

    # ---- the thread

    def run_reactor(self) -> None:
        """Run the association to its end; returns when the connection is closed."""
        connection = cast(GatewaySocket, self.dul.socket)
        dul = cast(GatewayDul, self.dul)
        try:
            connection.set_send_timeout(self.listener.network_timeout_s)
            while not dul.is_over:
                dul.step()
                self._react()
        except Exception:
            self.ending = "fault of the gateway"
            log.exception("association failed", extra={"association": self.number})
            self._send_last_abort(connection)
        finally:
            self._leave("no association", None)
            connection._shutdown_socket()
            connection.view.release()
            self._gateway_server.ended(self)
            self._log_end()

    def stop(self) -> None:
        """From another thread: abort once the message at hand, if any, is answered."""
        self.listener_closes = True
        if self.reader.is_idle:
            cast(GatewaySocket, self.dul.socket).stop_receiving()

    def stop_now(self) -> None:
        """From another thread: abort, whatever is at hand."""
        self.listener_closes = True
        self.ending = self.ending or "stopped"
        cast(GatewaySocket, self.dul.socket).stop_receiving()

    def _abort_blocking(self, block: bool = True) -> None:
        # Nobody but this thread can send the A-ABORT, so waiting for it would be for ever.
        super()._abort_blocking(block=False)

    def _react(self) -> None:
        """Act as the service user on what the upper layer indicated."""
        if not self._is_requested:
            primitive = self.dul.receive_pdu(wait=False)
            if isinstance(primitive, A_ASSOCIATE):
                self._is_requested = True
                self.requestor.primitive = primitive
                self.dul.artim_timer.timeout = CLOSE_TIMEOUT_S
                evt.trigger(self, evt.EVT_REQUESTED, {})
                self.acse.negotiate_association()
            return
        context_id, message = self.dimse.get_msg(block=False)
        if message is not None and self.is_established:
            self._serve_request(message, cast(int, context_id))
        if self.is_established and self.acse.is_release_requested():
            self.acse.send_release(is_response=True)
            self.is_released = True
            self._leave("released", evt.EVT_RELEASED)
        elif self.acse.is_aborted():
            primitive = self.dul.receive_pdu(wait=False)
            self.is_aborted = True
            by_peer = isinstance(primitive, A_ABORT)
            self._leave("aborted by peer" if by_peer else "connection lost", evt.EVT_ABORTED)
        elif self.is_aborted:
            self._leave("aborted", None)

    def _leave(self, end: str, event: evt.NotificationEvent | None) -> None:
        self.ending = self.ending or end
        self.is_established = False
        self._dispatch.abandon()
        self._gateway_server.dismiss(self)
        if event is not None:
            evt.trigger(self, event, {})

    def _send_last_abort(self, connection: GatewaySocket) -> None:
        try:
            # A-ABORT, source service-provider, no reason (PS3.8 9.3.8).
            connection.send_all(b"\x07\0\0\0\0\x04\0\0\x02\0")
        except OSError:
            return

    def _log_end(self) -> None:
        tally = self._dispatch.tally
        # A connection without a request is a health check or a port scan.
        level = logging.INFO if self._is_requested else logging.DEBUG
        log.log(
            level,
            "association ended",
            extra={
                "association": self.number,
                "listener": self.listener.name,
                "calling_ae_title": self.requestor.ae_title,
                "peer": self.requestor.address,
                "end": self.ending,
                "stored": tally.stored,
                "refused": tally.refused,
                "bytes": tally.bytes,
                "seconds": round(time.monotonic() - self._began_s, 3),
            },
        )

    # ---- negotiation, for GatewayAcse

    def admit(self, request: A_ASSOCIATE) -> Rejection | None:
        """Why the request is turned away, None if it is not."""
        refused = rejection(
            self.listener,
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            peer_address=self.requestor.address,
            application_context=str(request.application_context_name),
        )
        if refused is None and self.listener_closes:
            refused = TEMPORARY_CONGESTION
        if refused is None:
            refused = self._gateway_server.admit(self)
        if refused is not None:
            self.ending = f"rejected: {refused.name}"
        return refused

    def set_contexts(self, answered: list[PresentationContext]) -> None:
        """Take the answers to the proposed Presentation Contexts as what is agreed on."""
        accepted = [c for c in answered if c.result == ContextResult.ACCEPTANCE]
        self._accepted_cx = {cast(int, c.context_id): c for c in accepted}
        self._rejected_cx = [c for c in answered if c.result != ContextResult.ACCEPTANCE]
        request = cast(A_ASSOCIATE, self.requestor.primitive)
        source = Source(
            type="dimse",
            name=self.listener.name,
            calling_ae_title=request.calling_ae_title.strip(),
            called_ae_title=request.called_ae_title.strip(),
            peer_address=self.requestor.address,
        )
        connection = cast(GatewaySocket, self.dul.socket)
        self._dispatch.open(
            StorageScp(
                self._receiver,
                source,
                {cast(int, c.context_id): str(c.transfer_syntax[0]) for c in accepted},
                partial(
                    is_storage_sop_class,
                    accept_unknown=self.listener.accept_unknown_sop_classes,
                ),
                connection.send_all,
            )
        )

    # ---- for Dispatch

    def _pass_on(self, context_id: int, value: bytes) -> None:
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, value))
        try:
            self.dimse.receive_primitive(primitive)
        except Exception:
            # The decoder raises whatever it stumbles over; each time the message is at fault.
            raise ProtocolError(AbortReason.NOT_SPECIFIED, "a message cannot be decoded") from None
