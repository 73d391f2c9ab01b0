"""The DIMSE side: any number of listeners, exchanged while it runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping

from scp_gateway.commitment import Commitments
from scp_gateway.listening import ListeningServer
from scp_gateway.storage import Receiver
from shared.config.entities import Listener

log = logging.getLogger(__name__)

# An association of a listener that was removed or moved may finish the message at hand.
_REMOVED_GRACE_S = 30.0


class Gateway:
    """Keeps exactly the listeners listening that it was last told of. Used from one thread."""

    def __init__(self, receiver: Receiver, commitments: Commitments | None = None) -> None:
        """Without `commitments`, nobody may ask for storage commitment."""
        self._receiver, self._commitments = receiver, commitments
        self._servers: dict[str, ListeningServer] = {}

    def apply(self, listeners: Iterable[Listener]) -> Mapping[str, str]:
        """Make these the listeners; disabled ones are left out.

        Associations of a listener that stays on its host and port go on, even if its other settings
        change: those count from its next association on. Returns, by listener, what keeps it from
        listening; the others are applied, and applying again tries again.
        """
        wanted = {listener.name: listener for listener in listeners if listener.enabled}
        for name, server in list(self._servers.items()):
            listener = wanted.get(name)
            if listener is None or not _stays(server.listener, listener):
                # Before others are opened: one of them may want the port.
                self._remove(name)
            elif listener != server.listener:
                server.listener = listener
                log.info("listener changed", extra={"listener": name})
        failed: dict[str, str] = {}
        for name, listener in wanted.items():
            if name in self._servers:
                continue
            try:
                self._servers[name] = ListeningServer(listener, self._receiver, self._commitments)
            except OSError as error:
                failed[name] = f"{listener.host}:{listener.port}: {error.strerror or error}"
            else:
                log.info(
                    "listening",
                    extra={
                        "listener": name,
                        "ae_title": listener.ae_title,
                        "host": listener.host,
                        "port": self._servers[name].port,
                    },
                )
        return failed

    def ports(self) -> Mapping[str, int]:
        """The port of each listener, by its name."""
        return {name: server.port for name, server in self._servers.items()}

    def associations(self) -> Mapping[str, int]:
        """The number of open associations of each listener, by its name."""
        return {name: server.associations for name, server in self._servers.items()}

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

    def _remove(self, name: str) -> None:
        server = self._servers.pop(name)
        server.close()
        threading.Thread(
            target=server.stop_associations,
            args=(_REMOVED_GRACE_S,),
            name=f"removed-{name}",
            daemon=True,
        ).start()
        log.info("listener removed", extra={"listener": name})


def _stays(before: Listener, after: Listener) -> bool:
    return (before.host, before.port, before.ae_title) == (
        after.host,
        after.port,
        after.ae_title,
    )
