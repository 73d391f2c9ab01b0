"""AEs that a listener's configuration names: how to reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.adapters.destinations.association import Peer
from shared.adapters.destinations.security import security_of
from shared.adapters.destinations.user_identity import user_identity_of

if TYPE_CHECKING:
    from shared.config.peers import DimsePeer
    from shared.ports import SecretStore

# What we let one that only ever answers send to us in one PDU.
_MAX_PDU_BYTES: Final = 16384


def peer_at(
    where: DimsePeer,
    secrets: SecretStore,
    *,
    called_ae_title: str,
    calling_ae_title: str,
    timeout_s: float,
    max_pdu_size: int = _MAX_PDU_BYTES,
) -> Peer:
    """Whom to associate with, as `where` says it."""
    return Peer(
        where.host,
        where.port,
        called_ae_title,
        calling_ae_title,
        max_pdu_size,
        timeout_s,
        security_of(where.tls, host=where.host, owner=called_ae_title, secrets=secrets),
        user_identity_of(where.credentials, secrets),
    )
