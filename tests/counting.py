"""What this process counts in a block, whatever it counted before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.metrics import PROCESS, Kind, Metric

Counts = dict[tuple[str, ...], float]


@contextmanager
def counting(metric: Metric) -> Iterator[Callable[[], Counts]]:
    """Says how much has been added, by labels; of a histogram how many values."""
    before = _counts(metric)

    def added() -> Counts:
        return {
            labels: number - before.get(labels, 0)
            for labels, number in _counts(metric).items()
            if number != before.get(labels, 0)
        }

    yield added


def _counts(metric: Metric) -> Counts:
    listed = PROCESS.snapshot().get(metric.name, [])
    if metric.kind is Kind.HISTOGRAM:
        return {tuple(labels): sum(value[0]) for labels, value in listed}
    return {tuple(labels): value for labels, value in listed}
