"""Measure how long a process of a stage takes from nothing to its first answer.

On one machine, by the clock; and on the cloud's adapters with the clients that each function uses,
by CPU time, which says what a cold start costs there.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_MAX_ROUNDS = 7
_PROCESS = "infra.local.benching.cold_process"

# A message of another version is answered without any state: the first answer, and no more.
_PROBE = """
import importlib, sys
stage = sys.argv[1]
entry_point = getattr(importlib.import_module(f"functions.{stage}.main"), stage)
from shared.pipeline.push import PushRequest
entry_point(PushRequest(b"{}", {"x-goog-pubsub-message-id": "1"}))
print(*sorted({"pydicom", "pynetdicom", "numpy", "flask"} & set(sys.modules)))
"""

# What each function asks of Google at its first message; a server that is not there will do.
USES = {
    "validate_instance": ("documents", "objects", "bus"),
    "standardize_attributes": ("documents", "objects", "bus"),
    "apply_rules": ("documents", "objects", "bus"),
    "deliver_instance": ("documents", "objects"),
    "record_exception": ("documents",),
    "record_dead_letter": ("documents", "bus"),
    "ingest_object": ("documents", "objects", "bus"),
    "ingest_store_instance": ("documents", "objects", "bus"),
    "run_job": ("documents", "bus"),
    "report_commitment": ("documents",),
    "complete_studies": ("documents", "bus"),
    "poll_sources": ("documents", "bus"),
    "clean_up": ("documents", "objects"),
    "api": ("documents", "objects"),
    "dicomweb": ("documents", "objects", "bus"),
}
_MAIN_PATH = ("validate_instance", "apply_rules", "deliver_instance")
_NOWHERE = "127.0.0.1:9"
_CLOUD = {
    "AXIOM_PLATFORM": "cloud",
    "AXIOM_PROJECT": "bench",
    "AXIOM_BUCKET": "bench",
    "AXIOM_AUDIENCE": "bench",
    "AXIOM_CALLERS": "bench",
    "FIRESTORE_EMULATOR_HOST": _NOWHERE,
    "PUBSUB_EMULATOR_HOST": _NOWHERE,
    "STORAGE_EMULATOR_HOST": f"http://{_NOWHERE}",
}

_STAGES = ("validate_instance", "apply_rules", "deliver_instance", "record_exception")


def run(rounds: int) -> dict[str, Any]:
    """Medians in seconds by stage; `spawn_to_ready_s` is that of the slowest."""
    values: dict[str, Any] = {"rounds": min(rounds, _MAX_ROUNDS)}
    with tempfile.TemporaryDirectory() as home:
        for stage in _STAGES:
            spawned = [_spawn(stage, home) for _ in range(values["rounds"] + 1)]
            # The first one makes the home, and compiles what was never imported.
            values[f"{stage}_s"] = statistics.median(seconds for seconds, _ in spawned[1:])
            values[f"{stage}_imports"] = spawned[-1][1]
    values["stages_importing_pydicom"] = sum(
        "pydicom" in values[f"{stage}_imports"].split() for stage in _STAGES
    )
    values["spawn_to_ready_s"] = max(values[f"{stage}_s"] for stage in _STAGES)
    values["cloud"] = {name: _cloud(name, values["rounds"]) for name in USES}
    values["cloud_cpu_s"] = max(values["cloud"][name]["answer_cpu_s"] for name in _MAIN_PATH)
    return values


def details(values: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """What each function needs in the cloud, its head first."""
    yield ("function in the cloud, CPU seconds", "everything imported", "first answer")
    for name, found in values["cloud"].items():
        yield (name, f"{found['import_cpu_s']:.2f}", f"{found['answer_cpu_s']:.2f}")


def _cloud(function: str, rounds: int) -> dict[str, float]:
    """CPU seconds of a function's process: with all imported, and with its first answer given.

    The least of the rounds: whatever else the machine does only adds.
    """
    with tempfile.TemporaryDirectory() as home:
        ran = [
            json.loads(
                subprocess.run(  # noqa: S603 (our own interpreter and program)
                    [sys.executable, "-m", _PROCESS, function, *USES[function]],
                    cwd=_ROOT,
                    env={
                        **_environment(),
                        **_CLOUD,
                        "AXIOM_HOME": home,
                        "PYTHONPATH": str(_ROOT),
                    },
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    check=True,
                ).stdout
            )
            for _ in range(rounds + 1)
        ]
    return {
        name: round(min(one[name] for one in ran), 3) for name in ("import_cpu_s", "answer_cpu_s")
    }


def _environment() -> dict[str, str]:
    """Ours, but modules are compiled once, as they are where a system is installed."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def _spawn(stage: str, home: str) -> tuple[float, str]:
    began_s = time.perf_counter()
    ran = subprocess.run(  # noqa: S603 (our own interpreter and program)
        [sys.executable, "-c", _PROBE, stage],
        cwd=_ROOT,
        env={**_environment(), "AXIOM_HOME": home, "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return time.perf_counter() - began_s, ran.stdout.strip()
