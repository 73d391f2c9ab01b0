"""Measure what one large Instance costs in memory, in every process of the whole system.

It is received, validated, changed by a rule and delivered to a storescp. Idle is after a few small
Instances went the same way, so that what is loaded on first use does not count.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from infra.local.bench_pipeline import configuration
from infra.local.benching import programs
from infra.local.benching.instances import synthetic_ct, synthetic_multi_frame
from infra.local.benching.programs import BenchError, peak_mib
from infra.local.benching.raw_sender import send
from infra.local.part import process_name

_LARGE_MIB = 1024
_SMALL = 10
_WITHIN_S = 120.0


def run(_rounds: int) -> dict[str, Any]:
    """Peak memory by process in MiB, before and after; `worst_growth_mib` is the most of them."""
    values: dict[str, Any] = {}
    if programs.find("storescp") is None:
        return values
    with (
        programs.work_folder(on_disk=False) as memory,
        programs.work_folder(on_disk=True) as disk,
        programs.storescp(memory / "sink", forks=True) as sink,
        programs.whole_system(disk / "home", configuration(sink.port)) as system,
    ):
        small = synthetic_ct(disk / "ct", _SMALL)
        large = synthetic_multi_frame(disk / "large.dcm", _LARGE_MIB)
        send(system.port, small)
        _await(memory / "sink", _SMALL, small[0].stat().st_size - 2048)
        before = {pid: peak_mib(pid) for pid in system.pids}
        send(system.port, [large])
        _await(memory / "sink", 1, large.stat().st_size - 2048)
        for pid, idle_mib in before.items():
            name = _name(pid)
            values[f"{name}_idle_mib"] = max(idle_mib, values.get(f"{name}_idle_mib", 0.0))
            grown = peak_mib(pid) - idle_mib
            values[f"{name}_growth_mib"] = max(grown, values.get(f"{name}_growth_mib", 0.0))
    growth = [value for key, value in values.items() if key.endswith("_growth_mib")]
    values["worst_growth_mib"] = max(growth)
    return values


def _await(folder: Path, count: int, size: int) -> None:
    deadline_s = time.monotonic() + _WITHIN_S
    while sum(path.stat().st_size >= size for path in folder.iterdir()) < count:
        if time.monotonic() > deadline_s:
            raise BenchError("the Instances did not come through")
        time.sleep(0.05)


def _name(pid: int) -> str:
    name = Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()
    part = name.removeprefix(process_name(""))
    # Of the others, the module that they run.
    return part if part != name else Path(f"/proc/{pid}/cmdline").read_text().split("\0")[2]
