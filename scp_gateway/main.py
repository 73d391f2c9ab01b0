"""The gateway's process: `python -m scp_gateway.main`.

SIGTERM or SIGINT stops it: nobody new gets in, C-STORE requests that have begun are answered within
a grace time, the rest is aborted. It has ended within 8 seconds. With more than one process by
setting, this one starts the others and takes no association itself.
"""

from __future__ import annotations

import fnmatch
import itertools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pydicom.config

from scp_gateway.gateway import Gateway
from scp_gateway.health_port import HealthPort
from scp_gateway.workers import Workers, WorkersLostError
from shared import bootstrap, exporting, listening, logs, preflight
from shared.adapters.archives import Archives
from shared.adapters.tls import TlsContexts
from shared.complaints import complain
from shared.config.entities import Configuration, Listener
from shared.edge.lost import EdgeLostError
from shared.environment import Environment, Platform
from shared.errors import AxiomError
from shared.messages import Topic
from shared.pipeline.ports import Ports
from shared.pipeline.presence import Presence

if TYPE_CHECKING:
    from shared.edge.edge import Edge

log = logging.getLogger(__name__)

# Topics that a gateway publishes to.
_PUBLISHES = (Topic.INSTANCE_RECEIVED, Topic.EXCEPTION_RAISED, Topic.COMMITMENT_REQUESTED)

# A gateway that has not looked after itself for so long hangs.
_HANGS_AFTER_S = 30.0
# How soon a changed configuration is noticed.
_LOOK_EVERY_S = 1.0
_GRACE_S = 5.0
# What is cut off then is moved again after the next start.
_EDGE_ENDS_S = 0.5


def main() -> None:
    """Listen until told to stop."""
    logs.configure("gateway")
    # The UIDs of an A-ASSOCIATE-RQ are compared, not judged: no warnings that quote them.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    environment = Environment.read()
    ports = bootstrap.from_environment()
    state = _State()
    edge = bootstrap.beside_reception(ports)
    if edge is None:  # which is built for days without an answer
        preflight.tell(_PUBLISHES)
    if environment.platform is Platform.EMBEDDED:
        state.listener = partial(complain, environment.home / "run", "gateway")
        state.listening = partial(listening.tell, environment.home / "run")
    try:
        with ExitStack() as stack:
            if environment.health_port is not None:
                shown = dict if edge is None else edge.shown
                stack.enter_context(
                    HealthPort(
                        environment.dimse_host,
                        environment.health_port,
                        state.fault,
                        state.lifeless,
                        shown,
                    )
                )
            if edge is not None:
                _await_configuration(edge, stopped, state)
            _run(
                _gateway(environment, ports),
                environment,
                ports,
                stopped,
                state,
                bootstrap.presence(ports),
                edge,
            )
    except (WorkersLostError, EdgeLostError) as error:
        log.error("the gateway ends", extra={"reason": str(error)})
        logging.shutdown()
        os._exit(1)  # without waiting for threads, as below
    exporting.close()
    logging.shutdown()
    # Threads of associations whose peers do not close must not hold the process up.
    os._exit(0)


def _gateway(environment: Environment, ports: Ports) -> Gateway | Workers:
    tls = TlsContexts(ports.secrets, ports.clock)
    if environment.gateway_processes > 1:
        return Workers(environment.gateway_processes, tls)
    archives = Archives(
        ports.configuration.get,
        ports.secrets,
        ports.clock,
        environment.home,
        bootstrap.storage_root(),
    )
    return Gateway(
        ports.receiver,
        ports.commitments,
        tls=tls,
        archives=archives,
        callers=bootstrap.callers(ports),
    )


