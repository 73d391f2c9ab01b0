"""What a process counts and times, for /metrics.

The table of metrics is data; names are Prometheus's, labels hold names of the configuration, codes
and states, never Values of a patient. Counting costs about a microsecond and writes nothing:
whoever runs the process puts its snapshots where they are read (see `shared.metrics_folder`).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from time import perf_counter
from typing import Any

from msgspec import Struct

# Seconds; the last bucket takes what is longer.
BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)

# Of one metric; what comes after is counted under OTHER, so that no sender fills the memory.
_MAX_SERIES = 20_000
OTHER = "(other)"


class Kind(StrEnum):
    """How values of a metric add up."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(Struct, frozen=True):
    """One metric: what it says, and the names of its labels."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


RECEIVED = Metric(
    "axiom_instances_received",
    Kind.COUNTER,
    "Instances that their senders were told are safe.",
    ("source_type", "source"),
)
RECEIVED_BYTES = Metric(
    "axiom_received_bytes",
    Kind.COUNTER,
    "Bytes of received files.",
    ("source_type", "source"),
)
REFUSED = Metric(
    "axiom_instances_refused",
    Kind.COUNTER,
    "Instances that their senders were told are not safe, by the code of the reason.",
    ("source_type", "source", "code"),
)
STUDIES = Metric(
    "axiom_studies",
    Kind.COUNTER,
    "Studies of which an Instance came after none had for an hour, as each process saw it.",
    ("source_type", "source"),
)
VALIDATED = Metric(
    "axiom_instances_validated",
    Kind.COUNTER,
    "Received Instances that were checked, by what came of it: accepted, warned or rejected.",
    ("source_type", "source", "outcome"),
)
STAGE = Metric(
    "axiom_stage_messages",
    Kind.COUNTER,
    "Messages that a stage took, by its answer: 204 is done, 503 and 425 later, 500 a fault.",
    ("stage", "status"),
)
STAGE_SECONDS = Metric(
    "axiom_stage_seconds", Kind.HISTOGRAM, "How long a stage worked on a message.", ("stage",)
)
RULES_SECONDS = Metric(
    "axiom_rules_evaluation_seconds",
    Kind.HISTOGRAM,
    "How long the rules took to decide about an Instance.",
)
RULE_MATCHES = Metric(
    "axiom_rule_matches", Kind.COUNTER, "Instances that a rule matched.", ("rule",)
)
STANDARDIZED = Metric(
    "axiom_standardizations",
    Kind.COUNTER,
    "Attributes of Instances that a standardizer was asked about, by where its answer was from:"
    " kept, embedded, remote, review (a person has to decide) or none.",
    ("standardizer", "attribute", "answer"),
)
STANDARDIZER_ANSWERS = Metric(
    "axiom_standardizer_answers",
    Kind.COUNTER,
    "Questions to providers of standard terms, by what came of them: sure, unsure, abstained,"
    " discarded (no term), or why there was no answer.",
    ("provider", "outcome"),
)
DELIVERIES = Metric(
    "axiom_deliveries",
    Kind.COUNTER,
    "Attempts at a Delivery, by the state that they left it in.",
    ("source_type", "source", "destination", "state"),
)
RULE_DELIVERIES = Metric(
    "axiom_rule_deliveries",
    Kind.COUNTER,
    "Attempts at a Delivery of an Instance that a rule matched, by the state they left it in.",
    ("rule", "state"),
)
DELIVERY_SECONDS = Metric(
    "axiom_delivery_seconds",
    Kind.HISTOGRAM,
    "How long a successful attempt at a Delivery took.",
    ("destination",),
)
END_TO_END_SECONDS = Metric(
    "axiom_end_to_end_seconds",
    Kind.HISTOGRAM,
    "From an Instance's reception to its confirmed Delivery.",
    ("destination",),
)
EXCEPTIONS = Metric(
    "axiom_exceptions",
    Kind.COUNTER,
    "Entries of the exception log as they came.",
    ("category", "stage", "code", "source", "destination"),
)
QUERIES = Metric(
    "axiom_query_retrieve_requests",
    Kind.COUNTER,
    "C-FIND, C-MOVE and C-GET requests that a listener has answered, by the final Status.",
    ("listener", "operation", "status"),
)
QUERY_SECONDS = Metric(
    "axiom_query_retrieve_seconds",
    Kind.HISTOGRAM,
    "From a request of Query/Retrieve to its final response.",
    ("listener", "operation"),
)
CERTIFICATE_SECONDS = Metric(
    "axiom_tls_certificate_expires_seconds",
    Kind.GAUGE,
    "How long our own TLS certificate is still good; negative once it has expired.",
    ("owner",),
)

QUEUE_MESSAGES = Metric(
    "axiom_queue_messages",
    Kind.GAUGE,
    "Messages of a topic that wait or are worked on.",
    ("topic",),
)
QUEUE_SECONDS = Metric(
    "axiom_queue_waiting_seconds",
    Kind.GAUGE,
    "How long a message that could be worked on has waited for that at most.",
    ("topic",),
)
DESTINATION_UP = Metric(
    "axiom_destination_up",
    Kind.GAUGE,
    "1 while deliveries to a destination go out, 0 while one at a time is tried.",
    ("destination",),
)
SOURCE_FOUND, SOURCE_QUEUED, SOURCE_PROCESSED, SOURCE_FAILED = (
    Metric(
        f"axiom_source_{word}",
        Kind.COUNTER,
        f"Instances of a source that were {word}.",
        ("source",),
    )
    for word in ("found", "queued", "processed", "failed")
)
CROSSWALK_AGE_SECONDS = Metric(
    "axiom_crosswalk_age_seconds",
    Kind.GAUGE,
    "How old the copy is that a crosswalk map answers from.",
    ("map", "source"),
)
CROSSWALK_ROWS = Metric(
    "axiom_crosswalk_rows",
    Kind.GAUGE,
    "Rows of the copy that a crosswalk map answers from.",
    ("map", "source"),
)
CROSSWALK_UP = Metric(
    "axiom_crosswalk_up",
    Kind.GAUGE,
    "1 while copies of a crosswalk map can be taken, 0 since one could not.",
    ("map", "source"),
)
CROSSWALK_SYNCS = Metric(
    "axiom_crosswalk_syncs",
    Kind.COUNTER,
    "Copies of a crosswalk map that were taken, or could not be, by outcome: taken or failed.",
    ("map", "source", "outcome"),
)
EDGE_MESSAGES = Metric(
    "axiom_edge_messages",
    Kind.GAUGE,
    "Messages of a gateway on premises that the cloud does not have.",
    ("edge",),
)
EDGE_SECONDS = Metric(
    "axiom_edge_waiting_seconds",
    Kind.GAUGE,
    "How long the oldest of them has waited.",
    ("edge",),
)
EDGE_BYTES = Metric(
    "axiom_edge_bytes",
    Kind.GAUGE,
    "Bytes of received files on the disk of a gateway on premises.",
    ("edge",),
)
EDGE_FREE_BYTES = Metric(
    "axiom_edge_free_bytes",
    Kind.GAUGE,
    "Bytes that are free on that disk.",
    ("edge",),
)
EDGE_SILENT_SECONDS = Metric(
    "axiom_edge_silent_seconds",
    Kind.GAUGE,
    "How long a gateway on premises has given no sign of life.",
    ("edge",),
)
AUDIT_MESSAGES = Metric(
    "axiom_audit_messages",
    Kind.COUNTER,
    "Audit messages for a repository: sent, or lost because it was away for too long.",
    ("outcome",),
)
TRACE_SPANS = Metric(
    "axiom_trace_spans",
    Kind.COUNTER,
    "Spans for the collector of traces, by what became of them: sent, or lost because it was away.",
    ("outcome",),
)

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        RECEIVED,
        RECEIVED_BYTES,
        REFUSED,
        STUDIES,
        VALIDATED,
        STAGE,
        STAGE_SECONDS,
        RULES_SECONDS,
        RULE_MATCHES,
        STANDARDIZED,
        STANDARDIZER_ANSWERS,
        DELIVERIES,
        RULE_DELIVERIES,
        DELIVERY_SECONDS,
        END_TO_END_SECONDS,
        EXCEPTIONS,
        QUERIES,
        QUERY_SECONDS,
        CERTIFICATE_SECONDS,
        QUEUE_MESSAGES,
        QUEUE_SECONDS,
        DESTINATION_UP,
        SOURCE_FOUND,
        SOURCE_QUEUED,
        SOURCE_PROCESSED,
        SOURCE_FAILED,
        CROSSWALK_AGE_SECONDS,
        CROSSWALK_ROWS,
        CROSSWALK_UP,
        CROSSWALK_SYNCS,
        EDGE_MESSAGES,
        EDGE_SECONDS,
        EDGE_BYTES,
        EDGE_FREE_BYTES,
        EDGE_SILENT_SECONDS,
        AUDIT_MESSAGES,
        TRACE_SPANS,
    )
}

# By metric and label values; of a histogram: how many in each bucket, and the sum.
Snapshot = dict[str, list[tuple[list[str], Any]]]


class Registry:
    """Counts of one process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, dict[tuple[str, ...], Any]] = {}

    def count(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        """Add to a counter; labels in the order that the metric names them."""
        with self._lock:
            series, key = self._series(metric, labels)
            series[key] = series.get(key, 0) + amount

    def gauge(self, metric: Metric, *labels: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            series, key = self._series(metric, labels)
            series[key] = value

    def observe(self, metric: Metric, *labels: str, seconds: float) -> None:
        """Put a duration into a histogram."""
        with self._lock:
            series, key = self._series(metric, labels)
            known = series.get(key)
            if known is None:
                known = series[key] = [[0] * (len(BUCKETS_S) + 1), 0.0]
            known[0][bisect_left(BUCKETS_S, seconds)] += 1
            known[1] += seconds

    @contextmanager
    def timed(self, metric: Metric, *labels: str) -> Iterator[None]:
        """Put how long the block takes into a histogram, however it ends."""
        began_s = perf_counter()
        try:
            yield
        finally:
            self.observe(metric, *labels, seconds=perf_counter() - began_s)

    def snapshot(self) -> Snapshot:
        """All of it, as JSON can say it."""
        with self._lock:
            return {
                name: [
                    (list(key), [list(value[0]), value[1]] if isinstance(value, list) else value)
                    for key, value in series.items()
                ]
                for name, series in self._values.items()
            }

    def _series(
        self, metric: Metric, labels: tuple[str, ...]
    ) -> tuple[dict[tuple[str, ...], Any], tuple[str, ...]]:
        series = self._values.setdefault(metric.name, {})
        if labels not in series and len(series) >= _MAX_SERIES:
            return series, (OTHER,) * len(metric.labels)
        return series, labels


def added(snapshots: Sequence[Snapshot]) -> Snapshot:
    """What several processes counted together; of a gauge the last one holds."""
    total: dict[str, dict[tuple[str, ...], Any]] = {}
    for snapshot in snapshots:
        for name, listed in snapshot.items():
            metric = METRICS.get(name)
            if metric is None:
                continue  # of another release
            series = total.setdefault(name, {})
            for labels, value in listed:
                key = tuple(labels)
                if len(key) != len(metric.labels):
                    continue  # likewise
                series[key] = _together(metric.kind, series.get(key), value)
    return {name: [(list(key), value) for key, value in s.items()] for name, s in total.items()}


def _together(kind: Kind, known: Any, value: Any) -> Any:
    if known is None or kind is Kind.GAUGE:
        return value
    if kind is Kind.COUNTER:
        return known + value
    counts = [a + b for a, b in zip(known[0], value[0], strict=True)]
    return [counts, known[1] + value[1]]


# What this process counts.
PROCESS = Registry()
