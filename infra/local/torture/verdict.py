"""Where everything that was acknowledged is, once all is settled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local.torture.chaos import Queue
from infra.local.torture.instances import Instance, Kind, data_set_of
from infra.local.torture.ledger import Inbox, Ledger
from shared.pipeline.ports import Ports
from shared.ports import Filter

DELIVERED, EXCEPTION, HELD, LOST = "delivered", "exception", "held", "lost"

# States of an Instance that waits for a person.
_WAITING = (HELD, "quarantined")
_GRAVEST_FIRST = (LOST, EXCEPTION, HELD, DELIVERED)
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
    # Received files that no record knows: their senders were not answered.
    orphans: int = 0
    entries: Counter[str] = field(default_factory=Counter)
    trails: list[str] = field(default_factory=list)


class Books:
    """The system's own records, read once everything is settled."""

    def __init__(self, ports: Ports, queue: Queue) -> None:
        self._ports, self._queue = ports, queue
        self._records: dict[str, list[Mapping[str, Any]]] = {}
        for record in _all(ports, "instances"):
            self._records.setdefault(record["sop_instance_uid"], []).append(record)
        self.entries = list(_all(ports, "exceptions"))
        self._open = {
            (entry["sop_instance_uid"], entry["destination"])
            for entry in self.entries
            if entry["status"] == "open"
        }

    def is_held(self, sop_instance_uid: str) -> bool:
        """True if a receipt of it is held."""
        return any(r["state"] in _WAITING for r in self._records.get(sop_instance_uid, ()))

    def has_open_entry(self, sop_instance_uid: str, destination: str = "") -> bool:
        """True if a person finds it in the exception log."""
        return (sop_instance_uid, destination) in self._open

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
        lines = [f"{instance.kind} {uid}"]
        for record in self._records.get(uid, ()):
            lines.append(f"  receipt {record['receipt_id']} {record['state']}")
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
    for uid, instance in ledger.acknowledged.items():
        places = {
            destination: _place(uid, destination, inboxes[destination], books)
            for destination in instance.kind.destinations
        }
        for destination, place in places.items():
            verdict.by_destination.setdefault(destination, Counter())[place] += 1
        found = set(places.values()) or {_place_of_undelivered(instance, books)}
        gravest = next(place for place in _GRAVEST_FIRST if place in found)
        verdict.instances[gravest] += 1
        if gravest == LOST and len(verdict.trails) < _MOST_TRAILS:
            verdict.trails.append(books.trail(instance))
    for entry in books.entries:
        verdict.entries[entry["code"]] += 1
        inbox = inboxes.get(entry["destination"])
        verdict.false_alarms += inbox is not None and entry["sop_instance_uid"] in inbox
    verdict.duplicates = sum(inbox.duplicates for inbox in inboxes.values())
    verdict.wrong = sum(len(inbox.wrong) for inbox in inboxes.values())
    verdict.orphans = books.orphans()
    return verdict


def fill_archive(inbox: Inbox, archive: Path) -> None:
    """Take what lies in the folder that Instances are delivered to."""
    for path in sorted(archive.rglob("*")):
        if path.is_file():
            inbox.take(path.stem, data_set_of(path.read_bytes()))


def _place(uid: str, destination: str, inbox: Inbox, books: Books) -> str:
    if uid in inbox:
        return DELIVERED
    # Without a destination: it came to grief before it was known where to.
    is_known = books.has_open_entry(uid, destination) or books.has_open_entry(uid)
    return EXCEPTION if is_known else LOST


def _place_of_undelivered(instance: Instance, books: Books) -> str:
    uid = instance.sop_instance_uid
    if instance.kind is Kind.HELD and books.is_held(uid):
        return HELD
    return EXCEPTION if books.has_open_entry(uid) else LOST


def _all(ports: Ports, collection: str) -> Iterator[Mapping[str, Any]]:
    cursor = None
    while True:
        page = ports.documents.query(collection, limit=_PAGE, cursor=cursor)
        yield from (document.data for document in page.documents)
        cursor = page.cursor
        if cursor is None:
            return