@dataclass(slots=True)
class _State:
    """What the health port tells of the loop below."""

    words: str = "it is starting"
    # Whether starting anew would help nobody.
    mends_itself: bool = False
    looked_at_s: float = float("inf")
    # Takes what is wrong whenever that changes.
    listener: Callable[[str], None] = lambda _: None
    # Takes the listeners that there are to be, before they are opened.
    listening: Callable[[Sequence[Mapping[str, object]]], None] = lambda _: None

    def fault(self) -> str:
        """What is wrong, "" for nothing."""
        return "it hangs" if self._hangs else self.words

    def lifeless(self) -> str:
        """What is wrong where starting anew may help, "" for nothing."""
        return "" if self.mends_itself and not self._hangs else self.fault()

    def tell(self, words: str, *, mends_itself: bool = False) -> None:
        """The loop turns; `words` is wrong."""
        if words != self.words:
            self.listener(words)
        self.words, self.mends_itself, self.looked_at_s = words, mends_itself, time.monotonic()

    @property
    def _hangs(self) -> bool:
        return time.monotonic() - self.looked_at_s > _HANGS_AFTER_S


def _await_configuration(edge: Edge, stopped: threading.Event, state: _State) -> None:
    """Return once there is one: without any, nobody can say whom to let in."""
    edge.start()
    while not edge.has_configuration and not stopped.is_set():
        state.tell("no configuration has come from the cloud yet", mends_itself=True)
        edge.look_after()
        stopped.wait(_LOOK_EVERY_S)


def _run(
    gateway: Gateway | Workers,
    environment: Environment,
    ports: Ports,
    stopped: threading.Event,
    state: _State,
    presence: Presence | None,
    edge: Edge | None,
) -> None:
    """Follow the configuration until stopped. Raises: WorkersLostError; EdgeLostError."""
    known: Configuration | None = None
    failed = ""
    while True:
        try:
            configuration = ports.configuration.get()
        except AxiomError:
            # The listeners that there are go on; the next look may work.
            log.exception("the configuration cannot be read")
            state.tell("" if known else "the configuration cannot be read")
        else:
            if configuration is not known or failed:
                wanted = listeners(configuration, environment)
                state.listening([_shown(one) for one in wanted if one.enabled])
                faults = gateway.apply(wanted)
                words = "; ".join(f"listener {name}: {why}" for name, why in faults.items())
                if words and words != failed:
                    log.error("some listeners cannot listen", extra={"faults": dict(faults)})
                known, failed = configuration, words
                if edge is not None:
                    edge.listeners_fault = words
            state.tell(failed, mends_itself=True)
            if presence is not None:
                presence.look_after()
        if stopped.wait(_LOOK_EVERY_S):
            break
        gateway.look_after()
        if edge is not None:
            edge.look_after()
    state.tell("it is stopping")
    if presence is not None:
        presence.withdraw()
    if edge is not None:
        edge.let_go()
    gateway.stop(_GRACE_S)
    if edge is not None:
        edge.stop(_EDGE_ENDS_S)


def _shown(listener: Listener) -> Mapping[str, object]:
    return {
        "name": listener.name,
        "ae_title": listener.ae_title,
        "host": listener.host,
        "port": listener.port,
        "tls": listener.tls is not None,
    }


def listeners(configuration: Configuration, environment: Environment) -> Sequence[Listener]:
    """The listeners of this gateway: those configured for it, and the environment's.

    A configured listener on the environment's port takes the place of the environment's. One that
    names no host listens where the environment's would.
    """
    configured = [
        listener if listener.host else listener.model_copy(update={"host": environment.dimse_host})
        for listener in configuration.listeners
        if not environment.instance
        or not listener.instance_filter
        or fnmatch.fnmatchcase(environment.instance, listener.instance_filter)
    ]
    if any(entry.port == environment.dimse_port and entry.enabled for entry in configured):
        return configured
    taken = {entry.name for entry in configured}
    names = itertools.chain(["default"], (f"default-{i}" for i in itertools.count(2)))
    return [
        *configured,
        Listener(
            name=next(name for name in names if name not in taken),
            ae_title=environment.ae_title,
            host=environment.dimse_host,
            port=environment.dimse_port,
        ),
    ]


if __name__ == "__main__":
    main()
