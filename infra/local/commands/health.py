"""`axiom health`: what the parts say of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.local import heartbeat
from infra.local.addresses import read_addresses
from infra.local.options import json_option, open_ports, read_environment, remote
from infra.local.terminal import CommandFailedError, Terminal

if TYPE_CHECKING:
    from shared.client import Client
    from shared.pipeline.ports import Ports


@click.command(
    "health", help="Say whether every part of the running system works, and deliveries go through."
)
@json_option
def command(as_json: bool) -> int:
    """Exit status 1 if a part does not."""
    terminal = Terminal(as_json)
    if (api := remote()) is not None:
        return _tell(terminal, api.url, _told_by(api))
    home = read_environment().home
    addresses = read_addresses(home)
    if addresses is None:
        raise CommandFailedError(
            f"no system runs on {home}",
            hint="Start it with `axiom up`, or name its home with AXIOM_HOME.",
            code="not-running",
        )
    from shared.pipeline.destination_states import state_of

    ports = open_ports()
    checks = heartbeat.faults(home / "run", addresses.parts)
    checks.update({name: check() for name, check in ports.health_checks.items()})
    checks["reception"] = "; ".join(ports.receiver.closed()) or None
    checks["rules"] = _rules(ports)
    checks.update(_worklists(ports, home))
    names = [entity.name for entity in ports.configuration.get().destinations]
    checks.update(_destinations(state_of(name, ports) for name in names))
    return _tell(terminal, addresses.url, checks)


def _told_by(api: Client) -> dict[str, str | None]:
    """What the system there says of itself, and of its destinations if we may know."""
    from shared.client import ApiError

    processing = api.dicom_processing()["checks"]
    told = {**api.health()["checks"], "listeners": processing["listeners"]}
    told["reception"] = processing["queue"]
    checks = {
        name: None if one["status"] == "healthy" else one.get("detail", one["status"])
        for name, one in told.items()
    }
    try:
        return checks | _destinations(api.destinations())
    except ApiError as error:
        if error.code not in ("unauthenticated", "forbidden"):
            raise
        return checks


def _destinations(states: Iterable[Mapping[str, Any]]) -> dict[str, str | None]:
    """What each that is delivered to says of itself: a fault while one at a time is tried."""
    from shared.pipeline.destination_states import OPEN

    return {
        f"destination {state['destination']}": (
            f"{state['failures']} failures in a row, the last: {state['last_error']}"
            if state["circuit"] == OPEN
            else None
        )
        for state in states
        if state["enabled"]
    }


def _rules(ports: Ports) -> str | None:
    """What is wrong with the rulesets that are stored: an older version may have let it pass."""
    from shared.errors import InvalidConfigurationError

    try:
        ports.rules.program()
    except InvalidConfigurationError as error:
        return f"no Instance can be decided about: {error}"
    return None


def _worklists(ports: Ports, home: Path) -> dict[str, str | None]:
    """What each worklist that a listener shows says of itself."""
    from shared.adapters.archives import Archives

    archives = Archives(ports.configuration.get, ports.secrets, ports.clock, home)
    return {f"worklist {name}": why for name, why in archives.worklist_faults().items()}


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
