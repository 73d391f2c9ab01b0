"""Polling: which sources are due, and one thread for each that is asked.

A source that hangs or fails keeps no other waiting. What a poll has found lasts: a poller that ends
in the middle, however that is, leaves the next one to go on.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import datetime, timedelta

from shared.config.sources import AnySource
from shared.errors import AxiomError, OverloadedError, SourceMisconfiguredError
from shared.pipeline.intake import PollStoppedError
from shared.pipeline.ports import Ports
from shared.pipeline.pull import Pulled, Puller, Tally
from shared.pipeline.source_states import (
    CLOSED,
    OFF,
    ON_DEMAND,
    Lease,
    LeaseLostError,
    SourceStates,
)
from shared.ports import FoundStudy, SourceReader

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_RENEW_EVERY_S = 2.0
_TRY_EVERY_S = 0.2
# A source that gives nothing of so many Studies in a row cannot be asked now.
_UNREACHABLE_AFTER = 3
_GRACE_S = 10.0


class Poller:
    """Polls sources when they are due; one for each process."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._states = SourceStates(ports.documents, ports.clock)
        self._running: dict[str, _Poll] = {}
        self._lock = threading.Lock()

    def run(self, *, for_s: float = 240.0) -> None:
        """Poll what is due, for `for_s` seconds at most; what is not done then goes on next time.

        Raises: StorageUnavailableError.
        """
        with self._lock:
            until_s = time.monotonic() + for_s
            try:
                while self._start_due() and time.monotonic() < until_s:
                    self._await_some()
            finally:
                self._end_all()

    def poll(self, name: str, *, retry: bool = False, wait_s: float = 0.0) -> dict[str, int]:
        """Poll one source now, whatever its interval and schedule; what was counted.

        `retry` tries what failed lately, too; somebody else's poll is waited for. Raises:
        SourceMisconfiguredError, also if there is none, it is not enabled or being polled; what
        keeps it from being asked.
        """
        entity = self._ports.configuration.get().source(name)
        if entity is None or not entity.enabled:
            raise SourceMisconfiguredError(name, "there is no enabled source of this name")
        until_s = time.monotonic() + wait_s
        while (lease := self._states.take(entity)) is None:
            if time.monotonic() >= until_s:
                raise SourceMisconfiguredError(name, "it is being polled")
            time.sleep(_TRY_EVERY_S)
        poll = _Poll(entity, lease, self._ports, self._states, retry=retry)
        poll.start()
        try:
            while poll.is_alive():
                poll.join(_LOOK_EVERY_S)
                poll.renew()
        finally:
            poll.stopped.set()
            poll.join()
        if poll.error is not None:
            raise poll.error
        return poll.tally.as_json()

    def _start_due(self) -> bool:
        """Start what is due; True if anything runs."""
        now = self._ports.clock.now()
        configuration = self._ports.configuration.get()
        sources = configuration.sources
        schedules = {one.name: one.schedule for one in configuration.schedules}
        names = {entity.name for entity in sources if entity.enabled}
        for poll in list(self._running.values()):
            if not poll.is_alive():
                del self._running[poll.entity.name]
                continue
            unchanged = poll.entity in sources and poll.entity.name in names
            window = None if poll.is_requested else poll.entity.window(schedules)
            if not unchanged or (window is not None and not window.is_active(now)):
                poll.stopped.set()
            poll.renew()
        for entity in sources:
            if entity.name in self._running:
                continue
            is_requested = self._states.is_requested(entity.name)
            window = None if is_requested else entity.window(schedules)
            if not entity.enabled:
                self._states.rest(entity, OFF)
            elif not (entity.polled or is_requested):
                self._states.rest(entity, ON_DEMAND)
            elif window is not None and not window.is_active(now):
                self._states.rest(entity, CLOSED)
            elif self._states.is_due(entity):
                lease = self._states.take(entity)
                if lease is not None:
                    poll = _Poll(entity, lease, self._ports, self._states)
                    poll.is_requested = is_requested
                    self._running[entity.name] = poll
                    poll.start()
        return bool(self._running)

    def _await_some(self) -> None:
        first = next(iter(self._running.values()))
        first.join(_LOOK_EVERY_S / max(1, len(self._running)))

    def _end_all(self) -> None:
        for poll in self._running.values():
            poll.stopped.set()
        until_s = time.monotonic() + _GRACE_S
        for poll in list(self._running.values()):
            poll.join(max(0.0, until_s - time.monotonic()))
            if not poll.is_alive():
                self._running.pop(poll.entity.name, None)


