"""Deleting what is needed no more: received files, orphans, expired records. Never anything else.

A received file goes once every Delivery that was decided is confirmed (or was given up by a person)
and `retention_s` has passed; while disk is short, as soon as it may. What is held, quarantined,
collected for a Study, or has an open entry in the exception log stays. An orphan is a received file
that nothing refers to: its sender was never told Success.

The walk goes through the stored objects, whose names tell when they came, so it finds all of them
whatever was interrupted before. Each step may be done twice, by two processes, and be killed.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

from msgspec import Struct, field

from shared import audit, crash_points
from shared.errors import (
    AxiomError,
    DestinationMisconfiguredError,
    DocumentChangedError,
    ObjectMissingError,
    StorageUnavailableError,
)
from shared.messages import Stage, Topic
from shared.pipeline import commitment, exceptions, instance_records, jobs, shadow, studies
from shared.pipeline.copies import COLLECTION as COPIES
from shared.pipeline.copies import copy_key
from shared.pipeline.delivery_records import COLLECTION as DELIVERIES
from shared.pipeline.delivery_records import SETTLED, delivery_key, is_overtaken
from shared.pipeline.destination_retention import sweep_destinations
from shared.pipeline.instance_records import COLLECTION as INSTANCES
from shared.pipeline.instance_records import DISCARDED, ROUTED
from shared.pipeline.plans import delivered_uid
from shared.pipeline.ports import Ports
from shared.pipeline.returned import RENAMED
from shared.ports import Document, Filter
from shared.times import timestamp

log = logging.getLogger(__name__)

COLLECTION = "clean-ups"

# Nothing takes so long from a received file to its message, document or exception.
ORPHAN_AFTER = timedelta(days=1)
# Marks the document of an Instance whose received file is deleted.
FILE_DELETED_AT = "file_deleted_at"

_PREFIX = "received/"
_NAME = re.compile(r"received/\d{8}/\d{2}/((\d{8}T\d{12})-[0-9a-f]{8})\.dcm")
_SHORTEST_CYCLE_S, _LONGEST_CYCLE_S = 10.0, 600.0
# Looking at what stays is at most this part of the time: with a million files that must stay, a
# walk takes minutes, and asks as much of the stores as one that deletes them.
_BUSY_PART = 0.2
# So many for each that may go on side by side: what takes long holds up few.
_GROUP = 4
# Disk is short from here on, as a part of what reception needs: it is closed a little lower.
_SHORT_BELOW = 1.25
_BATCH = 200
# Looking for orphans reads the queue; one that is this deep is left for another day.
_DEEPEST_QUEUE = 10_000
_QUEUE = (
    Topic.INSTANCE_RECEIVED,
    Topic.INSTANCE_ACCEPTED,
    Topic.STANDARDIZATION_REQUESTED,
    Topic.EXCEPTION_RAISED,
)

Data = Mapping[str, Any]
T = TypeVar("T")


class Swept(Struct):
    """What one cycle has deleted so far, and why it kept what it looked at and kept."""

    files: int = 0
    bytes: int = 0
    orphans: int = 0
    records: int = 0
    expired: int = 0  # at destinations that keep what they have for so many days
    kept: Counter[str] = field(default_factory=Counter)

    @property
    def deleted(self) -> int:
        """How many things were deleted."""
        return self.files + self.orphans + self.records + self.expired

    @property
    def deleted_part(self) -> float:
        """How much of what it looked at it has deleted, 0 to 1."""
        return self.deleted / max(1, self.deleted + self.kept.total())

    def as_json(self) -> dict[str, Any]:
        """As the log, the API and documents show it."""
        return {
            "files": self.files,
            "bytes": self.bytes,
            "orphans": self.orphans,
            "records": self.records,
            "expired": self.expired,
            "kept": dict(self.kept),
        }


class Cleaner:
    """The timer's part; one for each process. It remembers where it is, which only saves work."""

    def __init__(self, ports: Ports, *, at_once: int = 1) -> None:
        """`at_once` Instances and records are looked at side by side: where the stores are beyond a
        network, one that goes from each to the next waits nearly all of the time.
        """
        self._ports = ports
        self._at_once = at_once
        self._pool = ThreadPoolExecutor(at_once, "clean-up") if at_once > 1 else None
        self._counting = threading.Lock()
        self._lock = threading.Lock()
        self._steps: Iterator[None] | None = None
        self._began_at_s = float("-inf")
        self._worked_s = 0.0
        self._swept = Swept()

    def run(self, *, for_s: float = 2.0) -> Swept:
        """Go on for about `for_s` seconds, or to the end of the cycle; the cycle's counts so far.

        A new cycle begins ten minutes after the last one began, or sooner while disk is short and
        where files are not to be kept for long. Raises: StorageUnavailableError if nothing can be
        read now; the next call begins anew.
        """
        with self._lock:
            clock = self._ports.clock
            if self._steps is None:
                if clock.monotonic_s() - self._began_at_s < self._cycle_s():
                    return self._swept
                self._began_at_s, self._worked_s = clock.monotonic_s(), 0.0
                self._swept = Swept()
                self._steps = self._cycle()
            began_s = clock.monotonic_s()
            until_s = began_s + for_s
            before = self._swept.deleted
            try:
                for _ in self._steps:
                    if clock.monotonic_s() >= until_s:
                        break
                else:
                    self._steps = None
            except BaseException:
                self._steps = None
                raise
            finally:
                self._worked_s += clock.monotonic_s() - began_s
            if self._swept.deleted > before:
                log.info("cleaned up", extra=self._swept.as_json())
            return self._swept

    def _cycle_s(self) -> float:
        """Seconds from the begin of a cycle to the begin of the next."""
        wanted_s = self._ports.configuration.get().settings.retention_s / 10
        if self._is_short():
            wanted_s = 0.0
        wanted_s = min(max(wanted_s, _SHORTEST_CYCLE_S), _LONGEST_CYCLE_S)
        wasted_s = self._worked_s * (1.0 - self._swept.deleted_part)
        return max(wanted_s, wasted_s / _BUSY_PART)

    def _each(self, work: Callable[[T], None], items: Iterable[T]) -> Iterator[None]:
        """Do it for each, side by side where that is wanted. While this yields nothing runs."""
        if self._pool is None:
            for item in items:
                work(item)
                yield
            return
        items = iter(items)
        while group := list(islice(items, self._at_once * _GROUP)):
            running = [self._pool.submit(work, item) for item in group]
            wait(running)
            for one in running:
                one.result()
            yield

    def _deleted(self, **what: int) -> None:
        with self._counting:
            for name, number in what.items():
                setattr(self._swept, name, getattr(self._swept, name) + number)

    def _kept(self, why: str, number: int = 1) -> None:
        with self._counting:
            self._swept.kept[why] += number

    def _cycle(self) -> Iterator[None]:
        began_at = self._ports.clock.now()
        yield from self._sweep_files()
        yield from self._sweep_records()
        for count in sweep_destinations(self._ports):
            self._deleted(expired=count)
            yield
        if self._swept.deleted:
            # What it is for is done; its own record may wait for the next cycle.
            with suppress(StorageUnavailableError):
                self._ports.documents.create(
                    COLLECTION,
                    f"{began_at:%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}",
                    {
                        "began_at": timestamp(began_at),
                        "ended_at": timestamp(self._ports.clock.now()),
                        **self._swept.as_json(),
                    },
                )

    # ---- received files --------------------------------------------------------------------

    def _sweep_files(self) -> Iterator[None]:
        unknown: list[tuple[str, str]] = []

        def look(found: tuple[str, str, datetime]) -> None:
            name, receipt_id, came_at = found
            known = self._ports.documents.get(INSTANCES, receipt_id)
            if known is not None:
                self._sweep_file(name, known)
            elif came_at <= self._ports.clock.now() - ORPHAN_AFTER:
                unknown.append((name, receipt_id))
            else:
                self._kept("undecided")

        for _ in self._each(look, self._old_files()):
            if len(unknown) >= _BATCH:
                self._sweep_orphans(unknown)
                unknown.clear()
            yield
        self._sweep_orphans(unknown)

    def _old_files(self) -> Iterator[tuple[str, str, datetime]]:
        """Received files that may be needed no more: name, receipt and when it came."""
        retention = timedelta(seconds=self._ports.configuration.get().settings.retention_s)
        for name in self._ports.objects.list(_PREFIX):
            named = _NAME.fullmatch(name)
            if named is None:
                self._kept("not ours")
                continue
            receipt_id, stamp = named.groups()
            came_at = datetime.strptime(stamp, "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
            if came_at > self._ports.clock.now() - retention and not self._is_short():
                return  # and so are all that follow
            yield name, receipt_id, came_at

    def _sweep_file(self, name: str, known: Document) -> None:
        why = self._why_kept(known.data)
        if why:
            self._kept(why)
            return
        if not known.data.get(FILE_DELETED_AT):
            marked = {**known.data, FILE_DELETED_AT: timestamp(self._ports.clock.now())}
            try:
                # If somebody decides anew about the Instance just now, one of us two sees it.
                self._ports.documents.replace(INSTANCES, known.key, marked, known.version)
            except DocumentChangedError:
                self._kept("changed")
                return
            except StorageUnavailableError:
                # Deleting is what helps when the disk is full, and a mark takes room.
                if not self._is_short():
                    raise
        crash_points.reached(crash_points.AFTER_MARK)
        self._ports.objects.delete(name)
        crash_points.reached(crash_points.AFTER_DELETE)
        self._deleted(files=1, bytes=int(known.data["file"]["size"]))

    def _why_kept(self, instance: Data, known: Sequence[Document] | None = None) -> str:
        """In a word why the received file is still needed, "" if it is not.

        `known` are the documents of the Deliveries of one that is to be forgotten, of which some
        may be deleted by an earlier cycle already.
        """
        if instance["state"] not in (ROUTED, DISCARDED):
            return str(instance["state"])
        if instance.get("collecting_for"):
            return instance_records.COLLECTING
        receipt_id = instance["receipt_id"]
        by_key = None if known is None else {one.key: one for one in known}
        for plan in instance["deliveries"]:
            key = delivery_key(receipt_id, plan["destination"])
            found = (
                self._ports.documents.get(DELIVERIES, key) if by_key is None else by_key.get(key)
            )
            if found is None and by_key is not None:
                continue
            if found is None or (by_key is None and is_overtaken(found.data, plan, instance)):
                return "pending"
            if found.data["state"] not in SETTLED:
                return str(found.data["state"])
        return "exception" if self._entries(receipt_id, exceptions.OPEN) else ""

    def _entries(self, receipt_id: str, status: str) -> Sequence[Document]:
        where = [Filter("receipt_id", "==", receipt_id), Filter("status", "==", status)]
        return self._ports.documents.query(exceptions.COLLECTION, where, limit=1).documents

    # ---- orphans ---------------------------------------------------------------------------

    def _sweep_orphans(self, candidates: Sequence[tuple[str, str]]) -> None:
        if not candidates:
            return
        # The queue first: what leaves it meanwhile is in the documents by the time we look there.
        waiting = self._queued([receipt_id for _, receipt_id in candidates], _QUEUE)
        for name, receipt_id in candidates:
            if receipt_id in waiting or not self._is_orphan(receipt_id):
                self._kept("undecided")
                continue
            size = 0
            with suppress(ObjectMissingError), self._ports.objects.open(name) as reader:
                size = reader.size
            self._ports.objects.delete(name)
            crash_points.reached(crash_points.AFTER_DELETE)
            self._deleted(orphans=1, bytes=size)
            log.warning("deleted an orphan", extra={"object": name})

    def _is_orphan(self, receipt_id: str) -> bool:
        if self._ports.documents.get(INSTANCES, receipt_id) is not None:
            return False
        if self._entries(receipt_id, exceptions.OPEN):
            return False
        is_retried = bool(self._entries(receipt_id, exceptions.RETRIED))
        # To a destination that a person named, of which there may be no other trace.
        if is_retried and self._queued([receipt_id], [Topic.DELIVERY_REQUESTED]):
            return False
        sent = [delivery.data["state"] in SETTLED for delivery in self._deliveries(receipt_id)]
        return all(sent) and (bool(sent) or not is_retried)

    def _queued(self, receipt_ids: Sequence[str], topics: Sequence[Topic]) -> Collection[str]:
        """Those of which a message waits, or may wait: nobody can tell of a queue that is deep."""
        queue = self._ports.queue
        if (
            queue is None
            or queue.backlog(topics, at_most=_DEEPEST_QUEUE).messages >= _DEEPEST_QUEUE
        ):
            return receipt_ids
        return queue.mentioned(receipt_ids, topics)

    def _deliveries(self, receipt_id: str) -> Sequence[Document]:
        where = [Filter("receipt_id", "==", receipt_id)]
        return self._ports.documents.query(DELIVERIES, where, limit=1000).documents

    # ---- records ---------------------------------------------------------------------------

    def _sweep_records(self) -> Iterator[None]:
        settings = self._ports.configuration.get().settings
        now = self._ports.clock.now()
        if settings.record_retention_s:
            cutoff = timestamp(now - timedelta(seconds=settings.record_retention_s))
            yield from self._expire(INSTANCES, "received_at", cutoff, self._forget_instance)
            for status in (exceptions.RETRIED, exceptions.ARCHIVED, exceptions.DISCARDED):
                yield from self._expire(
                    exceptions.COLLECTION,
                    "last_at",
                    cutoff,
                    lambda entry: _last_step(entry.data) <= cutoff and self._is_over(entry.data),
                    Filter("status", "==", status),
                )
            yield from self._expire(
                jobs.COLLECTION,
                "created_at",
                cutoff,
                lambda job: job.data["state"] == jobs.FINISHED,
            )
            yield from self._expire(studies.STUDIES, "opened_at", cutoff, self._forget_study)
            yield from self._expire(
                "standardization-series",
                "updated_at",
                cutoff,
                lambda decision: decision.data["state"] != "held",
            )
            yield from self._expire(
                commitment.COLLECTION, "requested_at", cutoff, self._is_forgotten_request
            )
            for collection, field_name in _FINISHED:
                yield from self._expire(collection, field_name, cutoff, lambda document: True)
        if settings.audit_retention_s:
            cutoff = timestamp(now - timedelta(seconds=settings.audit_retention_s))
            yield from self._expire(audit.COLLECTION, "when", cutoff, lambda entry: True)

    def _expire(
        self,
        collection: str,
        order_by: str,
        cutoff: str,
        may_go: Callable[[Document], bool],
        *where: Filter,
    ) -> Iterator[None]:
        """Delete documents up to `cutoff`, oldest first, that `may_go`."""
        documents = self._ports.documents

        def look(document: Document) -> None:
            if not may_go(document):
                self._kept(f"{collection} record")
                return
            with suppress(DocumentChangedError):
                documents.delete(collection, document.key, document.version)
                self._deleted(records=1)

        cursor = None
        while True:
            page = documents.query(
                collection,
                [Filter(order_by, "<=", cutoff), *where],
                order_by=order_by,
                limit=_BATCH,
                cursor=cursor,
            )
            yield from self._each(look, page.documents)
            cursor = page.cursor
            if cursor is None:
                return

    def _is_over(self, entry: Data) -> bool:
        """False while what an entry is about is neither delivered nor given up: archived or not,
        a person finds it by nothing else.
        """
        key = delivery_key(entry["receipt_id"], entry["destination"])
        found = self._ports.documents.get(DELIVERIES, key) if entry["destination"] else None
        return found is None or found.data["state"] in SETTLED

    def _forget_instance(self, known: Document) -> bool:
        """Delete what belongs to the Instance's document; False if it is to stay."""
        instance = known.data
        # Without its file nothing can be delivered any more, so nothing is pending.
        if self._has_file(instance):
            return False
        deliveries = self._deliveries(known.key)
        if self._why_kept(instance, deliveries):
            return False
        documents = self._ports.documents
        for delivery in deliveries:
            self._forget_copy(instance, delivery.data["destination"])
            documents.delete(DELIVERIES, delivery.key)
            self._deleted(records=1)
        for plan in instance["deliveries"]:
            self._forget_name(instance, delivered_uid(plan, instance["sop_instance_uid"]))
        for member in self._collected(instance):
            documents.delete(studies.COLLECTED, member.key)
            self._deleted(records=1)
        crash_points.reached(crash_points.AFTER_DELIVERIES)
        return True

    def _collected(self, instance: Data) -> Sequence[Document]:
        """What study rules keep of it."""
        # An Instance that was decided about once says itself whether they ever did.
        if not (instance.get("decision") or instance.get("studies")):
            return ()
        where = [Filter("receipt_id", "==", instance["receipt_id"])]
        return self._ports.documents.query(studies.COLLECTED, where, limit=1000).documents

    def _has_file(self, instance: Data) -> bool:
        # Had the one who marked it died before deleting it, a cycle since would have deleted it.
        long_ago = timestamp(self._ports.clock.now() - ORPHAN_AFTER)
        if (instance.get(FILE_DELETED_AT) or long_ago) < long_ago:
            return False
        try:
            with self._ports.objects.open(instance["file"]["object_name"]):
                return True
        except ObjectMissingError:
            return False

    def _forget_copy(self, instance: Data, destination: str) -> None:
        """What a destination has is forgotten with the Instance that brought it there."""
        try:
            address = self._ports.destinations.entity(destination).address
        except DestinationMisconfiguredError:
            return
        plans = [p for p in instance["deliveries"] if p["destination"] == destination]
        uid = delivered_uid(plans[0], instance["sop_instance_uid"]) if plans else ""
        key = copy_key(destination, address, uid)
        found = self._ports.documents.get(COPIES, key) if uid else None
        if found is None or found.data["claim"] is not None:
            return
        confirmed = found.data["confirmed"]
        if confirmed is not None and confirmed["receipt_id"] == instance["receipt_id"]:
            with suppress(DocumentChangedError):
                self._ports.documents.delete(COPIES, key, found.version)
                self._deleted(records=1)

    def _forget_name(self, instance: Data, uid: str) -> None:
        """The loop guard is to know it no more by a UID that a rule gave it."""
        if uid in ("", instance["sop_instance_uid"]):
            return
        found = self._ports.documents.get(RENAMED, uid)
        if found is not None and found.data["receipt_id"] == instance["receipt_id"]:
            self._ports.documents.delete(RENAMED, uid)
            self._deleted(records=1)

    def _forget_study(self, study: Document) -> bool:
        if study.data["state"] == studies.COLLECTING or study.data["due_at"]:
            return False
        where = [Filter("study", "==", study.key)]
        return not self._ports.documents.query(studies.COLLECTED, where, limit=1).documents

    def _is_forgotten_request(self, request: Document) -> bool:
        """True for a request of storage commitment whose answer nobody works on any more."""
        settings = self._ports.configuration.get().settings
        longest = timedelta(seconds=settings.commitment_timeout_s + settings.retry_budget_s)
        # One that is answered goes by when that was.
        if request.data["finished_at"] or request.data["requested_at"] > timestamp(
            self._ports.clock.now() - longest
        ):
            return False
        queue, topics = self._ports.queue, [Topic.COMMITMENT_REQUESTED]
        if queue is not None and queue.mentioned([request.key], topics):
            return False
        # Retrying an entry takes up a request again; which one is not among its fields.
        where = [
            Filter("stage", "==", Stage.COMMITMENT.value),
            Filter("status", "==", exceptions.OPEN),
        ]
        entries = self._ports.documents.query(
            exceptions.COLLECTION, where, order_by="last_at", descending=True, limit=1
        )
        return not entries.documents

    # ---- disk ------------------------------------------------------------------------------

    def _is_short(self) -> bool:
        """True if reception is, or is about to be, closed for want of disk."""
        least = self._ports.configuration.get().settings.min_free_bytes
        try:
            free = self._ports.objects.free_bytes()
        except AxiomError:
            return False
        return free is not None and free < least * _SHORT_BELOW


# Collections whose documents are of use to a reader alone once they are finished, and the field
# that a finished one has, which is a time.
_FINISHED = (
    (COLLECTION, "ended_at"),
    ("ingested", "at"),
    (commitment.COLLECTION, "finished_at"),
    (commitment.REPORTS, "finished_at"),
    ("reconciliations", "finished_at"),
    # Of a Study that its source has not shown for so long.
    ("source-ledger", "checked_at"),
    ("pull-rows", "created_at"),
    # Whoever asks the same again is answered anew.
    ("standardization-decisions", "at"),
    ("standardization-counts", "at"),
    ("standardization-hits", "at"),
    # Of a ruleset that is a shadow no more, or to which nothing came for so long.
    (shadow.COLLECTION, "until"),
)


def _last_step(entry: Data) -> str:
    """When a person last did something about an entry of the exception log, or it happened."""
    steps = entry.get("history") or [{"at": entry["last_at"]}]
    return max(str(entry["last_at"]), str(steps[-1]["at"]))
