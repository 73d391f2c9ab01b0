"""Asking a peer whether it is there, by this machine or by the system at --url."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from infra.local.options import open_ports, principal, remote
from infra.local.terminal import Terminal

if TYPE_CHECKING:
    from shared.client import Client
    from shared.pipeline.ports import Ports


class Check(Protocol):
    """Asks a peer from here."""

    def __call__(self, name: str, ports: Ports, *, by: str) -> Mapping[str, Any]:
        """What it said: `ok`, `answer`, `hint`, `ms`."""


def check(
    name: str, here: Check, there: Callable[[Client, str], Mapping[str, Any]], *, as_json: bool
) -> int:
    """Print what the peer says; the exit status, 1 if it is not there. Raises: what both raise."""
    api = remote()
    said = here(name, open_ports(), by=principal()) if api is None else there(api, name)
    terminal = Terminal(as_json)
    terminal.document(said)
    terminal.say(f"{said['answer']}, {said['ms']} ms", style=None if said["ok"] else "red")
    if not said["ok"]:
        terminal.say(said["hint"], style="dim")
    return int(not said["ok"])
