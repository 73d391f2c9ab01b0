"""`axiom test`: every check and test, as the continuous integration runs them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from infra.local.checks import ROOT, run_step, steps
from infra.local.options import json_option
from infra.local.terminal import Terminal


@click.command("test", help="Run every check and test.")
@click.option("-k", "expression", default="", help="Only tests that match, as pytest's -k.")
@click.option("--serial", is_flag=True, help="One test at a time, in one process.")
@click.argument("paths", nargs=-1, metavar="[PATHS]...")
@json_option
def command(expression: str, serial: bool, paths: Sequence[str], as_json: bool) -> int:
    """Without PATHS and -k: ruff, mypy --strict and all tests. Exit status 1 if any fails.

    Tests whose peers (dcmtk, orthanc) are not installed are skipped and say so; with CI=true that
    is a failure.
    """
    terminal = Terminal(as_json)
    results = []
    for step in steps(expression, [_from_root(path) for path in paths], parallel=not serial):
        _say(step.name)
        result = run_step(step, keep_output=as_json)
        results.append(result)
        # pytest comes last and says itself how it ended, in the line that people look for.
        if result.status and step.name != "pytest":
            _say(f"{step.name} FAILED")
    terminal.document(
        {
            "ok": not any(result.status for result in results),
            "steps": [asdict(result) for result in results],
        }
    )
    return int(any(result.status for result in results))


def _say(text: str) -> None:
    print(f"axiom: {text}", file=sys.stderr, flush=True)


def _from_root(path: str) -> str:
    """As pytest, which runs at the root, finds it: a path from here, or a node id."""
    file, separator, test = path.partition("::")
    here = Path(file).absolute()
    return (str(here) if here.exists() else str(ROOT / file)) + separator + test
