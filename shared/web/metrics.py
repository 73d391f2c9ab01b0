"""GET /metrics: all that is measured, in Prometheus's text format."""

from __future__ import annotations

from collections.abc import Iterable

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from shared.metrics import BUCKETS_S, METRICS, Kind, Metric, Snapshot
from shared.pipeline import readings
from shared.pipeline.ports import Ports

_LE = [f"{bound:g}" for bound in BUCKETS_S] + ["+Inf"]


def blueprint(ports: Ports) -> APIBlueprint:
    """The route /metrics."""
    routes = APIBlueprint("metrics", __name__, abp_tags=[Tag(name="health")])

    @routes.get(
        "/metrics",
        operation_id="read_metrics",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def read_metrics() -> Response:
        """Counters, gauges and histograms of all processes of this machine."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(readings.read(ports)))
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    return routes


class _Collector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Family]:
        for name, listed in self._snapshot.items():
            metric = METRICS[name]
            if metric.kind is Kind.HISTOGRAM:
                yield _histogram(metric, listed)
                continue
            kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for labels, value in listed:
                family.add_metric(labels, value)
            yield family


def _histogram(metric: Metric, listed: list[tuple[list[str], list[object]]]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, (counts, total) in listed:
        assert isinstance(counts, list)
        assert isinstance(total, float | int)
        so_far, buckets = 0, list[tuple[str, float]]()
        for bound, count in zip(_LE, counts, strict=True):
            so_far += count
            buckets.append((bound, so_far))
        family.add_metric(labels, buckets, float(total))
    return family
