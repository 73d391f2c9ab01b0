"""`axiom torture`: kill, starve and deceive the system, and show that nothing is lost."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.local.options import json_option
from infra.local.terminal import Terminal

if TYPE_CHECKING:
    from infra.local.torture.run import Outcome


@click.command("torture", help="Kill, starve and deceive the system; show that nothing is lost.")
@click.option("--minutes", type=click.FloatRange(0.1, 24 * 60), default=3.0, show_default=True)
@click.option("--seed", type=int, help="What goes wrong, and when.  [another each time]")
@click.option("--fairness/--no-fairness", default=True, help="Measure it beside a hostile sender.")
@json_option
def command(minutes: float, seed: int | None, fairness: bool, as_json: bool) -> int:
    """Exit status 1 if anything that docs/reliability.md promises was not kept."""
    from infra.local.torture.run import Plan, remove, torture

    terminal = Terminal(as_json)
    chosen = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="axiom-torture-"))
    plan = Plan(60 * minutes, chosen) if fairness else Plan(60 * minutes, chosen, 0)
    outcome = torture(folder, plan, _tell)
    terminal.document(outcome.as_json())
    _print(terminal, outcome)
    if outcome.holds:
        remove(folder)
        return 0
    for trail in outcome.verdict.trails:
        terminal.say(trail)
    for fault in outcome.not_kept:
        terminal.say(f"NOT KEPT  {fault}", style="bold red")
    terminal.say(f"The home and the log are in {folder}; the seed is {chosen}.")
    return 1


_PLACES = ("delivered", "superseded", "quarantined", "discarded", "exception", "lost")


def _tell(text: str) -> None:
    print(f"axiom: {text}", file=sys.stderr, flush=True)


def _print(terminal: Terminal, outcome: Outcome) -> None:
    verdict = outcome.verdict
    terminal.table(
        [*outcome.as_json()],
        [[*outcome.as_json().values()]],
        title=f"torture, seed {outcome.plan.seed}: {outcome.sent} Instances sent",
    )
    terminal.table(
        ["destination", *_PLACES],
        [
            [name, *(found[place] for place in _PLACES)]
            for name, found in sorted(verdict.by_destination.items())
        ],
    )
    rows: list[list[object]] = [
        ["killed", outcome.kills],
        ["died at crash points", outcome.crashes],
        ["poisoned messages, recorded", outcome.poisoned],
        ["received files deleted once they were needed no more", verdict.cleaned_up],
        ["released, discarded or retried by hand", outcome.by_hand],
        ["requests for storage commitment", outcome.committed[0]],
        ["Instances committed", outcome.committed[1]],
        ["received files without a receipt (their senders were not answered)", verdict.orphans],
        *([f"exception: {code}", count] for code, count in sorted(verdict.entries.items())),
    ]
    if outcome.fairness is not None:
        rows.append(["speed kept beside a hostile sender", f"{outcome.fairness:.0%}"])
    terminal.table(["what", "how many"], rows)
