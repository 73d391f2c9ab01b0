"""The exception log: one entry for each thing that went wrong, open as long as it does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.errors import DestinationRefusedError
from shared.messages import (
    DeliveryRequested,
    ExceptionRaised,
    Receipt,
    ReceivedFile,
    Source,
    Stage,
    Topic,
    encode,
)
from shared.pipeline.exceptions import OPEN, RETRIED, ExceptionLog, exception_from
from tests.fakes import FakeClock

RECEIPT = Receipt(
    "r1",
    "t1",
    datetime(2026, 11, 21, tzinfo=UTC),
    Source("dimse", "main"),
    ReceivedFile("received/r1.dcm", 100, 1, 90),
    *("1.1", "1.2", "1.3", "1.4", "1.5"),
    header=b"",
)


@pytest.fixture
def clock() -> FakeClock:
    """A wall clock that can be set."""
    return FakeClock()


@pytest.fixture
def log(tmp_path: Path, clock: FakeClock) -> Iterator[ExceptionLog]:
    """An empty log."""
    documents = SqliteDocumentStore(tmp_path / "documents.db")
    bus = SqliteMessageBus(tmp_path / "queue.db", tmp_path / "run", clock)
    yield ExceptionLog(documents, bus, clock)
    bus.close()
    documents.close()


def raised(clock: FakeClock, words: str = "C000H") -> ExceptionRaised:
    return exception_from(
        DestinationRefusedError("pacs", words),
        stage=Stage.DELIVER,
        at=clock.now(),
        receipt=RECEIPT,
        destination="pacs",
        retry_topic=Topic.DELIVERY_REQUESTED,
        retry_message=encode(DeliveryRequested(RECEIPT, "pacs")),
    )


def test_the_same_message_twice_is_one_occurrence(log: ExceptionLog, clock: FakeClock) -> None:
    message = raised(clock)
    for _ in range(3):
        log.record(message)
    assert log.get(message.exception_id)["attempts"] == 1


def test_an_entry_says_which_instance_it_is_about(log: ExceptionLog, clock: FakeClock) -> None:
    """With its Transfer Syntax: a destination that refuses it often refuses that."""
    message = raised(clock)
    log.record(message)
    entry = log.get(message.exception_id)
    names = ("sop_class_uid", "sop_instance_uid", "study_instance_uid", "transfer_syntax_uid")
    assert [entry[name] for name in names] == ["1.1", "1.2", "1.3", "1.5"]


def test_the_same_message_after_a_retry_does_not_open_the_entry(
    log: ExceptionLog, clock: FakeClock
) -> None:
    """The bus may deliver it late."""
    message = raised(clock)
    log.record(message)
    log.retry(message.exception_id, by="test")
    log.record(message)
    assert log.get(message.exception_id)["status"] == RETRIED


@pytest.mark.parametrize("seconds", [-86400, -3600, 0, 3600])
def test_what_fails_again_opens_the_entry_whatever_the_clock_says(
    log: ExceptionLog, clock: FakeClock, seconds: int
) -> None:
    """Set back, it makes the second failure look older than the first; an entry that stayed
    `retried` then would be the end of the Instance.
    """
    first = raised(clock)
    log.record(first)
    log.retry(first.exception_id, by="test")
    clock.advance(1)
    clock.set_wall_clock(seconds)
    log.record(raised(clock, "A900H"))
    entry = log.get(first.exception_id)
    assert entry["status"] == OPEN
    assert "A900H" in entry["message"]
    assert (entry["attempts"], len(entry["history"])) == (2, 1)
    log.record(first)
    assert log.get(first.exception_id) == entry
