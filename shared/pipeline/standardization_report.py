"""How good standardizers are, counted in Series: what was decided, and what people made of it."""

from __future__ import annotations

from typing import Any, Final

from shared.pipeline.ports import Ports

# What a column counts, by the states that a decision came to.
_DECIDED: Final = {
    "applied": "applied",
    "kept": "kept",
    "unknown": "abstained",
    "down": "down",
    "proposed": "proposed",
    "held": "held",
}
_SETTLED: Final = {
    "approved": "accepted",
    "corrected": "corrected",
    "rejected": "rejected",
    "reverted": "reverted",
}
COLUMNS: Final = (*_DECIDED.values(), *_SETTLED.values())


def report(ports: Ports) -> dict[str, Any]:
    """Counts for each standardizer, Attribute, provider and vocabulary; answers that were discarded
    because they are no term, by provider; and answers that could not be got, by provider and
    reason. What other processes counted in the last second may be missing.
    """
    ports.standardizers.counts.write()
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    discarded: dict[str, int] = {}
    failed: dict[str, dict[str, int]] = {}
    for words, number in ports.standardizers.counts.totals().items():
        kind, *rest = words
        if kind in ("decided", "settled"):
            *who, state = rest
            row = rows.setdefault(tuple(who), dict.fromkeys(COLUMNS, 0))
            row[{**_DECIDED, **_SETTLED}[state]] += number
        elif kind == "discarded":
            discarded[rest[0]] = discarded.get(rest[0], 0) + number
        elif kind == "failed":
            reasons = failed.setdefault(rest[0], {})
            reasons[rest[1]] = reasons.get(rest[1], 0) + number
    names = ("standardizer", "attribute", "provider", "vocabulary")
    return {
        "series": [
            {**dict(zip(names, who, strict=True)), **row} for who, row in sorted(rows.items())
        ],
        "discarded": discarded,
        "failed": failed,
    }
