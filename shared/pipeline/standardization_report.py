"""How good standardizers are, counted in Series: what was decided, and what people made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.pipeline.ports import Ports
from shared.pipeline.standardization_counts import CACHED
from shared.standardize.outcomes import ANSWERS, DISCARDED

# What a column counts, by the states that a decision came to.
_DECIDED: Final = {
    "applied": "applied",
    "kept": "kept",
    "unknown": "abstained",
    "down": "down",
    "proposed": "proposed",
    "held": "held",
    CACHED: CACHED,
}
_SETTLED: Final = {
    "approved": "accepted",
    "corrected": "corrected",
    "rejected": "rejected",
    "reverted": "reverted",
}
COLUMNS: Final = (*_DECIDED.values(), *_SETTLED.values())


def report(ports: Ports) -> dict[str, Any]:
    """`series` counts decisions about Series, for each standardizer, Attribute, provider and
    vocabulary; `cached` of them were made before, for an equal question. `providers` counts what
    came of each question. `discarded` counts answers that were no term, `failed` those that could
    not be got, by reason. What other processes counted in the last second may be missing.
    """
    ports.standardizers.counts.write()
    series: dict[tuple[str, ...], dict[str, Any]] = {}
    providers: dict[tuple[str, ...], dict[str, Any]] = {}
    for (kind, *who, what), number in ports.standardizers.counts.totals().items():
        if kind in ("decided", "settled"):
            row = series.setdefault(tuple(who), dict.fromkeys(COLUMNS, 0))
            row[{**_DECIDED, **_SETTLED}[what]] += number
        elif kind == "answered":
            row = providers.setdefault(tuple(who), {**dict.fromkeys(ANSWERS, 0), "failed": {}})
            counts = row if what in ANSWERS else row["failed"]
            counts[what] = counts.get(what, 0) + number
    discarded: Counter[str] = Counter()
    failed: dict[str, Counter[str]] = {}
    for (provider, _), row in providers.items():
        if row[DISCARDED]:
            discarded[provider] += row[DISCARDED]
        if row["failed"]:
            failed.setdefault(provider, Counter()).update(row["failed"])
    return {
        "series": _rows(("standardizer", "attribute", "provider", "vocabulary"), series),
        "providers": _rows(("provider", "vocabulary"), providers),
        "discarded": dict(discarded),
        "failed": {provider: dict(reasons) for provider, reasons in failed.items()},
    }


def _rows(
    names: Sequence[str], rows: Mapping[tuple[str, ...], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    return [{**dict(zip(names, who, strict=True)), **row} for who, row in sorted(rows.items())]
