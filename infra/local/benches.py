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


TARGETS: Mapping[str, Mapping[str, Target]] = {
    "header": {
        "ratio_vs_pydicom": Target(
            "header read + 10 Values, our time by pydicom's (stop_before_pixels)", at_most=0.2
        ),
    },
    "rules": {
        "ratio_vs_naive_1000": Target(
            "1,000 rules x 5 conditions, naive time (Dataset access) by ours", at_least=60
        ),
    },
    "coldstart": {
        "spawn_to_ready_s": Target("spawn of a stage's process to its first answer", at_most=0.5),
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
