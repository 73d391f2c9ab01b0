"""`axiom crosswalk`: try crosswalk maps, and look after the copies of their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec

from infra.local.options import json_option, open_ports, remote
from infra.local.terminal import CommandFailedError, Terminal


@click.group("crosswalk", help="Try crosswalk maps, copy their tables, show how they do.")
def command() -> None:
    """Of AXIOM_HOME, whether the system runs or not, or of the system at --url."""


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
    wanted = {name: value for name, _, value in pairs}
    outputs: Mapping[str, str] | None
    if (api := remote()) is not None:
        row = api.lookup(map_name, wanted)
        outputs = row["outputs"] if row["found"] else None
    else:
        outputs = open_ports().crosswalks.lookup(map_name, wanted)
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
    api = remote()
    wanted = map_names or [one["map_name"] for one in _status() if one["is_copied"]]
    if not wanted:
        raise CommandFailedError("no crosswalk map has `sync`", code="nothing-to-do")
    if api is not None:
        _show([api.sync_crosswalk(name) for name in wanted], Terminal(as_json))
        return
    crosswalks = open_ports().crosswalks
    _show([msgspec.to_builtins(crosswalks.sync(name)) for name in wanted], Terminal(as_json))


@command.command("status")
@json_option
def status(as_json: bool) -> None:
    """List the maps; of those with `sync`, how old their copy is and why it is no newer."""
    _show(_status(), Terminal(as_json))


def _status() -> Sequence[Mapping[str, Any]]:
    api = remote()
    if api is not None:
        return [api.crosswalk(one["name"]) for one in api.entities("crosswalk-maps")]
    return [msgspec.to_builtins(one) for one in open_ports().crosswalks.status()]


def _show(found: Sequence[Mapping[str, Any]], terminal: Terminal) -> None:
    terminal.document(found)
    terminal.table(
        ["map", "source", "enabled", "answers from", "rows", "copied", "error"],
        [
            [
                one["map_name"],
                f"{one['source']} ({one['type']})",
                one["enabled"],
                "a copy" if one["is_copied"] else "the source",
                one["rows"],
                one["synced_at"],
                one["error"],
            ]
            for one in found
        ],
        empty="no crosswalk maps",
    )
