"""A pynetdicom Application Entity that asks: C-FIND, C-MOVE, C-GET (PS3.4 Annex C)."""

from __future__ import annotations

import select
import socket
import ssl
from typing import Any, cast

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from shared.adapters.destinations.channel import Security
from shared.adapters.destinations.user_identity import Presents
from shared.addresses import policy


class Requestor(AE):
    """An AE whose associations work however many files this process has open.

    pynetdicom asks select(2) whether something came, which refuses file descriptors from 1024 on:
    such an association looks aborted by its peer as soon as it is requested.
    """

    def __init__(
        self,
        ae_title: str,
        *,
        timeout_s: float,
        security: Security | None = None,
        presents: Presents | None = None,
    ) -> None:
        """`timeout_s` bounds the connection, its negotiation, an answer and silence."""
        super().__init__(ae_title)
        self._security, self._presents = security, presents
        self.connection_timeout = timeout_s
        self.acse_timeout = timeout_s
        self.dimse_timeout = timeout_s
        self.network_timeout = timeout_s
        # Why the last association has no connection, if it has none.
        self.connection_error: OSError | None = None

    def negotiates(self) -> list[UserIdentityNegotiation]:
        """What `associate` is to be given as `ext_neg`. Raises: UserIdentityUnusableError."""
        if self._presents is None:
            return []
        given = self._presents()
        item = UserIdentityNegotiation()
        item.user_identity_type = given.kind
        item.primary_field = given.primary
        item.secondary_field = given.secondary
        return [item]

    def _create_socket(
        self,
        assoc: Association,
        address: AddressInformation,
        tls_args: tuple[ssl.SSLContext, str] | None,
    ) -> AssociationSocket:
        self.connection_error = None
        return _PolledSocket(self, self._security, assoc, address)


class _PolledSocket(AssociationSocket):
    def __init__(
        self,
        requestor: Requestor,
        security: Security | None,
        assoc: Association,
        address: AddressInformation,
    ) -> None:
        super().__init__(assoc, address=address)
        self._requestor, self._security = requestor, security

    def connect(self, primitive: T_CONNECT) -> None:
        """As pynetdicom's, but that a failure is told to whoever asked, and not to a log."""
        connection = cast(socket.socket, self.socket)
        try:
            connection.settimeout(self._requestor.connection_timeout)
            connection.connect(primitive.address_info.as_tuple)
            policy().check_peer(connection)
            if self._security is not None:
                connection = self._security.context().wrap_socket(
                    connection, server_hostname=self._security.server_name
                )
            connection.settimeout(None)
        except OSError as error:
            self._requestor.connection_error = error
            connection.close()
            self.socket = None
            primitive.result = "Evt17"  # transport connection closed (PS3.8 table 9-10)
        else:
            self.socket = connection
            self.assoc.requestor.address_info = AddressInformation.from_tuple(
                connection.getsockname()
            )
            self._is_connected = True
            primitive.result = "Evt2"  # transport connection confirmed
        finally:
            self.provider_queue.put(primitive)
            self._ready.set()

    @property
    def ready(self) -> bool:
        connection: Any = self.socket
        if connection is None or self._is_connected is False:
            return False
        try:
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            came = bool(poll.poll(0))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed (PS3.8 table 9-10)
            return False
        # What TLS has decrypted already is out of the kernel's sight.
        return came or (isinstance(connection, ssl.SSLSocket) and connection.pending() > 0)
