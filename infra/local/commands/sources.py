"""`axiom sources`: how the sources are that are asked, and asking one now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from infra.local import checked
from infra.local.options import json_option, open_ports, remote
from infra.local.terminal import CommandFailedError, Terminal
from infra.local.waiting import waited_for
from shared.errors import DocumentMissingError

if TYPE_CHECKING:
    from shared.client import Client

# How long the running system's own poll of a source is waited for.
_WAIT_S = 60.0


@click.group("sources", help="List and show the sources that are polled; poll one now.")
def command() -> None:
    """Of AXIOM_HOME, whether the system runs or not, or of the system at --url."""


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all sources: what they do, and what came from them."""
    terminal = Terminal(as_json)
    api = remote()
    states: list[Mapping[str, Any]] = list(_states() if api is None else api.sources())
    terminal.document({"sources": states})
    terminal.table(
        ["source", "type", "state", "polled", "next", "found", "queued", "processed", "failed", ""],
        [
            [
                state["source"],
                state["type"],
                state["state"],
                _time(state["poll_ended_at"]),
                _time(state["next_poll_at"]),
                *(state["totals"][name] for name in ("found", "queued", "processed", "failed")),
                state["last_error"] if state["failures"] else "",
            ]
            for state in states
        ],
        empty="No sources: name some in the configuration, see docs/sources.md.",
    )


@command.command("show")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show how one source is."""
    from shared.pipeline.source_states import state_of

    terminal = Terminal(as_json)
    api = remote()
    try:
        state: Mapping[str, Any] = state_of(name, open_ports()) if api is None else api.source(name)
    except DocumentMissingError:
        raise _missing(name) from None
    terminal.document(state)
    rows = [[key.replace("_", " "), _shown(value)] for key, value in state.items()]
    terminal.table(["", ""], rows)


@command.command("poll")
@click.argument("name")
@click.option("--failed", is_flag=True, help="Try at once what failed lately, too.")
@json_option
def poll(name: str, failed: bool, as_json: bool) -> int:
    """Poll one source now, whatever its interval and schedule, and say what came.

    Exit status 1 if something that it shows did not come.
    """
    terminal = Terminal(as_json)
    api = remote()
    if api is None:
        counts = _polled(name, failed)
    elif failed:
        raise click.UsageError("--failed works on AXIOM_HOME alone.")
    else:
        counts = _polled_there(api, name)
    terminal.document({"source": name, **counts})
    terminal.table(["", "Instances"], [[key, value] for key, value in counts.items()])
    return int(counts["failed"] > 0 or counts["processed"] < counts["found"])


@command.command("check")
@click.argument("name")
@json_option
def check(name: str, as_json: bool) -> int:
    """Ask one source whether it is there; nothing is fetched.

    Exit status 1 if it is not.
    """
    from shared.pipeline.peer_check import check_source

    try:
        return checked.check(
            name, check_source, lambda api, name: api.check_source(name), as_json=as_json
        )
    except DocumentMissingError:
        raise _missing(name) from None


def _states() -> Iterator[Mapping[str, Any]]:
    from shared.pipeline.source_states import state_of

    ports = open_ports()
    for entity in ports.configuration.get().sources:
        yield state_of(entity.name, ports)


def _polled(name: str, failed: bool) -> Mapping[str, int]:
    from shared.pipeline.polling import Poller

    ports = open_ports()
    if ports.configuration.get().source(name) is None:
        raise _missing(name)
    return Poller(ports).poll(name, retry=failed, wait_s=_WAIT_S)


def _polled_there(api: Client, name: str) -> Mapping[str, int]:
    """What the poll counted that the system there makes."""
    before = api.source(name)["poll_ended_at"]
    api.poll_source(name)
    state = waited_for(
        lambda: api.source(name), lambda one: one["poll_ended_at"] != before, within_s=_WAIT_S
    )
    if state is None:
        raise CommandFailedError(
            f"{name} is polled still", hint=f"See `axiom sources show {name}`.", code="too-slow"
        )
    if state["failures"]:
        raise CommandFailedError(state["last_error"], code="not-polled")
    return state["last_poll"]


def _missing(name: str) -> CommandFailedError:
    return CommandFailedError(
        f"there is no source {name}", hint="`axiom sources list` shows all.", code="no-source"
    )


def _time(text: str | None) -> str:
    return (text or "")[:19].replace("T", " ")


def _shown(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return value
