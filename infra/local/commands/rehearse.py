"""`axiom rehearse`: the cloud's shape on this machine, and what becomes of Instances in it."""

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
    type=click.IntRange(min=8, max=10_000),
    default=40,
    show_default=True,
    help="How many CT Instances storescu sends in a round.",
)
@click.option(
    "--kills",
    type=click.IntRange(min=0, max=1000),
    default=4,
    show_default=True,
    help="How many functions are killed in a round, beside the gateway.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1, max=1000),
    default=1,
    show_default=True,
    help="How often Instances are sent while processes are killed: more is a longer rehearsal.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which functions are killed.")
@click.option(
    "--on-premises", is_flag=True, help="Have the gateway be one on premises, with a spool."
)
@json_option
def command(
    instances: int, kills: int, rounds: int, seed: int, on_premises: bool, as_json: bool
) -> int:
    """Exit status 1 if anything was lost or altered, or anything else did not go as it should."""
    from infra.local.rehearse.run import Plan, rehearse

    terminal = Terminal(as_json)
    folder = Path(tempfile.mkdtemp(prefix="axiom-rehearse-"))
    outcome = rehearse(folder, Plan(instances, kills, rounds, seed, on_premises), _tell)
    terminal.document(outcome.as_json())
    if not as_json:
        terminal.table(
            ["what", "tried", "expected", "found", ""],
            [
                [one.what, one.tried, one.expected, one.found, "ok" if one.holds else "NOT SO"]
                for one in outcome.claims
            ],
            title="rehearsal",
        )
        kinds = list(next(iter(outcome.operations.values())))
        terminal.table(
            ["stage", *kinds],
            [
                [stage, *(f"{counted[kind]:g}" for kind in kinds)]
                for stage, counted in outcome.as_json()["operations"].items()
            ],
            title="what one Instance asks of Google",
        )
        terminal.say(
            f"{outcome.killed} processes killed; {outcome.pushes} pushes, {outcome.pushed_again} "
            f"of them refused and made again; lost {len(outcome.lost)}; {outcome.seconds:.0f} s"
        )
    if outcome.holds:
        shutil.rmtree(folder)
        return 0
    late = f" Too slow to end: {', '.join(outcome.late)}." if outcome.late else ""
    terminal.say(f"It does not hold.{late} The logs are in {folder}.", style="bold red")
    return 1


def _tell(text: str) -> None:
    print(f"axiom: {text}", file=sys.stderr, flush=True)
