"""Which listeners there are: told anew whenever the configuration changes, while all goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, Protocol, TypeVar

from shared.config.entities import Listener

log = logging.getLogger(__name__)

# An association of a listener that was removed or moved may finish the message at hand.
_REMOVED_GRACE_S = 30.0


class Server(Protocol):
    """What listens for one listener. Setting `listener` has its other settings change."""

    listener: Listener

    @property
    def port(self) -> int:
        """Where it listens, also when any free port was asked for."""

    def close(self) -> None:
        """Stop accepting; associations go on. Twice is once."""

    def stop_associations(self, grace_s: float) -> None:
        """Let requests that have begun be answered for `grace_s`, and abort the rest."""


S = TypeVar("S", bound=Server)


class Listeners(Generic[S]):
    """Keeps exactly the listeners listening that it was last told of. Used from one thread.

    `listen` starts one of them. Raises: OSError if the port cannot be had.
    """

    def __init__(self, listen: Callable[[Listener], S]) -> None:
        self._listen = listen
        self._servers: dict[str, S] = {}

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
                self._servers[name] = self._listen(listener)
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
