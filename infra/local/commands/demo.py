"""`axiom demo`: the whole flow in one table, and a verdict."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.local.options import json_option
from infra.local.terminal import Terminal, cell, new_table

if TYPE_CHECKING:
    from rich.text import Text

    from infra.local.demo.run import Outcome, Story

_HOMES = ("home", "receiving-home")


@click.command("demo", help="Show the whole flow with real Instances, and prove it.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="An empty or new folder to leave the files in.  [a temporary one]",
)
@json_option
def command(output: Path | None, as_json: bool) -> int:
    """Exit status 0 only if every claim is true."""
    from infra.local.demo.run import run_demo

    terminal = Terminal(as_json)
    folder = _empty_folder(output)

    def tell(text: str) -> None:
        print(f"axiom: {text}", file=sys.stderr, flush=True)

    try:
        outcome = run_demo(folder, tell)
    except BaseException:
        tell(f"what was done so far, and log.jsonl, are in {folder}")
        raise
    if outcome.holds:
        for home in _HOMES:
            shutil.rmtree(folder / home)
    terminal.document(_as_json(outcome))
    if not as_json:
        _print(terminal, outcome)
    return 0 if outcome.holds else 1


def _empty_folder(wanted: Path | None) -> Path:
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="axiom-demo-"))
    wanted.mkdir(parents=True, exist_ok=True)
    if any(wanted.iterdir()):
        raise click.UsageError(f"{wanted} is not empty")
    return wanted.absolute()


def _print(terminal: Terminal, outcome: Outcome) -> None:
    table = new_table(["Instance", "sent", "rules", "changes (old → new)", "what became of it"])
    for story in outcome.stories:
        table.add_row(
            story.exhibit.file,
            f"{story.exhibit.sent_by}\n{story.answer}",
            "\n".join(rule.partition("/")[2] for rule in _rules(story)) or _no_rule(story),
            "\n".join(_changes(story)),
            _deliveries(story) if story.record else _exceptions(story),
        )
        table.add_section()
    terminal.console.print(table)
    checks = [*(c for story in outcome.stories for c in story.checks), *outcome.checks]
    failed = [check for check in checks if not check.holds]
    for check in failed:
        terminal.say(f"NOT TRUE  {check.claim}  {check.detail}", style="bold red")
    if failed:
        terminal.say(f"{len(failed)} of {len(checks)} checks failed.", style="bold red")
    else:
        terminal.say(
            f"All {len(checks)} checks hold: pixel data byte-identical everywhere; headers differ "
            "only where rules said, with the old Values in Original Attributes.",
            style="bold green",
        )
    terminal.say(
        "archive is a folder; pacs is a stock pynetdicom Storage SCP; web is a second Axiom Flow, "
        "reached over STOW-RS. pydicom compared the files."
    )
    terminal.say(f"The files: {outcome.output}   {outcome.seconds} s")


def _rules(story: Story) -> Sequence[str]:
    return story.record.instance["matched_rules"] if story.record else ()


def _no_rule(story: Story) -> str:
    return "(default route)" if story.record else ""


def _changes(story: Story) -> list[str]:
    """Each Change once, whichever destinations it is for."""
    if story.record is None:
        return []
    shown = {
        f"{change['path']}: {_values(change['old'])} → {_values(change['new'])}"
        for changes in story.record.changes.values()
        for change in changes
        if not change["path"].startswith("OriginalAttributes")
    }
    return sorted(shown)


def _values(values: Sequence[str] | None) -> str:
    return "(absent)" if values is None else "\\".join(values)


def _deliveries(story: Story) -> Text:
    from rich.text import Text

    lines = []
    if story.record is not None:
        for name in story.record.destinations:
            delivery = story.record.delivery(name)
            ms = f" {delivery['since_received_ms']:.0f}\u00a0ms" if delivery else ""
            lines.append(Text.assemble(f"{name}: ", cell(story.record.state_of(name)), ms))
    return Text("\n").join(lines)


def _exceptions(story: Story) -> Text:
    from rich.text import Text

    lines = [Text.assemble((e["code"], "red"), f": {e['message']}") for e in story.exceptions]
    return Text("\n").join([Text("refused; in the exception log:"), *lines])


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "ok": outcome.holds,
        "output": str(outcome.output),
        "seconds": outcome.seconds,
        "instances": [
            {
                "file": story.exhibit.file,
                "sent_by": story.exhibit.sent_by,
                "answer": story.answer,
                "sop_instance_uid": story.sop_instance_uid,
                "record": story.record.as_json() if story.record else None,
                "exceptions": [
                    {name: entry[name] for name in ("id", "code", "category", "message", "hint")}
                    for entry in story.exceptions
                ],
                "checks": [asdict(check) for check in story.checks],
            }
            for story in outcome.stories
        ],
        "checks": [asdict(check) for check in outcome.checks],
    }
