"""The DIMSE side in one process: any number of listeners, exchanged while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from scp_gateway.commitment import Commitments
from scp_gateway.listeners import Listeners
from scp_gateway.listening import ListeningServer, Shared
from scp_gateway.query_jobs import Archives
from scp_gateway.storage import Receiver
from shared.adapters.tls import TlsContexts
from shared.config.entities import Listener
from shared.identity.callers import Callers


class Gateway(Listeners[ListeningServer]):
    """Receives for its listeners in threads of this process."""

    def __init__(
        self,
        receiver: Receiver,
        commitments: Commitments | None = None,
        shared: Callable[[Listener], Shared | None] = lambda _: None,
        tls: TlsContexts | None = None,
        archives: Archives | None = None,
        callers: Callers | None = None,
    ) -> None:
        """Without `commitments`, nobody may ask for storage commitment; without `archives`, nobody
        may query or retrieve; without `callers`, nobody gets in where the listener asks who calls.
        `shared` is what a listener shares with other processes, None if nothing.
        """
        super().__init__(
            lambda listener: ListeningServer(
                listener, receiver, commitments, shared(listener), tls, archives, callers
            )
        )

    def associations(self) -> Mapping[str, int]:
        """The number of open associations of each listener, by its name."""
        return {name: server.associations for name, server in self._servers.items()}

    def look_after(self) -> None:
        """Threads need nobody to."""

    def stop(self, grace_s: float) -> None:
        """Stop accepting, let requests that have begun be answered for `grace_s`, abort the rest.

        Returns within `grace_s` and two seconds.
        """
        servers = list(self._servers.values())
        self._servers.clear()
        for server in servers:
            server.close()
        threads = [
            threading.Thread(target=server.stop_associations, args=(grace_s,)) for server in servers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
