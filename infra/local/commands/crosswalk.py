"""`axiom crosswalk`: try crosswalk maps, and look after the copies of their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from infra.local.options import json_option, open_ports
from infra.local.terminal import CommandFailedError, Terminal

if TYPE_CHECKING:
    from shared.pipeline.crosswalks import CrosswalkStatus


@click.group("crosswalk", help="Try crosswalk maps, copy their tables, show how they do.")
def command() -> None:
    """Works on AXIOM_HOME itself, whether the system runs or not."""


@command.command("lookup")
@click.argument("map_name", metavar="MAP")
@click.argument("keys", metavar="COLUMN=VALUE...", nargs=-1, required=True)
@json_option
def lookup(map_name: str, keys: tuple[str, ...], as_json: bool) -> int:
    """Look up one row in MAP as a rule would; exit status 1 if there is none."""
    pairs = [key.partition("=") for key in keys]
    if not all(separator for _, separator, _ in pairs):
        raise click.UsageError("keys are written COLUMN=VALUE")
    terminal = Terminal(as_json)
    outputs = open_ports().crosswalks.lookup(map_name, {name: value for name, _, value in pairs})
    terminal.document({"found": outputs is not None, "outputs": outputs or {}})
    terminal.table(
        ["output", "value"],
        list((outputs or {}).items()),
        title=map_name,
        empty="no such row" if outputs is None else "a row without any of the outputs",
    )
    return 0 if outputs is not None else 1


@command.command("sync")
@click.argument("map_names", metavar="[MAP]...", nargs=-1)
@json_option
def sync(map_names: tuple[str, ...], as_json: bool) -> None:
    """Copy the tables of these maps now, or of all that have `sync`."""
    crosswalks = open_ports().crosswalks
    wanted = map_names or [one.map_name for one in crosswalks.status() if one.is_copied]
    if not wanted:
        raise CommandFailedError("no crosswalk map has `sync`", code="nothing-to-do")
    _show([crosswalks.sync(name) for name in wanted], Terminal(as_json))


@command.command("status")
@json_option
def status(as_json: bool) -> None:
    """List the maps; of those with `sync`, how old their copy is and why it is no newer."""
    _show(open_ports().crosswalks.status(), Terminal(as_json))


def _show(found: Sequence[CrosswalkStatus], terminal: Terminal) -> None:
    terminal.document([asdict(one) for one in found])
    terminal.table(
        ["map", "source", "enabled", "answers from", "rows", "copied", "error"],
        [
            [
                one.map_name,
                f"{one.source} ({one.type})",
                "yes" if one.enabled else "no",
                "a copy" if one.is_copied else "the source",
                one.rows,
                one.synced_at,
                one.error,
            ]
            for one in found
        ],
        empty="no crosswalk maps",
    )
