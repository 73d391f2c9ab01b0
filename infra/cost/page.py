"""docs/cost.md, from what is counted and what is asked for it."""

from __future__ import annotations

from pathlib import Path

from infra.cost.counts import Counts
from infra.cost.model import (
    PerInstance,
    assumptions,
    dollars_per_million,
    fixed_dollars_a_month,
    gateways,
    prices,
)

_GOAL = 25.0
_MIDDLE = 1_000_000
_VOLUMES = (10_000, _MIDDLE, 100_000_000)
_COUNTED_KINDS = {
    "read": "documents read",
    "write": "documents written",
    "delete": "documents deleted",
    "class_a": "objects created",
    "class_b": "objects looked at or read",
}

_LIMITS = Path(__file__).with_name("limits.md")


def page() -> str:
    """The whole page; the same wherever it is made."""
    counts = Counts.read()
    stages = [PerInstance.of(stage, counted) for stage, counted in counts.stages.items()]
    table = dollars_per_million(stages, _MIDDLE)
    columns = list(next(iter(table.values())))
    totals = {what: sum(parts[what] for parts in table.values()) for what in columns}
    total = sum(totals.values())
    price, assumed = prices(), assumptions()
    lines = [
        "# What it costs on Google Cloud",
        "",
        f"**{total:.2f} dollars for a million instances** of {assumed['instance_mib']} MiB with "
        "one destination, at a million a day; besides what is stored, what leaves Google's "
        "network, and the gateway, which is paid for by the hour. The goal is 25: "
        + ("it is met." if total < _GOAL else f"it is missed by {total - _GOAL:.2f}."),
        "",
        "`python -m infra.cost` makes this page. Operations and CPU time are those of "
        f"{counts.instances} instances in [a rehearsal](cloud.md#the-rehearsal) "
        f"({counts.counted_on}; `python -m infra.cost count` counts anew, and a test of each build "
        "compares): what the functions and the gateway ask with Google's own clients of Google's "
        "emulators, read on the way there. Prices are Google's list prices "
        f"without free tiers and discounts, as of {price['as_of']}, {price['region']} "
        "(`infra/cost/prices.yaml`, with sources); what is neither is in "
        "`infra/cost/assumptions.yaml`, above all how well processes are used. Nothing of it was "
        "measured on Google Cloud.",
        "",
        "## Operations of one instance",
        "",
        "| stage | " + " | ".join(_COUNTED_KINDS.values()) + " | messages | bytes of each "
        "| ms of CPU |",
        "|---" * (len(_COUNTED_KINDS) + 4) + "|",
        *(
            f"| `{one.stage}` | "
            + " | ".join(f"{one.operations.get(kind, 0):g}" for kind in _COUNTED_KINDS)
            + f" | {one.messages:g} | {one.message_bytes:,.0f} | {one.cpu_ms:g} |"
            for one in stages
        ),
        "",
        "The header travels in each message, deflated, so that rules ask for no object; validation "
        "and each destination read it once. A process that works reads the head of the "
        "configuration twice a second besides, which is paid for by the second.",
        "",
        "## Dollars for a million instances, at a million a day",
        "",
        "| stage | " + " | ".join(columns) + " | together |",
        "|---" + "|--:" * (len(columns) + 1) + "|",
        *(
            f"| `{stage}` | "
            + " | ".join(f"{parts[what]:.2f}" for what in columns)
            + f" | {sum(parts.values()):.2f} |"
            for stage, parts in table.items()
        ),
        "| together | "
        + " | ".join(f"{totals[what]:.2f}" for what in columns)
        + f" | **{total:.2f}** |",
        "",
        _dominating(totals),
        "",
        "## A month",
        "",
        "| instances a day | gateways | for a million instances | for a month's instances "
        "| fixed | the month |",
        "|--:|--:|--:|--:|--:|--:|",
        *(_month(volume, stages) for volume in _VOLUMES),
        "",
        "Fixed are gateways (52.60 dollars each), timers, secrets, alerts and DNS zones. A gateway "
        "on premises costs nothing here. Storage comes on top: a million instances of 0.5 MiB kept "
        "for 7 days in the Standard class are about 2.3 dollars (0.02 dollars a GiB and month); "
        "`storage.tiers_days` of Terraform makes longer keeping cheaper. What Data Access audit "
        "logs of the Healthcare API and Cloud Storage cost is not in it.",
        "",
        _LIMITS.read_text(encoding="utf-8"),
    ]
    return "\n".join(lines)


def _dominating(totals: dict[str, float]) -> str:
    ordered = sorted(totals.items(), key=lambda one: -one[1])
    first, second = ordered[0], ordered[1]
    return (
        f"{first[0]} ({first[1]:.2f}) and {second[0]} ({second[1]:.2f}) dominate. Each further "
        "destination adds a delivery with its message; each retry does too. What would save most: "
        "records that Firestore deletes by age (TTL) where the clean-up asks for each first."
    )


def _month(volume: int, stages: list[PerInstance]) -> str:
    table = dollars_per_million(stages, volume)
    per_million = sum(sum(parts.values()) for parts in table.values())
    fixed = sum(fixed_dollars_a_month(volume).values())
    moving = volume * 30.4375 / 1_000_000 * per_million
    return (
        f"| {volume:,} | {gateways(volume)} | {per_million:,.2f} | {moving:,.2f} | {fixed:,.2f} | "
        f"{moving + fixed:,.2f} |"
    )
