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
from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Metric:
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
DELIVERIES = Metric(
    "axiom_deliveries",
    Kind.COUNTER,
    "Attempts at a Delivery, by the state that they left it in.",
    ("destination", "state"),
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
    ("category", "stage", "code"),
)
CERTIFICATE_SECONDS = Metric(
    "axiom_tls_certificate_expires_seconds",
    Kind.GAUGE,
    "How long our own TLS certificate is still good; negative once it has expired.",
    ("owner",),
)

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        RECEIVED,
        RECEIVED_BYTES,
        REFUSED,
        STAGE,
        STAGE_SECONDS,
        RULES_SECONDS,
        RULE_MATCHES,
        DELIVERIES,
        DELIVERY_SECONDS,
        END_TO_END_SECONDS,
        EXCEPTIONS,
        CERTIFICATE_SECONDS,
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
