"""`axiom health`: what the parts say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.local import heartbeat
from infra.local.addresses import read_addresses
from infra.local.options import json_option, open_ports, read_environment, remote
from infra.local.terminal import CommandFailedError, Terminal

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports


@click.command("health", help="Say whether every part of the running system works.")
@json_option
def command(as_json: bool) -> int:
    """Exit status 1 if a part does not."""
    terminal = Terminal(as_json)
    if (api := remote()) is not None:
        told = api.health()["checks"]
        queue = api.dicom_processing()["checks"].get("queue")
        if queue is not None:
            told = {**told, "reception": queue}
        return _tell(
            terminal,
            api.url,
            {
                name: None if one["status"] == "healthy" else one.get("detail", one["status"])
                for name, one in told.items()
            },
        )
    home = read_environment().home
    addresses = read_addresses(home)
    if addresses is None:
        raise CommandFailedError(
            f"no system runs on {home}",
            hint="Start it with `axiom up`, or name its home with AXIOM_HOME.",
            code="not-running",
        )
    ports = open_ports()
    checks = heartbeat.faults(home / "run", addresses.parts)
    checks.update({name: check() for name, check in ports.health_checks.items()})
    checks["reception"] = "; ".join(ports.receiver.closed()) or None
    checks.update(_worklists(ports, home))
    return _tell(terminal, addresses.url, checks)


def _worklists(ports: Ports, home: Path) -> dict[str, str | None]:
    """What each worklist that a listener shows says of itself."""
    listeners = ports.configuration.get().listeners
    shown = sorted({one.worklist for one in listeners if one.enabled and one.worklist})
    if not shown:
        return {}
    from shared.adapters.archives import Archives

    archives = Archives(ports.configuration.get, ports.secrets, ports.clock, home)
    return {f"worklist {name}": archives.worklist_fault(name) for name in shown}


def _tell(terminal: Terminal, url: str, checks: Mapping[str, str | None]) -> int:
    healthy = not any(checks.values())
    terminal.document(
        {
            "status": "ok" if healthy else "failed",
            "url": url,
            "checks": {name: fault or "ok" for name, fault in checks.items()},
        }
    )
    terminal.table(
        ["part", "state", ""],
        [[name, "failed" if fault else "ok", fault or ""] for name, fault in checks.items()],
        title=f"Axiom Flow at {url}",
    )
    return 0 if healthy else 1
