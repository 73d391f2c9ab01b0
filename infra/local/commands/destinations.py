"""`axiom destinations`: how the destinations are, and asking one whether it is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from infra.local.options import json_option, open_ports, principal
from infra.local.terminal import CommandFailedError, Terminal
from shared.errors import DestinationMisconfiguredError


@click.group("destinations", help="List and show destinations; ask one whether it is there.")
def command() -> None:
    """Works on AXIOM_HOME itself, whether the system runs or not."""


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all destinations: what they are, and what waits for them."""
    from shared.pipeline.destination_states import state_of

    terminal = Terminal(as_json)
    ports = open_ports()
    entities = ports.configuration.get().destinations
    states = [{"type": entity.type, **state_of(entity.name, ports)} for entity in entities]
    terminal.document({"destinations": states})
    columns = ["destination", "type", "circuit", "waiting", "retrying", "quarantined"]
    terminal.table(
        [*columns, ""],
        [[*(state[column] for column in columns), _remark(state)] for state in states],
        empty="No destinations: name some in the configuration, see docs/destinations.md.",
    )


@command.command("show")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show how one destination is, and where it is."""
    from shared.pipeline.destination_states import state_of

    terminal = Terminal(as_json)
    ports = open_ports()
    try:
        entity = ports.destinations.entity(name)
        state = {"type": entity.type, "address": entity.address, **state_of(name, ports)}
    except DestinationMisconfiguredError:
        raise _missing(name) from None
    terminal.document(state)
    terminal.table(["", ""], [[key.replace("_", " "), value] for key, value in state.items()])


@command.command("check")
@click.argument("name")
@json_option
def check(name: str, as_json: bool) -> int:
    """Ask one destination whether it is there; nothing stays stored there.

    Exit status 1 if it is not.
    """
    from shared.pipeline.peer_check import check_destination

    terminal = Terminal(as_json)
    try:
        checked = check_destination(name, open_ports(), by=principal())
    except DestinationMisconfiguredError:
        raise _missing(name) from None
    terminal.document(checked)
    terminal.say(f"{checked['answer']}, {checked['ms']} ms", style=None if checked["ok"] else "red")
    if not checked["ok"]:
        terminal.say(checked["hint"], style="dim")
    return int(not checked["ok"])


def _remark(state: Mapping[str, Any]) -> str:
    if not state["enabled"]:
        return "not enabled"
    return str(state["last_error"]) if state["failures"] else ""


def _missing(name: str) -> CommandFailedError:
    return CommandFailedError(
        f"there is no destination {name}",
        hint="`axiom destinations list` shows all.",
        code="no-destination",
    )
