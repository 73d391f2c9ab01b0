"""`axiom up`: the whole system in the foreground."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import FrameType

import click

from infra.local.addresses import Addresses
from infra.local.options import json_option, read_environment
from infra.local.supervisor import Supervisor
from infra.local.terminal import CommandFailedError, Terminal
from shared import listening


class StopRequests:
    """Counts Ctrl-C and its kin: the first asks to stop, the second to stop at once."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._count)

    def none_yet(self) -> bool:
        """Whether the system is still wanted."""
        return self.count == 0

    def in_a_hurry(self) -> bool:
        """Whether it was asked for more than once."""
        return self.count > 1

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


@click.command("up", help="Run the whole system until Ctrl-C.")
@json_option
def command(as_json: bool) -> None:
    """Print the addresses once all parts work; with --json as one document, then go on."""
    terminal = Terminal(as_json)
    environment = read_environment()
    requests = StopRequests()

    def tell(text: str) -> None:
        at = datetime.now().astimezone().strftime("%H:%M:%S")
        print(f"axiom: {at} {text}", file=sys.stderr, flush=True)

    supervisor = Supervisor(environment, tell=tell)
    supervisor.start()
    try:
        supervisor.wait_until_ready(requests.none_yet)
        if requests.none_yet():
            # Not before: a start that comes to nothing would leave a key that nobody has seen.
            new_key = None if environment.api_key else first_admin_key(environment.home)
            _announce(terminal, supervisor, new_key)
        supervisor.run(requests.none_yet)
        tell("stopping; Ctrl-C again to stop at once")
    finally:
        supervisor.stop(hurry=requests.in_a_hurry)
    tell("stopped; everything received is kept")


def _listeners(addresses: Addresses) -> Iterator[str]:
    """All listeners, that of the environment first."""
    own = {
        "host": addresses.dimse_host,
        "port": addresses.dimse_port,
        "ae_title": addresses.ae_title,
    }
    found = listening.told(Path(addresses.home) / "run") or [own]
    for one in sorted(found, key=lambda one: one["port"] != addresses.dimse_port):
        secured = ", TLS" if one.get("tls") else ""
        yield f"{one['host']}:{one['port']}, AE Title {one['ae_title']}{secured}"


def first_admin_key(home: Path) -> str | None:
    """Make the first admin and their API key; None if the home has a key already."""
    made = subprocess.run(
        [sys.executable, "-m", "infra.local.first_key"],
        env={**os.environ, "AXIOM_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if made.returncode:
        raise CommandFailedError("the first admin cannot be made", code="no-admin")
    return made.stdout.strip() or None


def _announce(terminal: Terminal, supervisor: Supervisor, new_key: str | None) -> None:
    addresses = supervisor.addresses
    terminal.document({**asdict(addresses), "url": addresses.url, "api_key": new_key})
    if terminal.as_json:
        return
    lines = [
        *(("C-STORE", where) for where in _listeners(addresses)),
        ("STOW-RS", f"{addresses.url}/api/v1/dicomweb"),
        ("API", f"{addresses.url}/api/v1"),
        ("documentation", f"{addresses.url}/api/v1/docs"),
        ("home", addresses.home),
    ]
    if new_key:
        lines.append(("admin API key", f"{new_key}  (shown this once: keep it)"))
    terminal.say("Axiom Flow is up. Ctrl-C stops it.", style="bold green")
    for name, value in lines:
        terminal.say(f"  {name:<14} {value}")
