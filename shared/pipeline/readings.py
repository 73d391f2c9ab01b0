"""All that is measured, as whoever shows or exports it reads it: what processes counted, and what
the queue and the documents say now.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from shared import metrics
from shared.messages import Topic
from shared.metrics import Metric, Snapshot
from shared.pipeline import destination_states, edges, source_states
from shared.pipeline.ports import Ports

# Counting more of a backlog than this tells nobody more.
_MOST_MESSAGES = 1_000_000

_SOURCE_TOTALS = {
    "found": metrics.SOURCE_FOUND,
    "queued": metrics.SOURCE_QUEUED,
    "processed": metrics.SOURCE_PROCESSED,
    "failed": metrics.SOURCE_FAILED,
}

# A metric, the values of its labels, and what is read.
_Reading = tuple[Metric, list[str], Any]


def read(ports: Ports) -> Snapshot:
    """What holds now. Raises: StorageUnavailableError."""
    snapshot: Snapshot = dict(ports.metrics())
    for part in (_queue, _destinations, _sources, _crosswalks, _edges):
        for metric, labels, value in part(ports):
            snapshot.setdefault(metric.name, []).append((labels, value))
    return snapshot


def _queue(ports: Ports) -> Iterator[_Reading]:
    if ports.queue is None:
        return
    for topic in Topic:
        backlog = ports.queue.backlog([topic], at_most=_MOST_MESSAGES)
        yield metrics.QUEUE_MESSAGES, [topic], backlog.messages
        yield metrics.QUEUE_SECONDS, [topic], backlog.waiting_s


def _destinations(ports: Ports) -> Iterator[_Reading]:
    for entity in ports.configuration.get().destinations:
        found = ports.documents.get(destination_states.COLLECTION, entity.name)
        is_open = found is not None and found.data["circuit"] == destination_states.OPEN
        yield metrics.DESTINATION_UP, [entity.name], 0.0 if is_open else 1.0


def _sources(ports: Ports) -> Iterator[_Reading]:
    for entity in ports.configuration.get().sources:
        totals = source_states.state_of(entity.name, ports)["totals"]
        for word, metric in _SOURCE_TOTALS.items():
            yield metric, [entity.name], totals[word]


def _crosswalks(ports: Ports) -> Iterator[_Reading]:
    now = ports.clock.now()
    for status in ports.crosswalks.status():
        labels = [status.map_name, status.source]
        if not status.is_copied:
            continue
        yield metrics.CROSSWALK_UP, labels, 0.0 if status.failed_at else 1.0
        if status.rows is not None and status.synced_at:
            age_s = (now - datetime.fromisoformat(status.synced_at)).total_seconds()
            yield metrics.CROSSWALK_AGE_SECONDS, labels, age_s
            yield metrics.CROSSWALK_ROWS, labels, status.rows


def _edges(ports: Ports) -> Iterator[_Reading]:
    for edge in edges.seen(ports.documents, ports.clock):
        labels, state = [edge.name], edge.state
        yield metrics.EDGE_MESSAGES, labels, state.messages
        yield metrics.EDGE_SECONDS, labels, edge.oldest_s
        yield metrics.EDGE_BYTES, labels, state.bytes
        yield metrics.EDGE_FREE_BYTES, labels, state.free_bytes
        yield metrics.EDGE_SILENT_SECONDS, labels, edge.silent_s
