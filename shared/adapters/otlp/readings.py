"""What was counted, as OpenTelemetry's metrics: the same numbers that /metrics shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as OtelMetric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from shared.metrics import BUCKETS_S, METRICS, Kind, Metric, Snapshot

_SCOPE = InstrumentationScope("axiom-flow")
_CUMULATIVE = AggregationTemporality.CUMULATIVE


def metrics_data(
    snapshot: Snapshot, resource: Resource, *, since_ns: int, at_ns: int
) -> MetricsData:
    """The snapshot as it was at `at_ns`, counted since `since_ns` (Unix time)."""
    found = [
        OtelMetric(metric.name, metric.help, _unit(metric), _data(metric, listed, since_ns, at_ns))
        for metric, listed in ((METRICS[name], listed) for name, listed in snapshot.items())
    ]
    scope = ScopeMetrics(_SCOPE, found, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _data(
    metric: Metric, listed: list[tuple[list[str], Any]], since_ns: int, at_ns: int
) -> Sum | Gauge | Histogram:
    def each(point: Callable[[dict[str, str], Any], Any]) -> list[Any]:
        return [point(dict(zip(metric.labels, labels, strict=True)), v) for labels, v in listed]

    if metric.kind is Kind.HISTOGRAM:
        histograms = each(lambda labels, value: _histogram(labels, value, since_ns, at_ns))
        return Histogram(histograms, _CUMULATIVE)
    points = each(lambda labels, value: NumberDataPoint(labels, since_ns, at_ns, value))
    if metric.kind is Kind.COUNTER:
        return Sum(points, _CUMULATIVE, is_monotonic=True)
    return Gauge(points)


def _histogram(labels: dict[str, str], value: Any, since_ns: int, at_ns: int) -> HistogramDataPoint:
    counts, total = value
    lowest = next((i for i, count in enumerate(counts) if count), 0)
    highest = next((i for i in reversed(range(len(counts))) if counts[i]), 0)
    bounds = (0.0, *BUCKETS_S, BUCKETS_S[-1])
    return HistogramDataPoint(
        labels,
        since_ns,
        at_ns,
        sum(counts),
        total,
        counts,
        BUCKETS_S,
        # The ends of the buckets, which is what is known of them.
        min=bounds[lowest],
        max=bounds[highest + 1],
    )


def _unit(metric: Metric) -> str:
    """In UCUM's code, as OpenTelemetry has it."""
    if metric.name.endswith("_seconds"):
        return "s"
    return "By" if metric.name.endswith("_bytes") else "1"
