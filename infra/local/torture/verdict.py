"""Where everything that was acknowledged is, once all is settled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local.torture.chaos import Queue
from infra.local.torture.instances import Instance, Kind, data_set_of
from infra.local.torture.ledger import Inbox, Ledger
from shared.messages import Stage
from shared.pipeline.ports import Ports
from shared.ports import Filter

DELIVERED, EXCEPTION, HELD, LOST = "delivered", "exception", "held", "lost"
# A later version has its place; another version was there; a rule or a person said so.
SUPERSEDED, QUARANTINED, DISCARDED = "superseded", "quarantined", "discarded"

_GRAVEST_FIRST = (LOST, EXCEPTION, HELD, QUARANTINED, DISCARDED, SUPERSEDED, DELIVERED)
_PAGE = 1000
_MOST_TRAILS = 20


@dataclass(slots=True)
class Verdict:
    """The tally. An Instance counts once, as the gravest thing that became of it."""

    instances: Counter[str] = field(default_factory=Counter)
    by_destination: dict[str, Counter[str]] = field(default_factory=dict)
    duplicates: int = 0
    wrong: int = 0
    # Open entries about Instances that have arrived after all.
    false_alarms: int = 0
    # Received files that were deleted because they were needed no more.
    cleaned_up: int = 0
    # Entries about requests for storage commitment that cannot be reported.
    untold: int = 0
    # Received files that no record knows: their senders were not answered.
    orphans: int = 0
    entries: Counter[str] = field(default_factory=Counter)
    trails: list[str] = field(default_factory=list)


class Books:
    """The system's own records, read once everything is settled; `discarded` are the receipts that
    a person may have discarded.
    """

    def __init__(self, ports: Ports, queue: Queue, discarded: Collection[str] = ()) -> None:
        self._ports, self._queue, self._discarded = ports, queue, discarded
        self._records: dict[str, list[Mapping[str, Any]]] = {}
        self._series: dict[str, str] = {}
        for record in _all(ports, "instances"):
            self._records.setdefault(record["sop_instance_uid"], []).append(record)
            self._series[record["receipt_id"]] = record["series_instance_uid"]
        self.entries = list(_all(ports, "exceptions"))
        self._open: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for entry in self.entries:
            if entry["status"] == "open":
                key = entry["sop_instance_uid"], entry["destination"]
                self._open.setdefault(key, []).append(entry)

    def is_held(self, instance: Instance) -> bool:
        """True if a receipt of it is held."""
        return HELD in self._states(instance)

    def is_quarantined(self, instance: Instance) -> bool:
        """True if a receipt of it is set aside."""
        return QUARANTINED in self._states(instance)

    def is_discarded(self, instance: Instance) -> bool:
        """True if a receipt of it was discarded, by a rule or a person who wanted that."""
        return any(
            record["state"] == DISCARDED
            and (instance.kind is Kind.DROPPED or record["receipt_id"] in self._discarded)
            for record in self._records_of(instance)
        )

    def has_open_entry(self, instance: Instance, destination: str = "") -> bool:
        """True if a person finds it in the exception log."""
        found = self._open.get((instance.sop_instance_uid, destination), ())
        return any(self.is_about(entry, instance) for entry in found)

    def is_about(self, entry: Mapping[str, Any], instance: Instance) -> bool:
        """False if the entry is about another Instance, or another version of it."""
        series = self._series.get(entry["receipt_id"], instance.series_instance_uid)
        return (
            entry["sop_instance_uid"] == instance.sop_instance_uid
            and series == instance.series_instance_uid
        )

    def newest(self, instance: Instance) -> str:
        """The Series Instance UID of the version that was received last by the system's clock."""
        records = self._records.get(instance.sop_instance_uid, ())
        last = max(records, key=lambda r: (r["received_at"], r["receipt_id"]), default=None)
        return "" if last is None else str(last["series_instance_uid"])

    def cleaned_up(self) -> int:
        """How many received files were deleted because they were needed no more."""
        return sum(swept["files"] for swept in _all(self._ports, "clean-ups"))

    def _states(self, instance: Instance) -> set[str]:
        return {record["state"] for record in self._records_of(instance)}

    def _records_of(self, instance: Instance) -> Iterator[Mapping[str, Any]]:
        for record in self._records.get(instance.sop_instance_uid, ()):
            if record["series_instance_uid"] == instance.series_instance_uid:
                yield record

    def orphans(self) -> int:
        """How many received files no record mentions."""
        known = {
            record["file"]["object_name"]
            for records in self._records.values()
            for record in records
        }
        known_receipts = {entry["receipt_id"] for entry in self.entries}
        return sum(
            name not in known and Path(name).stem not in known_receipts
            for name in self._ports.objects.list("received/")
        )

    def trail(self, instance: Instance) -> str:
        """Every receipt of the Instance, and where its trail ends."""
        uid = instance.sop_instance_uid
        lines = [f"{instance.kind} {uid}, version {instance.version}"]
        for record in self._records.get(uid, ()):
            version = record["series_instance_uid"].rpartition(".")[2]
            lines.append(f"  receipt {record['receipt_id']} {record['state']}, version {version}")
            page = self._ports.documents.query(
                "deliveries", [Filter("receipt_id", "==", record["receipt_id"])], limit=_PAGE
            )
            lines += [
                f"    {d.data['destination']}: {d.data['state']} {d.data.get('error', '')}"
                f" (attempts {d.data['attempts']}, {d.data['updated_at']})"
                for d in page.documents
            ]
        lines += [
            f"  exception {entry['id']} {entry['stage']} {entry['code']} {entry['status']}"
            f" {entry['destination']}"
            for entry in self.entries
            if entry["sop_instance_uid"] == uid
        ]
        lines += [f"  in the queue: {words}" for words in self._queue.mentions(uid)]
        return "\n".join(lines)