class _Poll(threading.Thread):
    """One poll of one source."""

    def __init__(
        self,
        entity: AnySource,
        lease: Lease,
        ports: Ports,
        states: SourceStates,
        *,
        retry: bool = False,
    ) -> None:
        super().__init__(name=f"poll-{entity.name}", daemon=True)
        self.entity = entity
        self.stopped = threading.Event()
        # Somebody asked for it: its schedule does not count.
        self.is_requested = False
        self.tally = Tally()
        self.error: BaseException | None = None
        # Why some Study did not come.
        self.remark: AxiomError | None = None
        self._lease, self._ports, self._states = lease, ports, states
        self._retry = retry
        self._studies = 0
        self._puller: Puller | None = None
        self._renewed_s = time.monotonic()
        self._lock = threading.Lock()
        self._has_ended = False

    def run(self) -> None:
        """Called by the thread: ask, fetch, record how that went."""
        began_at = self._ports.clock.now()
        said, code, is_whole, goes_on = "", "", False, False
        try:
            is_whole = self._poll()
        except PollStoppedError:
            goes_on = True
        except OverloadedError:
            goes_on = True
        except AxiomError as error:
            self.error = error
            said, code = str(error), error.code
            log.warning(
                "a source cannot be asked", extra={"source": self.entity.name, "code": code}
            )
        except Exception as error:
            # A bug's own text may hold Values.
            self.error = error
            said, code = type(error).__name__, "bug"
            log.error(
                "a poll failed", extra={"source": self.entity.name, "error": type(error).__name__}
            )
        with self._lock, suppress(LeaseLostError, AxiomError):
            self._has_ended = True
            self._states.end(
                self._lease,
                self.entity,
                self.tally.as_json(),
                self._studies,
                covered_until=began_at if is_whole else None,
                error=said,
                code=code,
                remark=self.remark,
                retry_after_s=getattr(self.error, "retry_after_s", None),
                goes_on=goes_on,
            )
        counts = self.tally.as_json()
        if any(counts.values()):
            log.info("polled", extra={"source": self.entity.name, **counts})

    def renew(self) -> None:
        """Called by whoever watches: keep the lease, and show how far it is."""
        if time.monotonic() - self._renewed_s < _RENEW_EVERY_S:
            return
        with self._lock:
            if self._has_ended:
                return
            self._renewed_s = time.monotonic()
            waits = self._puller is not None and self._puller.is_waiting
            try:
                self._states.renew(self._lease, self.tally.as_json(), self._studies, waits=waits)
            except LeaseLostError:
                self.stopped.set()

    def _poll(self) -> bool:
        """True if all that the source shows was looked at, whatever came of it."""
        if self._ports.open_source is None:
            raise SourceMisconfiguredError(self.entity.name, "nobody polls on this platform")
        reader = self._ports.open_source(self.entity)
        try:
            with Puller(
                self.entity, reader, self._ports, tally=self.tally, stopped=self.stopped
            ) as puller:
                self._puller = puller
                self._pull_all(reader, puller)
        finally:
            reader.close()
        return not self.stopped.is_set()

    def _pull_all(self, reader: SourceReader, puller: Puller) -> None:
        at_once = self.entity.limits.max_concurrency
        unreachable, answered = 0, False
        with ThreadPoolExecutor(at_once, thread_name_prefix=self.name) as studies:
            pending: set[Future[Pulled]] = set()
            try:
                for study in itertools.chain(reader.search(self._since()), [None]):
                    if study is not None:
                        self._studies += 1
                        pending.add(studies.submit(self._pull, puller, study))
                    wanted = 0 if study is None else 2 * at_once - 1
                    while len(pending) > wanted:
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                        for one in done:
                            pulled = one.result()
                            self.remark = pulled.error or self.remark
                            answered = answered or (pulled.shown > 0 and not pulled.is_unreachable)
                            unreachable = unreachable + 1 if pulled.is_unreachable else 0
                            if unreachable >= _UNREACHABLE_AFTER and pulled.error is not None:
                                raise pulled.error
                    if self.stopped.is_set():
                        raise PollStoppedError
                if unreachable and not answered and self.remark is not None:
                    raise self.remark
            except BaseException:
                self.stopped.set()
                for one in pending:
                    one.cancel()
                raise

    def _pull(self, puller: Puller, study: FoundStudy) -> Pulled:
        if self.stopped.is_set():
            raise PollStoppedError
        return puller.pull(study, retry=self._retry)

    def _since(self) -> datetime | None:
        """From when on the source is to show Studies: the lookback, and as far as nobody looked."""
        lookback: timedelta | None = getattr(self.entity, "lookback_span", None)
        if lookback is None:
            return None
        covered = self._lease.data["covered_until"]
        now = self._ports.clock.now()
        return min(now, datetime.fromisoformat(covered) if covered else now) - lookback
