"""One of several gateway processes: `python -m scp_gateway.worker`, started by `workers` alone.

It accepts on the listening sockets that it is handed, and stops as the gateway does once whoever
started it closes the connection between them, or dies. Signals that a terminal sends to all are for
that one to act on.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pydicom.config

from scp_gateway.gateway import Gateway
from scp_gateway.listening import Shared
from scp_gateway.shared_places import SharedPlaces
from scp_gateway.workers import BEAT, BEAT_S, CHANGE, LISTEN
from shared import bootstrap, exporting, logs
from shared.adapters.archives import Archives
from shared.adapters.tls import TlsContexts
from shared.config.entities import Listener
from shared.environment import Environment
from shared.metrics_folder import MetricsFolder

log = logging.getLogger(__name__)

_GRACE_S = 5.0
_MAX_MESSAGE_BYTES = 1 << 20


def main() -> None:
    """Receive until the connection ends."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    control_fd, places_fd, row, rows = map(int, sys.argv[1:])
    logs.configure(f"gateway-{row}")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    ports = bootstrap.from_environment()
    shared: dict[str, Shared] = {}
    gateway = Gateway(
        ports.receiver,
        ports.commitments,
        lambda listener: shared[listener.name],
        TlsContexts(ports.secrets, ports.clock),
        Archives(
            ports.configuration.get,
            ports.secrets,
            ports.clock,
            Environment.read().home,
            bootstrap.storage_root(),
        ),
        bootstrap.callers(ports),
    )
    if home := os.environ.get("AXIOM_HOME"):
        MetricsFolder(Path(home) / "run" / "metrics").keep(f"gateway-{row}")
    places = SharedPlaces(places_fd, row=row, rows=rows)
    follow(socket.socket(fileno=control_fd), gateway, places, shared)
    gateway.stop(_GRACE_S)
    exporting.close()
    logging.shutdown()
    # Threads of associations whose peers do not close must not hold the process up.
    os._exit(0)


def follow(
    control: socket.socket, gateway: Gateway, places: SharedPlaces, shared: dict[str, Shared]
) -> None:
    """Do what is told over `control` until its end; `shared` is kept up for the gateway."""
    listeners: dict[str, Listener] = {}
    faults: Mapping[str, str] = {}
    control.settimeout(BEAT_S)
    while True:
        # Whoever does not read it, or is gone, needs none.
        with suppress(OSError):
            control.send(BEAT)
        try:
            data, fds, _, _ = socket.recv_fds(
                control, _MAX_MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
        except TimeoutError:
            if faults:
                faults = gateway.apply(listeners.values())
            continue
        except ConnectionResetError:
            return  # its end too, with signs of life unread
        if not data:
            return
        message = json.loads(data)
        if message["do"] in (LISTEN, CHANGE):
            listener = Listener.model_validate_json(json.dumps(message["listener"]))
            listeners[listener.name] = listener
            if message["do"] == LISTEN:
                shared[listener.name] = Shared(
                    socket.socket(fileno=fds[0]), places, message["column"]
                )
        else:
            del listeners[message["name"]]
        faults = gateway.apply(listeners.values())
        if faults:
            log.error("some listeners cannot listen", extra={"faults": dict(faults)})


if __name__ == "__main__":
    main()