def judge(ledger: Ledger, inboxes: Mapping[str, Inbox], books: Books) -> Verdict:
    """Account for every acknowledged Instance."""
    verdict = Verdict()
    for instance in ledger.acknowledged:
        if waits := _place_of_undelivered(instance, books):
            found = {waits}
        else:
            places = {
                destination: _place(instance, destination, inboxes[destination], books)
                for destination in instance.kind.destinations
            }
            for destination, place in places.items():
                verdict.by_destination.setdefault(destination, Counter())[place] += 1
            found = set(places.values()) or {LOST}
        gravest = next(place for place in _GRAVEST_FIRST if place in found)
        verdict.instances[gravest] += 1
        if gravest == LOST and len(verdict.trails) < _MOST_TRAILS:
            verdict.trails.append(books.trail(instance))
    for entry in books.entries:
        verdict.entries[entry["code"]] += 1
        verdict.untold += entry["stage"] == Stage.COMMITMENT
        inbox = inboxes.get(entry["destination"])
        if inbox is not None and entry["status"] == "open":
            about = [i for i in ledger.find(entry["sop_instance_uid"]) if books.is_about(entry, i)]
            verdict.false_alarms += any(
                _place(i, entry["destination"], inbox, books) in (DELIVERED, SUPERSEDED)
                for i in about
            )
    verdict.cleaned_up = books.cleaned_up()
    verdict.duplicates = sum(inbox.duplicates for inbox in inboxes.values())
    verdict.wrong = sum(len(inbox.wrong) for inbox in inboxes.values())
    verdict.orphans = books.orphans()
    return verdict


def fill(inbox: Inbox, folder: Path) -> None:
    """Take what lies in a folder that Instances are delivered to."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            inbox.take(path.stem, data_set_of(path.read_bytes()))


def _place(instance: Instance, destination: str, inbox: Inbox, books: Books) -> str:
    if instance in inbox:
        return DELIVERED
    if instance.kind is Kind.CORRECTED and books.newest(instance) in inbox.versions(instance):
        return SUPERSEDED
    if instance.kind is Kind.DOUBTED and books.is_quarantined(instance):
        return QUARANTINED
    if instance.kind is Kind.DOUBTED and books.is_discarded(instance):
        return DISCARDED
    # Without a destination: it came to grief before it was known where to.
    is_known = books.has_open_entry(instance, destination) or books.has_open_entry(instance)
    return EXCEPTION if is_known else LOST


def _place_of_undelivered(instance: Instance, books: Books) -> str:
    """Where it is if it is not to go anywhere, or not yet; else ""."""
    if instance.kind is Kind.HELD and books.is_held(instance):
        return HELD
    if instance.kind in (Kind.HELD, Kind.DROPPED) and books.is_discarded(instance):
        return DISCARDED
    is_known = instance.kind in (Kind.DROPPED, Kind.INVALID) and books.has_open_entry(instance)
    return EXCEPTION if is_known else ""


def _all(ports: Ports, collection: str) -> Iterator[Mapping[str, Any]]:
    cursor = None
    while True:
        page = ports.documents.query(collection, limit=_PAGE, cursor=cursor)
        yield from (document.data for document in page.documents)
        cursor = page.cursor
        if cursor is None:
            return
