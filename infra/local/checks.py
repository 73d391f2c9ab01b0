"""The checks that `axiom test` runs, in order; each is a program of the environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Tests at the same time: the end-to-end ones start six processes each, and mostly wait.
_WORKERS = "3"


@dataclass(frozen=True, slots=True)
class Step:
    """One program to run from the root of the repository."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepResult:
    """How one step ended. `output` is kept only where it was asked for."""

    name: str
    status: int
    seconds: float
    output: str = ""


def steps(expression: str, paths: Sequence[str], *, parallel: bool = True) -> list[Step]:
    """Formatting, lint and types, then the tests; of the tests alone if these are narrowed down."""
    python = sys.executable
    pytest = [python, "-m", "pytest", "--color", "auto", "-p", "no:cacheprovider"]
    if parallel:
        pytest += ["-n", _WORKERS, "--dist", "worksteal"]
    if os.environ.get("CI") == "true":
        # Real peers on a busy machine: what fails gets one more try, which the summary shows.
        pytest += ["--reruns", "1", "--reruns-delay", "2", "-raR"]
    if expression:
        pytest += ["-k", expression]
    tests = Step("pytest", (*pytest, *paths))
    if expression or paths:
        return [tests]
    return [
        Step("ruff check", (python, "-m", "ruff", "check", ".")),
        Step("ruff format", (python, "-m", "ruff", "format", "--check", ".")),
        Step("mypy --strict", (python, "-m", "mypy")),
        tests,
    ]


def run_step(step: Step, *, keep_output: bool) -> StepResult:
    """Run one step; what it prints goes where we print, or is kept."""
    began_s = time.monotonic()
    ran = subprocess.run(  # noqa: S603 (programs of our own environment)
        step.command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if keep_output else None,
        stderr=subprocess.STDOUT if keep_output else None,
        text=True,
        check=False,
    )
    seconds = round(time.monotonic() - began_s, 1)
    return StepResult(step.name, ran.returncode, seconds, ran.stdout or "")
