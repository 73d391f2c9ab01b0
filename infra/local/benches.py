"""The frame of `axiom bench`: which benches there are, their targets, and the table of results.

A bench is a module `infra.local.bench_<name>` with `run(rounds) -> dict`: plain values by key, of
which those that TARGETS names are judged.
"""

from __future__ import annotations

import importlib
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Run = Callable[[int], Mapping[str, Any]]

_PREFIX = "bench_"


@dataclass(frozen=True, slots=True)
class Target:
    """What a value has to reach, and what it says to a person."""

    meaning: str
    at_least: float | None = None
    at_most: float | None = None

    def is_met_by(self, value: float) -> bool:
        """Whether the value reaches it."""
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )

    def __str__(self) -> str:
        limits = []
        if self.at_least is not None:
            limits.append(f">= {self.at_least:g}")
        if self.at_most is not None:
            limits.append(f"<= {self.at_most:g}")
        return ", ".join(limits)


_DURABLE = "CT, durable, 4 associations: Instances/s by those of"
_EACH = "one association per Instance (74 KB): Instances/s by those of"
_WHOLE_WAY = "receive, validate, change 3 tags, forward, durable:"

TARGETS: Mapping[str, Mapping[str, Target]] = {
    "receive": {
        "one_association_vs_storescp": Target(
            "CT 0.5 MB, 1 association, no sync: Instances/s by those of storescp +B", at_least=0.6
        ),
        "one_association_vs_pynetdicom": Target(
            "the same by those of a minimal pynetdicom handler", at_least=7
        ),
        "durable_four_associations_vs_storescp": Target(
            f"{_DURABLE} storescp --fork, which syncs nothing", at_least=0.5
        ),
        "durable_four_associations_vs_orthanc": Target(
            f"{_DURABLE} Orthanc tuned, which syncs nothing", at_least=2
        ),
        "as_shipped_vs_storescp": Target(
            "from storescu as shipped: Instances/s by those of storescp as shipped", at_least=10
        ),
        "association_each_vs_pynetdicom": Target(f"{_EACH} pynetdicom", at_least=15),
        "association_each_vs_orthanc": Target(f"{_EACH} Orthanc", at_least=0.8),
        "idle_percent_of_core": Target("40 idle associations: percent of a core", at_most=2),
        "gb_vs_storescp": Target("1 GB: our rate by that of storescp +B", at_least=0.9),
        "gb_one_pdu_vs_storescp": Target("1 GB as one PDU: the same", at_least=0.9),
        "gb_growth_mib": Target("1 GB either way: growth of memory in MiB", at_most=16),
    },
    "deliver": {
        "edited_vs_storescu": Target(
            "CT with 5 edits: Instances/s by those of storescu, unedited", at_least=1.5
        ),
        "edited_vs_pynetdicom": Target(
            "the same by those of pynetdicom in pieces, unedited", at_least=7
        ),
        "as_shipped_vs_storescu": Target(
            "to storescp as shipped: Instances/s by those of storescu as shipped", at_least=15
        ),
        "gb_vs_storescu": Target("1 GB with edits: our rate by that of storescu", at_least=1.3),
        "gb_growth_mib": Target("1 GB with edits: growth of memory in MiB", at_most=16),
    },
    "header": {
        "ratio_vs_pydicom": Target(
            "header read + 10 Values, our time by pydicom's (stop_before_pixels)", at_most=0.2
        ),
        "rewrite_small_vs_copy": Target(
            "rewrite 5 tags, 0.5 MB: our time by that of a plain copy", at_most=2
        ),
        "rewrite_large_vs_copy": Target(
            "rewrite 5 tags, 50 MB: our time by that of a plain copy", at_most=1.2
        ),
        "rewrite_small_vs_pydicom": Target(
            "rewrite 5 tags, 0.5 MB: pydicom's time by ours", at_least=6
        ),
    },
    "rules": {
        "ratio_vs_naive_1000": Target(
            "1,000 rules x 5 conditions, naive time (Dataset access) by ours", at_least=60
        ),
    },
    "pipeline": {
        "ratio_vs_naive": Target(
            f"{_WHOLE_WAY} 200 CT/s by those of naive Python, not durable", at_least=6
        ),
        "ratio_vs_orthanc": Target(
            f"{_WHOLE_WAY} 60 CT/s by those of Orthanc with Lua, not durable", at_least=10
        ),
        "memory_vs_naive": Target(
            "memory of all our processes by that of naive Python's one", at_most=0.5
        ),
    },
    "pull": {
        "wado_vs_curl": Target(
            "1,000 CT from Orthanc by QIDO-RS and WADO-RS: Instances/s by those of curl",
            at_least=0.8,
        ),
        "move_vs_movescu": Target(
            "the same by C-FIND and C-MOVE: by those of movescu and storescp", at_least=0.8
        ),
        "growth_mib": Target("either way: growth of memory in MiB", at_most=32),
    },
    "api": {
        "ours_flowing_p95_ms": Target(
            "GET of a ruleset, 16 connections, while Instances flow: 95th percentile in ms",
            at_most=20,
        ),
        "per_s_vs_bare": Target(
            "the same, none flowing: requests/s by those of bare Flask", at_least=0.5
        ),
    },
    "memory": {
        "worst_growth_mib": Target(
            "1 GB through rules and delivery: most that a process grew by, in MiB", at_most=32
        ),
    },
    "standardize": {
        "kept_ms": Target("embedded decision that is kept in memory, median in ms", at_most=1),
        "kept_in_store_ms": Target("the same, kept in the store", at_most=1),
        "not_kept_ms": Target("embedded decision that is not kept, median in ms", at_most=10),
        "import_cpu_s": Target("import of the embedded provider, CPU seconds", at_most=0.3),
    },
    "coldstart": {
        "spawn_to_ready_s": Target("spawn of a stage's process to its first answer", at_most=0.5),
        "stages_importing_pydicom": Target("stages that import pydicom", at_most=0),
        "cloud_cpu_s": Target(
            "in the cloud: CPU seconds of validate, rules or deliver to its first answer",
            at_most=0.6,
        ),
    },
}


