"""Measure from the first byte sent to the last Instance at the destination, three tags changed.

Ours is the whole system as `axiom up` runs it, on disk with every sync, validation, rules and
records. The naive router in Python and Orthanc with a Lua script keep nothing safe. The destination
is a storescp for each association, in memory. The burst comes over as many associations as each is
fastest with.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread

from infra.local.benches import median_ratio
from infra.local.benching import programs
from infra.local.benching.instances import synthetic_ct
from infra.local.benching.programs import BenchError, Program
from infra.local.benching.raw_sender import send

_MAX_ROUNDS = 3
_INSTANCES = 200
# Orthanc slows down with the Instances of a Series that it holds: this is its best.
_ORTHANC_INSTANCES = 60
_ASSOCIATIONS, _ORTHANC_ASSOCIATIONS = 4, 1
_WITHIN_S = 90.0
_POLL_S = 0.004

_LUA = """
function OnStoredInstance(instanceId, tags, metadata, origin)
  if origin['RequestOrigin'] == 'Lua' then return end
  local replace = {}
  replace['PatientName'] = 'ANON^ONE'
  replace['InstitutionName'] = 'ELSEWHERE'
  replace['AccessionNumber'] = 'PFX' .. tags['AccessionNumber']
  Delete(SendToModality(ModifyInstance(instanceId, replace, {}, false), 'sink'))
end
"""

Start = Callable[[Path, int], AbstractContextManager[Program]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one burst went."""

    per_s: float
    cpu_ms: float  # for each Instance
    memory_mib: float


def run(rounds: int) -> dict[str, Any]:
    """Instances in a second, CPU and memory by router (medians), and ratios."""
    rounds = min(rounds, _MAX_ROUNDS)
    values: dict[str, Any] = {"rounds": rounds}
    if programs.find("storescp") is None:
        return values
    plan: dict[str, tuple[Start, int, int]] = {
        "ours": (_ours, _INSTANCES, _ASSOCIATIONS),
        "naive": (_naive, _INSTANCES, _ASSOCIATIONS),
        "ours_burst": (_ours, _ORTHANC_INSTANCES, _ASSOCIATIONS),
    }
    if programs.find("Orthanc") is not None:
        plan["orthanc"] = (_orthanc, _ORTHANC_INSTANCES, _ORTHANC_ASSOCIATIONS)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in plan}
    with programs.work_folder(on_disk=False) as inputs:
        files = synthetic_ct(inputs, _INSTANCES)
        for _ in range(rounds):
            for name, (start, count, associations) in plan.items():
                outcomes[name].append(_burst(start, files[:count], associations))
    for name, found in outcomes.items():
        values[f"{name}_per_s"] = statistics.median(one.per_s for one in found)
        values[f"{name}_cpu_ms"] = statistics.median(one.cpu_ms for one in found)
        values[f"{name}_memory_mib"] = statistics.median(one.memory_mib for one in found)

    def ratio(above: str, below: str, of: Callable[[Outcome], float]) -> float:
        return median_ratio(list(map(of, outcomes[above])), list(map(of, outcomes[below])))

    values["ratio_vs_naive"] = ratio("ours", "naive", lambda one: one.per_s)
    values["memory_vs_naive"] = ratio("ours", "naive", lambda one: one.memory_mib)
    if "orthanc" in outcomes:
        values["ratio_vs_orthanc"] = ratio("ours_burst", "orthanc", lambda one: one.per_s)
    return values


def _burst(start: Start, files: Sequence[Path], associations: int) -> Outcome:
    with (
        programs.work_folder(on_disk=False) as memory,
        programs.work_folder(on_disk=True) as disk,
        programs.storescp(memory / "sink", forks=True) as sink,
        start(disk / "router", sink.port) as router,
    ):
        folder = memory / "sink"
        before_s, began_s = router.cpu_s, time.perf_counter()
        # The sender needs a while to get ready, which is not the router's.
        sent = send(router.port, files, associations=associations)
        preparing_s = time.perf_counter() - began_s - sent.seconds
        _await_files(folder, len(files), files[0].stat().st_size - 2048)
        seconds = time.perf_counter() - began_s - preparing_s
        cpu_ms = 1000 * (router.cpu_s - before_s) / len(files)
        _require_changed(folder)
        return Outcome(len(files) / seconds, cpu_ms, router.memory_mib)


def _await_files(folder: Path, count: int, size: int) -> None:
    """Until so many files are as large as they are to be.

    Looks at no file again that is: the cores are for those who are measured.
    """
    deadline_s = time.monotonic() + _WITHIN_S
    whole: set[str] = set()
    while len(whole) < count:
        if time.monotonic() > deadline_s:
            raise BenchError(f"{len(whole)} of {count} Instances came through")
        time.sleep(_POLL_S)
        whole.update(
            name
            for name in os.listdir(folder)
            if name not in whole and (folder / name).stat().st_size >= size
        )


def _require_changed(folder: Path) -> None:
    dataset = dcmread(next(folder.iterdir()), stop_before_pixels=True)
    found = (str(dataset.PatientName), dataset.InstitutionName, dataset.AccessionNumber[:3])
    if found != ("ANON^ONE", "ELSEWHERE", "PFX"):
        raise BenchError(f"the destination has {found}")


def configuration(destination_port: int) -> dict[str, Any]:
    """Change three tags and send to the one destination."""
    return {
        "destinations": [
            {
                "name": "sink",
                "type": "dimse",
                "host": "127.0.0.1",
                "port": destination_port,
                "ae_title": "ANY",
            }
        ],
        "settings": {"default_route": ["sink"]},
        "rulesets": [
            {
                "name": "bench",
                "rules": [
                    {
                        "name": "three tags",
                        "conditions": [{"type": "tag_equals", "tag": "Modality", "value": "CT"}],
                        "actions": [
                            {"type": "set", "tag": "PatientName", "value": "ANON^ONE"},
                            {"type": "set", "tag": "InstitutionName", "value": "ELSEWHERE"},
                            {"type": "prepend", "tag": "AccessionNumber", "value": "PFX"},
                            {"type": "route", "destination": "sink"},
                        ],
                    }
                ],
            }
        ],
    }


def _ours(folder: Path, destination_port: int) -> AbstractContextManager[Program]:
    return programs.whole_system(folder, configuration(destination_port))


def _naive(folder: Path, destination_port: int) -> AbstractContextManager[Program]:
    return programs.python_module(
        "infra.local.benching.naive_pipeline", folder, str(destination_port)
    )


def _orthanc(folder: Path, destination_port: int) -> AbstractContextManager[Program]:
    folder.mkdir(parents=True)
    script = folder / "route.lua"
    script.write_text(_LUA)
    return programs.orthanc(
        folder,
        LuaScripts=[str(script)],
        DicomModalities={"sink": ["ANY", "127.0.0.1", destination_port]},
        JobsHistorySize=0,
        ConcurrentJobs=4,
        DicomScuMaximumPduLength=131072,
    )
