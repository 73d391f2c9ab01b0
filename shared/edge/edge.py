"""What runs beside reception in a gateway on premises: it moves, mirrors, reports and answers."""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.adapters.embedded.runner import Runner
from shared.edge.environment import EdgeEnvironment
from shared.edge.link import Link
from shared.edge.lost import EdgeLostError, SpoolInUseError
from shared.edge.mirror import Mirror
from shared.edge.mover import Mover, Uploads
from shared.edge.spool import Spool
from shared.errors import AxiomError
from shared.messages import CommitmentRequested, Stage, Topic
from shared.pipeline import edges, report_commitment
from shared.pipeline.edges import EdgeState
from shared.pipeline.ports import Ports
from shared.pipeline.push import PushRequest, PushResponse, answer
from shared.ports import DocumentStore, MessageBus, ObjectStore, SecretStore

log = logging.getLogger(__name__)

_SAY_EVERY_S = 60.0
_SWEEP_EVERY_S = 3600.0
_LOCK = "mover.lock"


class FarSide(Struct, frozen=True):
    """The cloud's stores."""

    objects: ObjectStore
    documents: DocumentStore
    bus: MessageBus
    secrets: SecretStore
    uploads: Uploads


class Edge:
    """The parts, each in a thread of its own."""

    def __init__(self, settings: EdgeEnvironment, ports: Ports, spool: Spool, far: FarSide) -> None:
        """`ports` are those of reception, all on this machine."""
        assert isinstance(ports.bus, SqliteMessageBus)
        self._settings, self._ports, self._spool, self._far = settings, ports, spool, far
        clock = ports.clock
        self.link = Link(clock)
        self.mover = Mover(
            spool,
            far.uploads,
            far.bus,
            far.documents,
            self.link,
            clock,
            at_once=settings.uploads,
        )
        self.mirror = Mirror(
            far.objects,
            far.documents,
            far.secrets,
            here_objects=ports.objects,
            here_documents=ports.documents,
            here_secrets=ports.secrets,
            clock=clock,
        )
        self._reporter = Runner(
            ports.bus,
            {Topic.COMMITMENT_REQUESTED: self._report_commitment},
            clock,
            budget_s=lambda: ports.configuration.get().settings.retry_budget_s,
        )
        self._stopped, self._reporter_stopped = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []
        # What is wrong with the gateway's listeners, as whoever looks after them says; "" for
        # nothing.
        self.listeners_fault = ""
        self._lock_file: Any = None

    def start(self) -> None:
        """Begin. Raises: SpoolInUseError."""
        self._lock_file = _locked(self._settings.spool)
        for name, work in (
            ("mover", lambda: self.mover.run(self._stopped)),
            ("mirror", lambda: self.mirror.run(self._stopped)),
            ("reporter", lambda: self._reporter.run(self._reporter_stopped)),
            ("signs-of-life", lambda: self._say_on(self._stopped)),
        ):
            thread = threading.Thread(target=_logged, args=(work,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def look_after(self) -> None:
        """Raises: EdgeLostError."""
        ended = [thread.name for thread in self._threads if not thread.is_alive()]
        if ended and not self._stopped.is_set():
            raise EdgeLostError(", ".join(ended))

    def let_go(self) -> None:
        """Begin nothing more."""
        self._stopped.set()
        self._reporter_stopped.set()

    def stop(self, within_s: float) -> None:
        """Wait so long at most for what runs; what is cut off there is done again after the next
        start.
        """
        self.let_go()
        deadline_s = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        if self._lock_file is not None:
            self._lock_file.close()

    @property
    def has_configuration(self) -> bool:
        """False before the first configuration came: nobody can be let in by none."""
        return self.mirror.version > 0

    def state(self) -> EdgeState:
        """How it is. Raises: StorageUnavailableError."""
        depth, counts = self._spool.depth(), self.mover.counts
        closed = self._ports.receiver.closed()
        words = [*closed, self.mirror.fault, self.listeners_fault]
        if counts.stuck:
            words.append(f"{counts.stuck} files cannot be moved: {counts.stuck_why}")
        return EdgeState(
            messages=depth.messages,
            oldest_s=round(depth.oldest_s, 1),
            bytes=depth.bytes,
            free_bytes=self._ports.objects.free_bytes() or 0,
            instances=counts.instances,
            stuck=counts.stuck,
            configuration=self.mirror.version,
            fault="; ".join(filter(None, words)),
            link=self.link.words,
        )

    def shown(self) -> dict[str, Any]:
        """`state` for the health port."""
        try:
            told = self.state().as_json()
        except AxiomError as error:
            return {"fault": str(error)}
        since = self.link.since
        return {**told, "link_down_since": since.isoformat() if since else None}

    def _say_on(self, stopped: threading.Event) -> None:
        sweep_at_s = float("-inf")
        while True:
            try:
                edges.say(self._settings.name, self.state(), self._far.documents, self._ports.clock)
            except AxiomError as error:
                log.warning("no sign of life goes out", extra={"reason": str(error)})
            except Exception:
                log.exception("no sign of life can be given")
            if self._ports.clock.monotonic_s() >= sweep_at_s:
                sweep_at_s = self._ports.clock.monotonic_s() + _SWEEP_EVERY_S
                with suppress(AxiomError):  # in an hour again
                    self._spool.sweep()
                    self._ports.commitments.forget_finished()
            if stopped.wait(_SAY_EVERY_S):
                return

    def _report_commitment(self, request: PushRequest) -> PushResponse:
        return answer(
            request,
            CommitmentRequested,
            Stage.COMMITMENT,
            Topic.COMMITMENT_REQUESTED,
            lambda message: report_commitment.run(message, self._ports),
            self._ports,
        )


def _logged(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:
        log.exception("a part of the gateway has ended")


def _locked(folder: Path) -> Any:
    """The spool is ours until the file is closed. Raises: SpoolInUseError."""
    file = (folder / _LOCK).open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise SpoolInUseError(str(folder)) from None
    return file
