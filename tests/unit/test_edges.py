"""Gateways on premises as the cloud's monitoring sees them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from msgspec.structs import replace

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.pipeline import edges, readings
from shared.pipeline.edges import EdgeState
from tests.embedded_system import System
from tests.fakes import FakeClock

STATE = EdgeState(
    messages=12,
    oldest_s=30.0,
    bytes=6_000_000,
    free_bytes=10**9,
    instances=100,
    stuck=0,
    configuration=3,
)


@pytest.fixture
def documents(tmp_path: Path) -> SqliteDocumentStore:
    return SqliteDocumentStore(tmp_path / "documents.db")


def test_what_waits_grows_older_while_nothing_is_heard(documents: SqliteDocumentStore) -> None:
    clock = FakeClock()
    edges.say("clinic-1", STATE, documents, clock)
    clock.advance(600)
    [seen] = edges.seen(documents, clock)
    assert (seen.name, seen.silent_s, seen.oldest_s) == ("clinic-1", 600.0, 630.0)


def test_each_is_logged_for_the_monitoring(
    documents: SqliteDocumentStore, caplog: pytest.LogCaptureFixture
) -> None:
    """infra/monitoring counts by these names."""
    clock = FakeClock()
    edges.say("clinic-1", STATE, documents, clock)
    clock.advance(90)
    with caplog.at_level(logging.INFO):
        edges.look_after(documents, clock)
    [line] = [one for one in caplog.records if one.message == "a gateway on premises"]
    told = line.__dict__
    assert (told["edge"], told["silent_s"], told["oldest_s"], told["messages"]) == (
        "clinic-1",
        90,
        120,
        12,
    )


def test_metrics_show_what_waits(tmp_path: Path) -> None:
    system = System(tmp_path)
    edges.say("clinic-1", STATE, system.ports.documents, system.clock)
    system.clock.advance(60)
    found = readings.read(system.ports)
    assert found["axiom_edge_messages"] == [(["clinic-1"], 12)]
    assert found["axiom_edge_waiting_seconds"] == [(["clinic-1"], 90.0)]
    assert found["axiom_edge_silent_seconds"] == [(["clinic-1"], 60.0)]


def test_one_that_is_long_gone_is_forgotten(documents: SqliteDocumentStore) -> None:
    clock = FakeClock()
    edges.say("clinic-1", STATE, documents, clock)
    clock.advance(61 * 86_400)
    edges.look_after(documents, clock)
    assert edges.seen(documents, clock) == []


def test_health_tells_of_the_silent_and_of_those_with_a_fault(
    documents: SqliteDocumentStore,
) -> None:
    clock = FakeClock()
    edges.say("well", STATE, documents, clock)
    assert edges.fault_of_any(documents, clock) is None
    edges.say("full", replace(STATE, fault="the disk is full"), documents, clock)
    assert edges.fault_of_any(documents, clock) == "full: the disk is full"
    clock.advance(700)
    edges.say("full", STATE, documents, clock)
    assert edges.fault_of_any(documents, clock) == "well: no sign of life for 700 s"
