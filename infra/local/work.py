"""What the processes that work on the queue have in common."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Mapping

from shared import bootstrap, logs
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.lanes import LaneState
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.adapters.embedded.runner import Handler, Runner
from shared.messages import Topic
from shared.pipeline import destination_states
from shared.pipeline.ports import Ports

# Whoever sends to us waits for an answer, and what is durable can wait: reception goes first where
# the processor is short of time. Behind, and not out of turn: a process like that has a third of
# the time of one in front.
_BEHIND = 5
# At once in one process, where a lane has no limit of its own.
_STAGE_CONCURRENCY = 8


def run_handlers(
    part: str,
    entry_points: Mapping[str, Handler],
    *,
    deferred: Collection[str],
    at_once: Collection[str] = (),
) -> None:
    """Run the entry points on the messages of their topics until SIGTERM or SIGINT.

    Of the topics `deferred` what is written for many messages is committed together, and messages
    of `at_once` need not pass through the queue (see Runner).
    """
    logs.configure(part)
    os.nice(_BEHIND)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _set_soon(stopped))
    ports = bootstrap.from_environment()
    assert isinstance(ports.bus, SqliteMessageBus)
    assert isinstance(ports.documents, SqliteDocumentStore)
    destinations = ports.destinations
    delivers = Topic.DELIVERY_REQUESTED in entry_points
    if delivers:
        destination_states.forget_all(ports.documents)
    runner = Runner(
        ports.bus,
        entry_points,
        ports.clock,
        at_once=at_once,
        documents=ports.documents,
        deferred=deferred,
        max_concurrency=lambda lane: (
            destinations.max_concurrency(lane) if lane and delivers else _STAGE_CONCURRENCY
        ),
        budget_s=lambda: ports.configuration.get().settings.retry_budget_s,
        tell=lambda state: _record(state, ports),
    )
    runner.run(stopped)
    destinations.close()
    ports.crosswalks.close()
    ports.standardizers.close()


def _record(state: LaneState, ports: Ports) -> None:
    if state.topic == Topic.DELIVERY_REQUESTED:
        health = destination_states.Health(
            state.lane,
            state.circuit,
            state.failures,
            state.failing_since,
            state.last_error,
            state.next_try_in_s,
        )
        destination_states.record(health, ports.documents, ports.clock)


def _set_soon(stopped: threading.Event) -> None:
    # A signal may come while this thread holds the event's own lock, which `set` waits for.
    threading.Thread(target=stopped.set).start()
