"""The torture notices what it is there to notice."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from infra.local.torture.chaos import Queue
from infra.local.torture.fairness import LEAST_RATIO
from infra.local.torture.instances import (
    ARCHIVE,
    DESTINATIONS,
    FIRST,
    LATEST,
    PACS,
    WEB,
    Instance,
    Kind,
    Maker,
    data_set_of,
)
from infra.local.torture.ledger import Inbox, Ledger
from infra.local.torture.run import Outcome, Plan
from infra.local.torture.verdict import (
    DELIVERED,
    EXCEPTION,
    LOST,
    SUPERSEDED,
    Books,
    Verdict,
    judge,
)
from shared import bootstrap
from shared.dicom.header import Header
from shared.environment import Environment
from shared.errors import Category
from shared.messages import ExceptionRaised, Stage
from shared.pipeline.ports import Ports


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    """A home that has received nothing."""
    ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(tmp_path / "home")}))
    yield ports
    ports.destinations.close()


@pytest.fixture
def ledger() -> Ledger:
    """Nothing was sent yet."""
    return Ledger()


@pytest.fixture
def inboxes(ledger: Ledger) -> Mapping[str, Inbox]:
    """Nothing has arrived yet."""
    return {name: Inbox(ledger) for name in DESTINATIONS}


@pytest.fixture
def sent(tmp_path: Path, ledger: Ledger) -> Instance:
    """One Instance, acknowledged."""
    instance = Maker(tmp_path / "sent", random.Random(1)).make(Kind.PLAIN)
    ledger.made(instance)
    ledger.acknowledge([instance])
    return instance


def versions(kind: Kind, ledger: Ledger, folder: Path) -> tuple[Instance, Instance]:
    """Two Instances with one SOP Instance UID, acknowledged."""
    maker = Maker(folder / "sent", random.Random(1))
    first = maker.make(kind)
    second = maker.correct(first)
    for instance in (first, second):
        ledger.made(instance)
    ledger.acknowledge([first, second])
    return first, second


def keep(instance: Instance, state: str, ports: Ports) -> None:
    """Have our records know a receipt of the Instance."""
    receipt_id = f"r-{instance.version}"
    data = {
        "receipt_id": receipt_id,
        "sop_instance_uid": instance.sop_instance_uid,
        "series_instance_uid": instance.series_instance_uid,
        "state": state,
        "received_at": f"2026-11-21T10:00:0{instance.version}Z",
        "file": {"object_name": ""},
    }
    ports.documents.create("instances", receipt_id, data)


def verdict_of(ledger: Ledger, inboxes: Mapping[str, Inbox], ports: Ports, home: Path) -> Verdict:
    return judge(ledger, inboxes, Books(ports, Queue(home)))


def deliver(instance: Instance, *inboxes: Inbox, change: bytes = b"") -> None:
    for inbox in inboxes:
        inbox.take(instance.sop_instance_uid, data_set_of(instance.path.read_bytes()) + change)


def test_an_instance_that_is_nowhere_is_lost(
    ledger: Ledger, inboxes: Mapping[str, Inbox], ports: Ports, sent: Instance, tmp_path: Path
) -> None:
    deliver(sent, inboxes[ARCHIVE], inboxes[WEB])
    verdict = verdict_of(ledger, inboxes, ports, tmp_path / "home")
    assert verdict.instances == {LOST: 1}
    assert verdict.by_destination[PACS] == {LOST: 1}
    assert sent.sop_instance_uid in verdict.trails[0]


def test_other_bytes_are_no_delivery(
    ledger: Ledger, inboxes: Mapping[str, Inbox], ports: Ports, sent: Instance, tmp_path: Path
) -> None:
    deliver(sent, inboxes[ARCHIVE], inboxes[WEB])
    deliver(sent, inboxes[PACS], change=b"\0\0")
    verdict = verdict_of(ledger, inboxes, ports, tmp_path / "home")
    assert (verdict.instances, verdict.wrong) == ({LOST: 1}, 1)


def test_what_arrived_twice_is_delivered_and_a_duplicate(
    ledger: Ledger, inboxes: Mapping[str, Inbox], ports: Ports, sent: Instance, tmp_path: Path
) -> None:
    deliver(sent, inboxes[ARCHIVE], inboxes[WEB], inboxes[PACS], inboxes[PACS])
    verdict = verdict_of(ledger, inboxes, ports, tmp_path / "home")
    assert (verdict.instances, verdict.duplicates) == ({DELIVERED: 1}, 1)


@pytest.mark.parametrize("has_arrived", [False, True])
def test_an_entry_of_the_exception_log_counts_unless_it_is_a_false_alarm(
    ledger: Ledger,
    inboxes: Mapping[str, Inbox],
    ports: Ports,
    sent: Instance,
    tmp_path: Path,
    has_arrived: bool,
) -> None:
    deliver(sent, inboxes[ARCHIVE], inboxes[WEB], *([inboxes[PACS]] if has_arrived else []))
    ports.exceptions.record(
        ExceptionRaised(
            "e1",
            ports.clock.now(),
            Stage.DELIVER,
            Category.NETWORK,
            "destination-refused",
            "no",
            destination=PACS,
            sop_instance_uid=sent.sop_instance_uid,
        )
    )
    verdict = verdict_of(ledger, inboxes, ports, tmp_path / "home")
    assert verdict.instances == {DELIVERED if has_arrived else EXCEPTION: 1}
    assert verdict.false_alarms == has_arrived


def test_a_later_version_supersedes_and_an_earlier_one_does_not(
    ledger: Ledger, inboxes: Mapping[str, Inbox], ports: Ports, tmp_path: Path
) -> None:
    first, second = versions(Kind.CORRECTED, ledger, tmp_path)
    keep(first, "routed", ports)
    keep(second, "routed", ports)
    deliver(second, inboxes[LATEST])
    verdict = verdict_of(ledger, inboxes, ports, tmp_path / "home")
    assert verdict.instances == {DELIVERED: 1, SUPERSEDED: 1}
    stale = {name: Inbox(ledger) for name in inboxes}
    deliver(first, stale[LATEST])
    verdict = verdict_of(ledger, stale, ports, tmp_path / "home")
    assert verdict.instances == {DELIVERED: 1, LOST: 1}


@pytest.mark.parametrize("state", ["quarantined", "discarded", "routed"])
def test_what_was_set_aside_is_found_by_its_version(
    ledger: Ledger, inboxes: Mapping[str, Inbox], ports: Ports, tmp_path: Path, state: str
) -> None:
    """Discarded counts where a person may have wanted it, and for nobody else's sake."""
    first, second = versions(Kind.DOUBTED, ledger, tmp_path)
    deliver(first, inboxes[FIRST])
    keep(first, "routed", ports)
    keep(second, state, ports)
    queue = Queue(tmp_path / "home")
    place = LOST if state == "routed" else state
    by_a_person = judge(ledger, inboxes, Books(ports, queue, ["r-2"]))
    assert by_a_person.instances == {DELIVERED: 1, place: 1}
    by_nobody = judge(ledger, inboxes, Books(ports, queue))
    assert by_nobody.instances[LOST] == (state != "quarantined")


