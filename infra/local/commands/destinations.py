"""`axiom destinations`: how the destinations are, and asking one whether it is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from infra.local import checked
from infra.local.options import json_option, open_ports, remote
from infra.local.terminal import CommandFailedError, Terminal
from shared.errors import DestinationMisconfiguredError


@click.group("destinations", help="List and show destinations; ask one whether it is there.")
def command() -> None:
    """Of AXIOM_HOME, whether the system runs or not, or of the system at --url."""


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all destinations: what they are, and what waits for them."""
    terminal = Terminal(as_json)
    api = remote()
    states: list[Mapping[str, Any]] = list(_states() if api is None else api.destinations())
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
    api = remote()
    try:
        state: Mapping[str, Any] = (
            state_of(name, open_ports()) if api is None else api.destination(name)
        )
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

    try:
        return checked.check(
            name, check_destination, lambda api, name: api.check_destination(name), as_json=as_json
        )
    except DestinationMisconfiguredError:
        raise _missing(name) from None


def _states() -> Iterator[Mapping[str, Any]]:
    from shared.pipeline.destination_states import state_of

    ports = open_ports()
    for entity in ports.configuration.get().destinations:
        yield state_of(entity.name, ports)


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
