"""One listener: its socket, the thread that accepts, the associations it has."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from pynetdicom import AE, _config
from pynetdicom.transport import AddressInformation, AssociationServer

from scp_gateway.admission import LOCAL_LIMIT_EXCEEDED, Rejection
from scp_gateway.association import GatewayAssociation
from scp_gateway.commitment import Commitments
from scp_gateway.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp_gateway.places import who_gives_way
from scp_gateway.query_jobs import Archives
from scp_gateway.shared_places import SharedPlaces
from scp_gateway.storage import Receiver
from shared.adapters.tls import TlsContexts
from shared.config.entities import Listener
from shared.identity.callers import Callers

log = logging.getLogger(__name__)

# Its log handlers format every PDU and message as text, for a log that is switched off.
_config.LOG_HANDLER_LEVEL = "none"

# Connections beyond `max_associations` that may wait for their A-ASSOCIATE-RJ.
_ROOM_FOR_REJECTIONS = 16
# Out of descriptors or memory: accepting at once again would fail at once again.
_ACCEPT_FAILED_WAIT_S = 0.1
# An association that was told to abort needs CLOSE_TIMEOUT_S if its peer does not close.
_ABORTED_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Shared:
    """A listening socket on which other processes accept too, and the listener's column of what
    they count together.
    """

    socket: socket.socket
    places: SharedPlaces
    column: int


class ListeningServer(AssociationServer):
    """Accepts associations for one listener from the moment it is built until `close`.

    With `shared`, `max_associations` holds over all processes. Closing one of them closes all.
    Raises (when built): OSError if the port cannot be had, or the listener's TLS cannot be used.
    """

    request_queue_size = 128

    def __init__(
        self,
        listener: Listener,
        receiver: Receiver,
        commitments: Commitments | None = None,
        shared: Shared | None = None,
        tls: TlsContexts | None = None,
        archives: Archives | None = None,
        callers: Callers | None = None,
    ) -> None:
        # What the next association is judged by; running ones keep what they began with.
        self.listener = listener
        self._receiver, self._commitments = receiver, commitments
        self._archives, self._callers = archives, callers
        self._shared, self._tls = shared, tls
        self._tls_context()  # before it listens
        self._lock = threading.Lock()
        self._connections: set[GatewayAssociation] = set()
        self._admitted: set[GatewayAssociation] = set()
        self._closing = threading.Event()
        ae = AE(listener.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        super().__init__(ae, (listener.host, listener.port), listener.ae_title, [])
        # pynetdicom gives the listening socket the network timeout; accepting has none.
        cast(socket.socket, self.socket).settimeout(None)
        self._thread = threading.Thread(
            target=self._accept, name=f"listener-{listener.name}", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens, also when any free port was asked for."""
        return int(self.server_address[1])

    @property
    def associations(self) -> int:
        """How many associations are open."""
        return len(self._admitted)

    def close(self) -> None:
        """Stop accepting; associations go on. Twice is once."""
        if self._closing.is_set():
            return
        self._closing.set()
        # Wakes the thread that accepts.
        self.server_close()
        self._thread.join()

    def stop_associations(self, grace_s: float) -> None:
        """Abort idle associations now, each other once its message is answered.

        After `grace_s` the rest is aborted as it is. Returns once all have ended, or 1 s later.
        """
        for association in self._open():
            association.stop()
        self._await_end(grace_s)
        for association in self._open():
            association.stop_now()
        self._await_end(_ABORTED_WITHIN_S)

    # ---- for associations

    def admit(self, association: GatewayAssociation) -> Rejection | None:
        """Count the association in, if there is a place or a greedier peer that gives way."""
        with self._others() as others, self._lock:
            outgoing = None
            if len(self._admitted) + others >= self.listener.max_associations:
                outgoing = who_gives_way(self._admitted, association.peer_address)
                if outgoing is None:
                    return LOCAL_LIMIT_EXCEEDED
                self._admitted.discard(outgoing)
            self._admitted.add(association)
            self._tell_others()
        if outgoing is not None:
            outgoing.give_way()
        return None

    def dismiss(self, association: GatewayAssociation) -> None:
        """Its place is free; twice is once."""
        with self._lock:
            self._admitted.discard(association)
            self._tell_others()

    def ended(self, association: GatewayAssociation) -> None:
        """Its connection is closed."""
        with self._lock:
            self._connections.discard(association)

    def start_association(self, connection: socket.socket, peer: AddressInformation) -> None:
        """Run an association on a new connection, in a thread of its own."""
        if self._closing.is_set() or not self._has_room(peer.address):
            # Without a word: whoever opens connections in such numbers does not read either.
            connection.close()
            return
        association = GatewayAssociation(
            self.ae,
            connection,
            peer,
            self,
            self._receiver,
            self._commitments,
            self._tls_context(),
            self._archives,
            self._callers,
        )
        with self._lock:
            self._connections.add(association)
        try:
            association.start()
        except RuntimeError:
            self.ended(association)
            raise

    def server_bind(self) -> None:
        """Called by socketserver: take the shared socket, if there is one."""
        if self._shared is None:
            super().server_bind()
            return
        cast(socket.socket, self.socket).close()
        self.socket = self._shared.socket
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """Called by socketserver: listen; a shared socket does so already."""
        if self._shared is None:
            super().server_activate()

    # ---- inside

    def _tls_context(self) -> ssl.SSLContext | None:
        """What the next association is secured with. Raises: TlsUnusableError."""
        if self.listener.tls is None:
            return None
        if self._tls is None:
            raise OSError(errno.EPROTONOSUPPORT, "no TLS here")
        return self._tls.of(self.listener.tls, f"listener {self.listener.name}")

    @contextmanager
    def _others(self) -> Iterator[int]:
        """How many associations other processes have, which take no more while the block runs."""
        if self._shared is None:
            yield 0
            return
        with self._shared.places.others(self._shared.column) as places:
            yield places

    def _tell_others(self) -> None:
        if self._shared is not None:
            self._shared.places.have(self._shared.column, len(self._admitted))

    def _has_room(self, peer_address: str) -> bool:
        """True if one more connection of that peer may be, where need be in place of another's."""
        with self._lock:
            if len(self._connections) < self.listener.max_associations + _ROOM_FOR_REJECTIONS:
                return True
            outgoing = who_gives_way(self._connections, peer_address)
            if outgoing is None:
                return False
            self._connections.discard(outgoing)
            self._admitted.discard(outgoing)
            self._tell_others()
        outgoing.give_way()
        return True

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self.get_request()
            except OSError as error:
                if error.errno == errno.EINVAL:
                    # Shut down, if not by us then by another process; we are told to close next.
                    self._closing.wait()
                if self._closing.wait(_ACCEPT_FAILED_WAIT_S):
                    return
                log.exception("cannot accept", extra={"listener": self.listener.name})
                continue
            try:
                self.start_association(connection, _PeerAddress.from_tuple(address))
            except Exception:
                log.exception("cannot start association", extra={"listener": self.listener.name})
                connection.close()

    def _open(self) -> list[GatewayAssociation]:
        with self._lock:
            return list(self._connections)

    def _await_end(self, within_s: float) -> None:
        deadline_s = time.monotonic() + within_s
        for association in self._open():
            association.join(max(deadline_s - time.monotonic(), 0))


class _PeerAddress(AddressInformation):
    """Of a connection that was accepted: there is no name to look up, which takes longer than all
    else that a connection needs.
    """

    @property
    def address(self) -> str:
        """The IP address."""
        return self._addr

    @address.setter
    def address(self, address: str) -> None:
        self._addr = address