def test_what_was_released_counts_where_it_arrived(
    ledger: Ledger, inboxes: Mapping[str, Inbox], ports: Ports, tmp_path: Path
) -> None:
    instance = Maker(tmp_path / "sent", random.Random(1)).make(Kind.HELD)
    ledger.made(instance)
    ledger.acknowledge([instance])
    keep(instance, "routed", ports)
    assert verdict_of(ledger, inboxes, ports, tmp_path / "home").instances == {LOST: 1}
    deliver(instance, inboxes[ARCHIVE], inboxes[WEB], inboxes[PACS])
    assert verdict_of(ledger, inboxes, ports, tmp_path / "home").instances == {DELIVERED: 1}


@pytest.mark.parametrize("kind", Kind)
def test_the_instances_are_what_they_say(kind: Kind, tmp_path: Path) -> None:
    instance = Maker(tmp_path, random.Random(2)).make(kind)
    part10 = instance.path.read_bytes()
    header = Header.parse(part10)
    assert header.text("SOPInstanceUID") == instance.sop_instance_uid
    assert header.text("PatientID") == (None if kind is Kind.INVALID else kind)
    assert instance.is_right(data_set_of(part10)) == (kind is not Kind.CHANGED)


@pytest.mark.parametrize(
    ("fairness", "faults", "not_kept"),
    [(None, 0, 0), (LEAST_RATIO, 0, 0), (LEAST_RATIO / 2, 0, 1), (0.0, 1, 2), (1.0, 1, 1)],
)
def test_what_is_lost_and_what_is_slow_are_told_apart(
    fairness: float | None, faults: int, not_kept: int
) -> None:
    words = ("1 acknowledged Instances are lost",) * faults
    outcome = Outcome(
        Plan(1.0, 1), Verdict(), 9, 9, 0, 0, 0, 0, (0, 0), 1.0, fairness=fairness, faults=words
    )
    assert outcome.faults == words
    assert len(outcome.not_kept) == not_kept
    assert outcome.holds == (not_kept == 0)
