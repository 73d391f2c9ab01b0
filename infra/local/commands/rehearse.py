"""`axiom rehearse`: the cloud's shape on this machine, and what becomes of a CT in it."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import click

from infra.local.options import json_option
from infra.local.terminal import Terminal


@click.command("rehearse", help="Run the cloud's functions on Google's emulators; lose nothing.")
@click.option(
    "--instances",
    type=click.IntRange(min=4, max=10_000),
    default=40,
    show_default=True,
    help="How many CT Instances are sent.",
)
@json_option
def command(instances: int, as_json: bool) -> int:
    """Exit status 1 if anything was lost, altered, or did not end in time."""
    from infra.local.rehearse.run import rehearse

    terminal = Terminal(as_json)
    folder = Path(tempfile.mkdtemp(prefix="axiom-rehearse-"))
    outcome = rehearse(folder, instances, _tell)
    terminal.document(outcome.as_json())
    if not as_json:
        rows: list[list[object]] = [[name, value] for name, value in outcome.as_json().items()]
        terminal.table(["what", "how much"], rows, title="rehearsal")
    if outcome.holds:
        shutil.rmtree(folder)
        return 0
    terminal.say(f"It does not hold. The logs are in {folder}.", style="bold red")
    return 1


def _tell(text: str) -> None:
    print(f"axiom: {text}", file=sys.stderr, flush=True)
