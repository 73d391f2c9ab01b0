"""From counted operations and prices to dollars, for so many Instances a day."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_HERE = Path(__file__).parent
GATEWAY = "gateway"

_TIB = 1024**4
_GIB = 1024**3
_TIMERS, _SECRETS, _ALERT_CONDITIONS = 3, 2, 6

Numbers = Mapping[str, Any]


def prices() -> Numbers:
    """What Google asks, in dollars, with date and sources."""
    found: Numbers = yaml.safe_load((_HERE / "prices.yaml").read_text(encoding="utf-8"))
    return found


def assumptions() -> Numbers:
    """What is neither counted nor a price."""
    found: Numbers = yaml.safe_load((_HERE / "assumptions.yaml").read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True, slots=True)
class PerInstance:
    """What one Instance asks of one stage, on average."""

    stage: str
    operations: Mapping[str, float]
    messages: float
    message_bytes: float
    cpu_ms: float

    @classmethod
    def of(cls, stage: str, counted: Mapping[str, float]) -> PerInstance:
        """Of what was counted; a message's size to a thousand bytes, for no two headers are
        alike.
        """
        messages = round(counted.get("message", 0.0), 1)
        size = counted.get("message_bytes", 0.0) / messages if messages else 0.0
        kinds = ("read", "write", "delete", "class_a", "class_b", "list")
        return cls(
            stage,
            {kind: round(counted.get(kind, 0.0), 1) for kind in kinds},
            messages,
            round(size, -3),
            counted.get("cpu_ms", 0.0),
        )


def dollars_per_million(
    stages: list[PerInstance], instances_a_day: float
) -> dict[str, dict[str, float]]:
    """By stage and by what is paid for, at so many Instances a day."""
    price, assumed = prices(), assumptions()
    run, found = price["cloud_run"], {}
    for one in stages:
        paid_s = _paid_s(one, instances_a_day)
        # What is published is delivered too.
        volume = 2 * one.messages * max(one.message_bytes, price["pubsub"]["least_bytes"])
        asked = one.operations
        found[one.stage] = {
            "Cloud Run": run["request"] * (one.stage in assumed["wall_ms"])
            + paid_s * run["request_based_vcpu_s"]
            + paid_s * assumed["function_gib"] * run["request_based_gib_s"],
            "Firestore": asked.get("read", 0) * price["firestore"]["read"]
            + asked.get("write", 0) * price["firestore"]["write"]
            + asked.get("delete", 0) * price["firestore"]["delete"]
            + paid_s * assumed["configuration_reads_per_s"] * price["firestore"]["read"],
            "Cloud Storage": (asked.get("class_a", 0) + asked.get("list", 0))
            * price["storage"]["class_a"]
            + asked.get("class_b", 0) * price["storage"]["class_b"],
            "Pub/Sub": volume * price["pubsub"]["tib"] / _TIB,
            "Logging": assumed["log_bytes"].get(one.stage, 0) * price["logging"]["gib"] / _GIB,
        }
    return {
        stage: {what: 1_000_000 * each for what, each in parts.items()}
        for stage, parts in found.items()
    }


def _paid_s(one: PerInstance, instances_a_day: float) -> float:
    """Seconds of a function's process that are paid for, for one Instance.

    Instances come at random and evenly over the day: a process is there while at least one request
    is, and as many more as the CPU time needs. The gateway is paid for by the hour instead.
    """
    if one.stage == GATEWAY:
        return 0.0
    assumed = assumptions()
    cpu_s: float = one.cpu_ms / 1000 / assumed["utilisation"]
    wall_s: float = assumed["wall_ms"].get(one.stage, 0) / 1000
    each_s = 86_400 / instances_a_day
    busy = 1 - math.exp(-wall_s / each_s)
    return max(cpu_s, busy * each_s)


def gateways(instances_a_day: float) -> int:
    """How many run side by side: enough for the busiest hour, and one at least."""
    assumed = assumptions()
    busiest_per_s: float = instances_a_day / 86_400 * assumed["busiest_hour"]
    each_per_s: float = assumed["gateway_instances_per_s"]
    return max(1, math.ceil(busiest_per_s / each_per_s))


def fixed_dollars_a_month(instances_a_day: float) -> dict[str, float]:
    """What is paid for whether an Instance comes or not."""
    price, assumed = prices(), assumptions()
    run, size = price["cloud_run"], assumed["gateway"]
    gateway = assumed["month_s"] * (
        size["vcpus"] * run["instance_based_vcpu_s"] + size["gib"] * run["instance_based_gib_s"]
    )
    return {
        "gateways": gateways(instances_a_day) * gateway,
        "timers": _TIMERS * price["scheduler"]["job_month"],
        "secrets": _SECRETS * price["secrets"]["version_month"],
        "alerts": _ALERT_CONDITIONS * price["monitoring"]["condition_month"],
        "DNS": 3 * price["dns"]["zone_month"],
    }
