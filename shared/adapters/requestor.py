"""A pynetdicom Application Entity that asks: C-FIND, C-MOVE, C-GET (PS3.4 Annex C)."""

from __future__ import annotations

import select
import ssl
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket

from shared.adapters.destinations.channel import Security


class Requestor(AE):
    """An AE whose associations work however many files this process has open.

    pynetdicom asks select(2) whether something came, which refuses file descriptors from 1024 on:
    such an association looks aborted by its peer as soon as it is requested.
    """

    def __init__(
        self, ae_title: str, *, timeout_s: float, security: Security | None = None
    ) -> None:
        """`timeout_s` bounds the connection, its negotiation, an answer and silence."""
        super().__init__(ae_title)
        self._security = security
        self.connection_timeout = timeout_s
        self.acse_timeout = timeout_s
        self.dimse_timeout = timeout_s
        self.network_timeout = timeout_s

    def _create_socket(
        self,
        assoc: Association,
        address: AddressInformation,
        tls_args: tuple[ssl.SSLContext, str] | None,
    ) -> AssociationSocket:
        created = _PolledSocket(assoc, address=address)
        created.tls_args = tls_args
        if self._security is not None:
            created.tls_args = self._security.context(), self._security.server_name
        return created


class _PolledSocket(AssociationSocket):
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