def bench_names() -> list[str]:
    """The benches that there are, in the order of their names."""
    folder = Path(__file__).parent
    return sorted(path.stem.removeprefix(_PREFIX) for path in folder.glob(f"{_PREFIX}*.py"))


def load(name: str) -> Run:
    """The bench of that name; imported when it is to run, for some need much."""
    run: Run = importlib.import_module(f"infra.local.{_PREFIX}{name}").run
    return run


def details(name: str, values: Mapping[str, Any]) -> list[Sequence[str]]:
    """What the bench of that name shows besides what is judged, its head first; mostly nothing."""
    shown = getattr(importlib.import_module(f"infra.local.{_PREFIX}{name}"), "details", None)
    return [] if shown is None else list(shown(values))


@dataclass(frozen=True, slots=True)
class Row:
    """One judged value of a bench."""

    bench: str
    key: str
    value: float
    target: Target

    @property
    def is_met(self) -> bool:
        """Whether the target is reached."""
        return self.target.is_met_by(self.value)


def rows_of(name: str, values: Mapping[str, Any]) -> list[Row]:
    """The values that have a target, in the order of the table."""
    targets = TARGETS.get(name, {})
    return [Row(name, key, values[key], target) for key, target in targets.items() if key in values]


def machine() -> dict[str, str]:
    """Where and when this runs; figures mean little without it."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def markdown(rows: Sequence[Row], where: Mapping[str, str], command: str) -> str:
    """The page: what was measured where, by which command."""
    lines = [
        "# Benchmarks",
        "",
        f"`{command}`, " + ", ".join(f"{name} {value}" for name, value in where.items()) + ".",
        "",
        "| bench | what | value | target | |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.bench} | {row.target.meaning} | {row.value:.3g} | {row.target} | "
        f"{'met' if row.is_met else '**not met**'} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def notes(page: str) -> str:
    """What people wrote below the table: everything from the first heading of the second level."""
    found = page.find("\n## ")
    return page[found:] if found >= 0 else ""


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios of rounds that took turns: noise that both felt goes out."""
    pairs = zip(numerators, denominators, strict=True)
    return statistics.median(above / below for above, below in pairs)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
