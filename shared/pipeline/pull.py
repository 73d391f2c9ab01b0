"""Pulling one Study from a source: see what is new of it, fetch that, know what came.

New is what the ledger does not have. What is shown and not given is tried again later, with growing
pauses, and goes to the exception log once it was tried often enough.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from shared.config.sources import AnySource, GoogleHealthcareSource
from shared.errors import (
    AxiomError,
    CopyInFlightError,
    NotRetrievedError,
    PermanentError,
    SourceMisconfiguredError,
    SourceUnavailableError,
)
from shared.messages import Source, Stage
from shared.pipeline import ingest
from shared.pipeline.dicom_store_name import DicomStoreName, StoredInstanceName
from shared.pipeline.exceptions import exception_from
from shared.pipeline.intake import Intake, PollStoppedError
from shared.pipeline.ports import Ports
from shared.pipeline.receive import is_uid
from shared.pipeline.source_ledger import Entry, Ledger
from shared.ports import FoundInstance, FoundStudy, Retrieval, SourceReader
from shared.times import timestamp

log = logging.getLogger(__name__)

# A Study that looks unchanged is listed all the same once in so long: an Instance may have taken
# the place of another.
_LIST_AGAIN_S = 3600.0
_LONGEST_PAUSE_S = 86400.0
# The ledger is written at least so often while Instances come.
_WRITE_EVERY, _WRITE_EVERY_S = 200, 5.0
# What came of a C-MOVE is counted with growing pauses. It is looked at closer, which reads all that
# is known of the Study, when it may be all, and now and then.
_COUNT_AFTER_S, _COUNT_EVERY_S, _LOOK_EVERY_S = 0.2, 1.0, 5.0
# A gateway on another machine has a clock of its own.
_CLOCKS_DIFFER = timedelta(seconds=30)


@dataclass(slots=True)
class Tally:
    """Instances, counted while a source is polled."""

    found: int = 0  # new ones that it shows
    queued: int = 0  # asked of it
    processed: int = 0  # received durably, and with the rules
    failed: int = 0  # not given, or refused here
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, found: int = 0, queued: int = 0, processed: int = 0, failed: int = 0) -> None:
        """Count."""
        with self._lock:
            self.found += found
            self.queued += queued
            self.processed += processed
            self.failed += failed

    def as_json(self) -> dict[str, int]:
        """As documents, the API and the command line show it."""
        with self._lock:
            return {
                "found": self.found,
                "queued": self.queued,
                "processed": self.processed,
                "failed": self.failed,
            }


@dataclass(frozen=True, slots=True)
class Pulled:
    """What became of one Study."""

    shown: int = 0
    received: int = 0
    refused: int = 0
    missing: int = 0
    # Why some are missing.
    error: AxiomError | None = None

    @property
    def is_unreachable(self) -> bool:
        """True if the source gave nothing of it because it cannot be asked."""
        return isinstance(self.error, SourceUnavailableError) and not self.received


class Puller:
    """Pulls Studies of one source; used by several threads. A context manager."""

    def __init__(
        self,
        entity: AnySource,
        reader: SourceReader,
        ports: Ports,
        *,
        tally: Tally | None = None,
        stopped: threading.Event | None = None,
    ) -> None:
        """Ends soon once `stopped` is set; what was received by then is kept."""
        self._entity, self._reader, self._ports = entity, reader, ports
        self.tally = tally or Tally()
        self._stopped = stopped or threading.Event()
        self._source = Source(entity.type, entity.name)
        self._ledger = Ledger(
            ports.documents,
            ports.clock,
            entity.name,
            entity.address,
            ae_title=getattr(entity, "ae_title", ""),
        )
        self._intake = Intake(ports, self._source, entity.limits.max_waiting, self._stopped)
        self._units = ThreadPoolExecutor(
            entity.limits.max_concurrency, thread_name_prefix=f"source-{entity.name}"
        )

    @property
    def is_waiting(self) -> bool:
        """True while nothing is fetched, because too much waits for the rules."""
        return self._intake.is_waiting

    def pull(self, study: FoundStudy, *, retry: bool = False, again: bool = False) -> Pulled:
        """Fetch what is new of the Study. `retry` does so at once where it failed lately; `again`
        fetches what came already too.

        Raises: PollStoppedError; SourceMisconfiguredError; StorageUnavailableError and what else is
        not of this Study alone. What is, the result says.
        """
        entry = self._ledger.read(study.uid)
        now = self._ports.clock.now()
        if not (retry or again):
            if entry.retry_at > timestamp(now):
                return Pulled()
            if _is_settled(entry, study, now):
                self._ledger.touch(entry)
                return Pulled()
        try:
            shown = (
                tuple(self._reader.instances(study)) if study.instances is None else study.instances
            )
        except SourceMisconfiguredError:
            raise
        except (SourceUnavailableError, PermanentError) as error:
            self._put_off(entry, error)
            return Pulled(error=error)
        if entry.begun_at:
            self._recover(entry, shown)
        new = [one for one in shown if again or entry.is_new(one)]
        wanted = new if again else [one for one in new if not self._has_come(entry, one)]
        if not wanted:
            self._settle(entry, study, shown, has_more=bool(new))
            return Pulled(len(shown))
        return self._fetch(entry, study, shown, wanted)

    def close(self) -> None:
        """Wait for what is under way."""
        self._units.shutdown(cancel_futures=True)
        self._intake.close()

    # ---- inside

    def _has_come(self, entry: Entry, one: FoundInstance) -> bool:
        """True if a notification brought it, or we put it there; then it counts as given. Also if
        we may be putting it there right now: it is asked again when the Study is listed again.
        """
        entity = self._entity
        if not isinstance(entity, GoogleHealthcareSource):
            return False
        store = DicomStoreName(
            entity.project_id, entity.location, entity.dataset_id, entity.dicom_store_id
        )
        name = StoredInstanceName(store, entry.study, one.series_instance_uid, one.uid)
        try:
            if not ingest.has_come(name, self._ports):
                return False
        except CopyInFlightError:
            return True
        entry.gave(one)
        return True

    def _fetch(
        self,
        entry: Entry,
        study: FoundStudy,
        shown: Sequence[FoundInstance],
        wanted: Sequence[FoundInstance],
    ) -> Pulled:
        self.tally.add(found=sum(one.uid not in entry.failed for one in wanted))
        entry.begun_at = timestamp(self._ports.clock.now())
        self._ledger.write(entry)
        account = _Account(entry, wanted, self._ledger, self.tally)
        units = _divided(study, shown, wanted, self._reader.unit)
        try:
            futures = [self._units.submit(self._fetch_unit, unit, account) for unit in units]
        except RuntimeError:  # closed meanwhile
            raise PollStoppedError from None
        errors = [error for error in map(_error_of, futures) if error is not None]
        missing = account.missing()
        stopped = next((e for e in errors if isinstance(e, PollStoppedError)), None)
        if stopped is not None:
            self._ledger.write(entry)
            raise stopped
        said = next((e for e in errors if isinstance(e, AxiomError)), None)
        bug = next((e for e in errors if not isinstance(e, AxiomError)), None)
        if bug is not None or (said is not None and not _is_of_study(said)):
            self._ledger.write(entry)
            raise bug or said or AssertionError
        if missing:
            self._put_off(entry, said, missing)
        else:
            self._settle(entry, study, shown)
        return Pulled(len(shown), account.received_count, account.refused_count, len(missing), said)

    def _fetch_unit(self, unit: Retrieval, account: _Account) -> None:
        self._intake.wait_for_room()
        self.tally.add(queued=len(unit.instances))
        if self._reader.moves:
            self._move(unit, account)
            return
        pending: list[Future[None]] = []
        try:
            for retrieved in self._reader.retrieve(unit):
                future = self._intake.take(retrieved, account)
                if future is not None:
                    pending.append(future)
                while pending and pending[0].done():
                    pending.pop(0).result()
        finally:
            for future in pending:
                future.result()

    def _move(self, unit: Retrieval, account: _Account) -> None:
        """Have it sent to a listener of ours, and wait until what was sent is decided about."""
        since = timestamp(self._ports.clock.now() - _CLOCKS_DIFFER)
        before = self._ledger.count(unit.study_instance_uid)
        completed = len(unit.instances)
        failure: AxiomError | None = None
        try:
            with closing(self._reader.move(unit)) as moving:
                for progress in moving:
                    completed = progress.completed
                    if self._stopped.is_set():
                        raise PollStoppedError
        except SourceMisconfiguredError:
            raise
        except (SourceUnavailableError, PermanentError) as error:
            # What was sent before that has come.
            failure, completed = error, 0
        self._await_arrival(unit, account, min(completed, len(unit.instances)), before, since)
        if failure is not None:
            raise failure

    def _await_arrival(
        self, unit: Retrieval, account: _Account, expected: int, before: int, since: str
    ) -> None:
        """Wait until so many of the Instances that were sent are decided; `before` is how many of
        the Study were, when it began.
        """
        study = unit.study_instance_uid
        timeout_s = getattr(self._entity, "arrival_timeout_s", 300.0)
        wanted = {one.uid for one in unit.instances}
        came, pause_s = -1, _COUNT_AFTER_S
        came_at_s = looked_at_s = float("-inf")
        while True:
            now_s = time.monotonic()
            is_late = now_s - came_at_s > timeout_s
            is_time = is_late or now_s - looked_at_s > _LOOK_EVERY_S
            if is_time or self._ledger.count(study) - before >= expected:
                looked_at_s = now_s
                arrived = self._ledger.arrived(study, since)
                for uid in wanted & arrived.keys():
                    account.moved(uid, taken=arrived[uid])
                if len(wanted & arrived.keys()) > came:
                    came, came_at_s, is_late = len(wanted & arrived.keys()), now_s, False
            if came >= expected:
                return
            if is_late:
                raise SourceUnavailableError(
                    self._entity.name,
                    f"{expected} Instances were sent and {came} arrived: does the peer know our "
                    "listener under this AE Title, address and port?",
                )
            if self._stopped.wait(pause_s):
                raise PollStoppedError
            pause_s = min(1.5 * pause_s, _COUNT_EVERY_S)

    def _recover(self, entry: Entry, shown: Sequence[FoundInstance]) -> None:
        """Whoever fetched last ended in the middle: see what came in spite of that."""
        came = self._ledger.arrived(entry.study, entry.begun_at)
        for one in shown:
            if one.uid in came:
                entry.gave(one)

    def _settle(
        self,
        entry: Entry,
        study: FoundStudy,
        shown: Sequence[FoundInstance],
        *,
        has_more: bool = False,
    ) -> None:
        """All that is shown is here; `has_more` if the ledger does not say so yet."""
        before = (entry.signature, bool(entry.begun_at), entry.retry_at)
        had_failed = bool(entry.failed)
        was_listed_at = entry.listed_at
        entry.signature, entry.begun_at, entry.retry_at = study.signature, "", ""
        entry.listed_at = timestamp(self._ports.clock.now())
        entry.failed.clear()
        # The ledger first: what is deleted and not in it would be no loss, but is here twice.
        if (
            has_more
            or had_failed
            or before != (entry.signature, False, "")
            or entry.version is None
            or _age_s(was_listed_at, entry.listed_at) > _LIST_AGAIN_S
        ):
            self._ledger.write(entry)
        taken = [one for one in shown if one.uid not in entry.refused]
        if taken and self._reader.done(study, taken):
            entry.forget(taken)
            self._ledger.write(entry)

    def _put_off(
        self,
        entry: Entry,
        error: AxiomError | None,
        missing: Sequence[FoundInstance] = (),
    ) -> None:
        """Some of it is not here: try again later, and tell a person if that was so often."""
        limit = self._entity.limits.max_attempts
        reason = str(error.args[-1]) if error is not None and error.args else ""
        reason = reason or "the source shows it, and gives others but not this one"
        attempts = 1
        for one in missing:
            attempts = max(attempts, count := entry.failed_again(one))
            if count == limit:
                self.tally.add(failed=1)
                self._record(entry, one, count, reason)
        if not missing:
            # The Study as a whole: counted under its own UID.
            attempts = entry.failed_again(FoundInstance(entry.study))
            if attempts == limit:
                self._record(entry, FoundInstance(entry.study), attempts, reason)
        pause_s = _LONGEST_PAUSE_S
        if attempts < limit:
            pause_s = min(self._entity.poll_interval_s * 2 ** (attempts - 1), _LONGEST_PAUSE_S)
        now = self._ports.clock.now()
        entry.begun_at, entry.signature = "", ""
        entry.retry_at = timestamp(now + timedelta(seconds=pause_s))
        self._ledger.write(entry)

    def _record(self, entry: Entry, one: FoundInstance, attempts: int, reason: str) -> None:
        # Files have names of their own in the place of UIDs.
        study, instance = (uid if is_uid(uid) else "" for uid in (entry.study, one.uid))
        raised = exception_from(
            NotRetrievedError(self._entity.name, attempts, reason),
            stage=Stage.POLL,
            at=self._ports.clock.now(),
            source=self._source,
            attempts=attempts,
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid="" if instance == study else instance,
            study_instance_uid=study,
        )
        # One entry, however often it fails.
        text = f"{entry.key}\0{one.uid}"
        identity = hashlib.sha256(text.encode()).hexdigest()[:24]
        self._ports.exceptions.publish(replace(raised, exception_id=identity))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


class _Account:
    """What came of a Study, told by several threads; keeps the ledger up to date."""

    def __init__(
        self, entry: Entry, wanted: Sequence[FoundInstance], ledger: Ledger, tally: Tally
    ) -> None:
        self._entry, self._ledger, self._tally = entry, ledger, tally
        self._left = {one.uid: one for one in wanted}
        self._lock = threading.Lock()
        self._unwritten = 0
        self._written_s = time.monotonic()
        self.received_count = self.refused_count = 0

    def received(self, uid: str, sop_instance_uid: str) -> None:
        """As Outcome."""
        self._tally.add(processed=1)
        with self._lock:
            self.received_count += 1
            self._gave(uid or sop_instance_uid)

    def refused(self, uid: str, sop_instance_uid: str, error: PermanentError) -> None:
        """As Outcome."""
        self._tally.add(failed=1)
        with self._lock:
            self.refused_count += 1
            self._entry.refused.add(uid or sop_instance_uid)
            self._gave(uid or sop_instance_uid)

    def moved(self, uid: str, *, taken: bool) -> None:
        """It came to a listener; twice is once."""
        with self._lock:
            if uid not in self._left:
                return
            self.received_count += taken
            self.refused_count += not taken
            self._gave(uid)
        self._tally.add(processed=int(taken), failed=int(not taken))

    def missing(self) -> list[FoundInstance]:
        """What did not come."""
        with self._lock:
            return list(self._left.values())

    def _gave(self, uid: str) -> None:
        # What nobody asked for is not shown by the source either, or will be next time.
        self._entry.gave(self._left.pop(uid, FoundInstance(uid)))
        self._unwritten += 1
        now_s = time.monotonic()
        if self._unwritten >= _WRITE_EVERY or now_s - self._written_s > _WRITE_EVERY_S:
            self._ledger.write(self._entry)
            self._unwritten, self._written_s = 0, now_s


def _divided(
    study: FoundStudy,
    shown: Sequence[FoundInstance],
    wanted: Sequence[FoundInstance],
    unit: str,
) -> list[Retrieval]:
    """What to ask for at once."""
    is_all_shown = study.instances is None
    if unit == "study":
        is_whole = is_all_shown and not study.series and len(wanted) == len(shown)
        return [Retrieval(study.uid, tuple(wanted), is_whole=is_whole)]
    by_series: dict[str, list[FoundInstance]] = defaultdict(list)
    for one in wanted:
        by_series[one.series_instance_uid].append(one)
    in_series: dict[str, int] = defaultdict(int)
    for one in shown:
        in_series[one.series_instance_uid] += 1
    return [
        Retrieval(
            study.uid,
            tuple(instances),
            series,
            is_all_shown and bool(series) and len(instances) == in_series[series],
        )
        for series, instances in by_series.items()
    ]


def _is_settled(entry: Entry, study: FoundStudy, now: datetime) -> bool:
    """True if the Study looks as it did when all of it was here."""
    return (
        entry.version is not None
        and bool(study.signature)
        and study.signature == entry.signature
        and not entry.begun_at
        and not entry.failed
        and _age_s(entry.listed_at, timestamp(now)) <= _LIST_AGAIN_S
    )


def _age_s(then: str, now: str) -> float:
    if not then:
        return float("inf")
    return (datetime.fromisoformat(now) - datetime.fromisoformat(then)).total_seconds()


def _is_of_study(error: AxiomError) -> bool:
    """True if the error concerns this Study, not the source as a whole or our own stores."""
    return error.code in ("source-unavailable", "source-refused")


def _error_of(future: Future[None]) -> BaseException | None:
    try:
        return future.exception()
    except BaseException as error:  # cancelled: the poll ends
        return PollStoppedError(type(error).__name__)
