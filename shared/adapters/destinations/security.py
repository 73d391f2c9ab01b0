"""How connections to a peer are encrypted, as its configuration says."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.adapters.destinations.channel import Security
    from shared.config.tls import PeerTls
    from shared.ports import SecretStore


def security_of(
    tls: PeerTls | None, *, host: str, owner: str, secrets: SecretStore
) -> Security | None:
    """None for a connection in the clear; `owner` names the entity in logs."""
    if tls is None:
        return None
    from shared.adapters.destinations.channel import Security
    from shared.adapters.embedded.clock import SystemClock
    from shared.adapters.tls import TlsContexts

    contexts = TlsContexts(secrets, SystemClock())
    return Security(partial(contexts.of, tls, owner), tls.server_name or host)
