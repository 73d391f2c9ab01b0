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
import socket
import ssl
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from scp_gateway.admission import (
    TEMPORARY_CONGESTION,
    USER_NOT_ACCEPTED,
    USER_NOT_KNOWN_NOW,
    Rejection,
    rejection,
)
from scp_gateway.commitment import Commitments, CommitmentScp
from scp_gateway.connection import GatewaySocket, TlsGatewaySocket
from scp_gateway.construction import construct_association
from scp_gateway.dispatch import Dispatch
from scp_gateway.extended_negotiation import answers
from scp_gateway.message_reader import AbortReason, MessageReader, ProtocolError
from scp_gateway.negotiation import GatewayAcse, is_scp_of
from scp_gateway.presentation_contexts import ContextResult, is_storage_sop_class
from scp_gateway.query_jobs import Archives
from scp_gateway.query_retrieve import Contexts, QueryRetrieveScp
from scp_gateway.query_services import QUERY_SOP_CLASSES, offered
from scp_gateway.storage import Receiver, StorageScp
from scp_gateway.upper_layer import GatewayDul
from shared.config.entities import Listener
from shared.dicom.commitment import STORAGE_COMMITMENT_PUSH_MODEL
from shared.errors import AxiomError
from shared.identity.callers import (
    Caller,
    CallerRefusedError,
    Callers,
    Shown,
    TooManyCallersError,
)
from shared.messages import Source

if TYPE_CHECKING:
    from scp_gateway.listening import ListeningServer

log = logging.getLogger(__name__)

# ARTIM (PS3.8 9.1.5): how long a peer may take over its A-ASSOCIATE-RQ, and to close at the end.
REQUEST_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 3.0

_numbers = itertools.count(1)


