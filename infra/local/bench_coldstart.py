"""Measure how long a process of a stage takes from nothing to its first answer."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_MAX_ROUNDS = 7

# A message of another version is answered without any state: the first answer, and no more.
_PROBE = """
import importlib, sys
stage = sys.argv[1]
entry_point = getattr(importlib.import_module(f"functions.{stage}.main"), stage)
from shared.pipeline.push import PushRequest
entry_point(PushRequest(b"{}", {"x-goog-pubsub-message-id": "1"}))
print(*sorted({"pydicom", "pynetdicom", "numpy", "flask"} & set(sys.modules)))
"""

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
    return values


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
