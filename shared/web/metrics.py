"""GET /metrics: what all processes count, in Prometheus's text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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

from shared.messages import Topic
from shared.metrics import BUCKETS_S, METRICS, Kind, Metric, Snapshot
from shared.pipeline import destination_states, source_states
from shared.pipeline.ports import Ports

# Counting more of a backlog than this tells nobody more.
_MOST_MESSAGES = 1_000_000
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
        registry.register(_Collector(ports))
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    return routes


class _Collector(Collector):
    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def collect(self) -> Iterable[Family]:
        yield from _counted(self._ports.metrics())
        yield from _queue(self._ports)
        yield from _destinations(self._ports)
        yield from _sources(self._ports)


def _counted(snapshot: Snapshot) -> Iterator[Family]:
    for name, listed in snapshot.items():
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


def _queue(ports: Ports) -> Iterator[Family]:
    if ports.queue is None:
        return
    waiting = GaugeMetricFamily(
        "axiom_queue_messages", "Messages of a topic that wait or are worked on.", labels=["topic"]
    )
    age = GaugeMetricFamily(
        "axiom_queue_waiting_seconds",
        "How long a message that could be worked on has waited for that at most.",
        labels=["topic"],
    )
    for topic in Topic:
        backlog = ports.queue.backlog([topic], at_most=_MOST_MESSAGES)
        waiting.add_metric([topic], backlog.messages)
        age.add_metric([topic], backlog.waiting_s)
    yield waiting
    yield age


def _destinations(ports: Ports) -> Iterator[Family]:
    up = GaugeMetricFamily(
        "axiom_destination_up",
        "1 while deliveries to a destination go out, 0 while one at a time is tried.",
        labels=["destination"],
    )
    for entity in ports.configuration.get().destinations:
        found = ports.documents.get(destination_states.COLLECTION, entity.name)
        is_open = found is not None and found.data["circuit"] == destination_states.OPEN
        up.add_metric([entity.name], 0.0 if is_open else 1.0)
    yield up


def _sources(ports: Ports) -> Iterator[Family]:
    counts = {
        key: CounterMetricFamily(
            f"axiom_source_{key}", f"Instances of a source that were {key}.", labels=["source"]
        )
        for key in ("found", "queued", "processed", "failed")
    }
    for entity in ports.configuration.get().sources:
        state = source_states.state_of(entity.name, ports)
        for key, family in counts.items():
            family.add_metric([entity.name], state["totals"][key])
    yield from counts.values()