class GatewayAssociation(Association):
    """An association as acceptor; its thread runs it from the first byte to the last."""

    def __init__(
        self,
        ae: AE,
        connection: socket.socket,
        peer: AddressInformation,
        server: ListeningServer,
        receiver: Receiver,
        commitments: Commitments | None = None,
        tls: ssl.SSLContext | None = None,
        archives: Archives | None = None,
        callers: Callers | None = None,
    ) -> None:
        self.listener: Listener = server.listener
        construct_association(self, ae, self.listener.max_pdu_size)
        self.number = next(_numbers)
        self.name = f"association-{self.number}"
        # Why it ended, for the log.
        self.ending = ""
        # The listener goes away: finish the message at hand, then abort.
        self.listener_closes = False
        self._gateway_server, self._receiver = server, receiver
        self._commitments, self._archives = commitments, archives
        self._callers = callers
        self._began_s = self.served_s = time.monotonic()
        self._is_requested = False
        self._dispatch = Dispatch(self._pass_on)
        self.reader = MessageReader(self._dispatch)
        self.acse = GatewayAcse(self)
        self.dul = GatewayDul(self)
        self.acse_timeout = REQUEST_TIMEOUT_S
        self.network_timeout = self.listener.network_timeout_s
        self.requestor.address_info = peer
        self.acceptor.ae_title = self.listener.ae_title
        # Who its certificate says the peer is, and who it says that calls.
        self._principal = ""
        self._caller: Caller | None = None
        self.set_socket(
            GatewaySocket(self, connection)
            if tls is None
            else TlsGatewaySocket(self, connection, tls)
        )

    # ---- the thread

    def run_reactor(self) -> None:
        """Run the association to its end; returns when the connection is closed."""
        connection = cast(GatewaySocket, self.dul.socket)
        dul = cast(GatewayDul, self.dul)
        try:
            connection.set_send_timeout(self.listener.network_timeout_s)
            if self._is_secured(connection):
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

    def give_way(self) -> None:
        """From another thread: abort, for another peer needs the place."""
        self.ending = self.ending or "gave way to another peer"
        self.stop_now()

    @property
    def commits(self) -> bool:
        """True if storage commitment may be asked for here."""
        return self._commitments is not None and self.listener.storage_commitment

    @property
    def wait_s(self) -> float:
        """How long to wait for the peer now: until something is to be done without it, at most."""
        timeout_s = self.listener.network_timeout_s
        if not self.reader.is_idle:
            return timeout_s
        commitment = self._dispatch.commitment
        look_in_s = commitment.look_in_s if commitment is not None and self.is_idle else None
        return timeout_s if look_in_s is None else min(look_in_s + 0.001, timeout_s)

    @property
    def reads_on(self) -> bool:
        """True if the message that ended was a C-STORE: it is answered, and nobody else needs to
        look at it.
        """
        return self._dispatch.is_store and not self.is_busy

    def goes_on_waiting(self) -> bool:
        """The peer was silent for `wait_s`: do what is to be done without it; False if it was
        silent for longer than it may be.
        """
        commitment = self._dispatch.commitment
        if commitment is None or commitment.look_in_s is None or not self.is_idle:
            return False
        commitment.look()
        return time.monotonic() - self.served_s < self.listener.network_timeout_s

    @property
    def peer_address(self) -> str:
        """IP address of the peer."""
        return self.requestor.address

    @property
    def is_idle(self) -> bool:
        """True between two messages, if none is being answered."""
        query = self._dispatch.query
        return self.reader.is_idle and not (query is not None and query.is_asked)

    @property
    def is_busy(self) -> bool:
        """True if there is more to do for what the peer has asked: `advance` does some of it."""
        query = self._dispatch.query
        return query is not None and query.is_busy

    def advance(self) -> None:
        """Do one step of what the peer has asked. Raises: OSError."""
        if self._dispatch.query is not None:
            self._dispatch.query.advance()
            self.served_s = time.monotonic()

    @property
    def offered(self) -> frozenset[str]:
        """The SOP Classes of Query/Retrieve that may be proposed here."""
        may_query = self._caller is None or self._caller.may_query
        return offered(self.listener) if self._archives and may_query else frozenset()

    def _abort_blocking(self, block: bool = True) -> None:
        # Nobody but this thread can send the A-ABORT, so waiting for it would be for ever.
        super()._abort_blocking(block=False)

    def _is_secured(self, connection: GatewaySocket) -> bool:
        try:
            self._principal = connection.secure(REQUEST_TIMEOUT_S)
        except OSError as error:
            self.ending = "TLS handshake failed"
            log.warning(
                "TLS handshake failed",
                extra={
                    "listener": self.listener.name,
                    "peer": self.requestor.address,
                    "reason": getattr(error, "reason", None) or type(error).__name__,
                },
            )
            return False
        return True

    def _react(self) -> None:
        """Act as the service user on what the upper layer indicated."""
        if not self._is_requested:
            primitive: object = self.dul.receive_pdu(wait=False)
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
        if refused is None:
            refused = self._identify(request)
        if refused is None and self.listener_closes:
            refused = TEMPORARY_CONGESTION
        if refused is None:
            refused = self._gateway_server.admit(self)
        if refused is not None:
            self.ending = f"rejected: {refused.name}"
        return refused

    def _identify(self, request: A_ASSOCIATE) -> Rejection | None:
        """Find out who calls, where the listener wants to know; why they are turned away."""
        taken, item = self.listener.user_identity, self.requestor.user_identity
        if taken is None:
            return None
        shown = None
        if item is not None:
            kind, primary = item.user_identity_type or 0, item.primary_field or b""
            shown = Shown(kind, primary, item.secondary_field or b"")
        if self._callers is None:
            return USER_NOT_KNOWN_NOW
        where = {"listener": self.listener.name, "peer": self.requestor.address}
        try:
            self._caller = self._callers.caller(
                taken,
                shown,
                listener=self.listener.name,
                calling_ae_title=request.calling_ae_title.strip(),
                address=self.requestor.address,
            )
        except CallerRefusedError as error:
            log.warning("a caller is refused", extra={**where, "reason": str(error)})
            return USER_NOT_ACCEPTED
        except (AxiomError, TooManyCallersError) as error:
            name = getattr(error, "code", None) or type(error).__name__
            log.warning("a caller cannot be checked", extra={**where, "reason": name})
            return USER_NOT_KNOWN_NOW
        return None

    @property
    def extended(self) -> Mapping[str, bytes]:
        """What is answered to extended negotiation, by SOP Class."""
        asked = {str(uid): wishes for uid, wishes in self.requestor.sop_class_extended.items()}
        services, archives = self.listener.query_retrieve, self._archives
        if not asked or services is None or archives is None:
            return {}
        has_fuzzy = archives.matches_fuzzily(services)
        return dict(answers(asked, self.offered, has_fuzzy=has_fuzzy))

    @property
    def confirms_identity(self) -> bool:
        """True if the caller wants to be told that it was recognised, and was."""
        item = self.requestor.user_identity
        return self._caller is not None and bool(item and item.positive_response_requested)

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
            principal=self._principal if self._caller is None else self._caller.name,
        )
        connection = cast(GatewaySocket, self.dul.socket)
        commitment = None
        if self._commitments is not None:
            commitment = CommitmentScp(
                self._commitments,
                source,
                {
                    cast(int, c.context_id): str(c.transfer_syntax[0])
                    for c in accepted
                    if c.abstract_syntax == STORAGE_COMMITMENT_PUSH_MODEL
                },
                connection.send_all,
                max_pdu_size=self.requestor.maximum_length or 0,
                network_timeout_s=self.listener.network_timeout_s,
            )
        self._dispatch.open(
            StorageScp(
                self._receiver,
                source,
                {cast(int, c.context_id): str(c.transfer_syntax[0]) for c in accepted},
                self._stores,
                connection.send_all,
            ),
            commitment,
            self._query_retrieve(accepted, source.calling_ae_title),
        )

    def _stores(self, sop_class_uid: str) -> bool:
        may_store = self._caller is None or self._caller.may_store
        if not (self.listener.storage and may_store):
            return False
        return is_storage_sop_class(
            sop_class_uid, accept_unknown=self.listener.accept_unknown_sop_classes
        )

    def _query_retrieve(
        self, accepted: list[PresentationContext], calling_ae_title: str
    ) -> QueryRetrieveScp | None:
        archives = self._archives
        queries: dict[int, tuple[str, str]] = {}
        storage: dict[str, list[tuple[int, str]]] = {}
        for context in accepted:
            number, syntax = cast(int, context.context_id), str(context.transfer_syntax[0])
            sop_class = str(context.abstract_syntax)
            if sop_class in QUERY_SOP_CLASSES:
                queries[number] = sop_class, syntax
            elif is_scp_of(self.requestor, sop_class):
                storage.setdefault(sop_class, []).append((number, syntax))
        if archives is None or not queries:
            return None
        return QueryRetrieveScp(
            archives,
            self.listener,
            Contexts(queries, storage, self.extended),
            cast(GatewaySocket, self.dul.socket).send_all,
            peer_ae_title=calling_ae_title,
            max_pdu_size=self.requestor.maximum_length or 0,
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
