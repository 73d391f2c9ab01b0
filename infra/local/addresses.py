"""Where the running system listens: ports checked and chosen before anything starts, then told."""

from __future__ import annotations

import errno
import json
import random
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from infra.local.terminal import CommandFailedError

# Below the range from which systems take ports for outgoing connections (RFC 6335 6; Linux starts
# at 32768), so that no connection takes a chosen port before its part listens.
_CHOOSE_FROM = range(20_000, 32_000)

# A system that was killed gives its ports back as soon as its children notice.
_PORT_WAIT_S = 3.0

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 (compared only)


@dataclass(frozen=True, slots=True)
class Addresses:
    """What a client needs to reach a running system, and the names of its parts."""

    home: str
    pid: int
    http_host: str
    http_port: int
    dimse_host: str
    dimse_port: int
    ae_title: str
    parts: tuple[str, ...]

    @property
    def url(self) -> str:
        """The root of the HTTP side, as a client on this machine reaches it."""
        host = reachable(self.http_host)
        return (
            f"http://[{host}]:{self.http_port}"
            if ":" in host
            else f"http://{host}:{self.http_port}"
        )

    def write(self) -> None:
        """Leave them in AXIOM_HOME for the other commands."""
        file = addresses_file(Path(self.home))
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps({**asdict(self), "url": self.url}, indent=2), encoding="utf-8")
        fresh.replace(file)


def addresses_file(home: Path) -> Path:
    """Where a home keeps the addresses of its running system."""
    return home / "run" / "addresses.json"


def read_addresses(home: Path) -> Addresses | None:
    """The addresses that the system of this home last listened on; None if it never ran."""
    try:
        known = json.loads(addresses_file(home).read_text(encoding="utf-8"))
        return msgspec.convert(known, Addresses)
    except (OSError, ValueError):
        return None


def reachable(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`."""
    return _WILDCARDS.get(host, host)


def claim_port(port: int, host: str, setting: str) -> int:
    """The port if it can be listened on, or a free one for 0.

    `setting` is the environment variable less its `_PORT` or `_HOST`, for the error.

    Raises: CommandFailedError naming the setting to change.
    """
    if port == 0:
        # Not a secret, only unlikely to meet the choice of another system that starts now.
        candidates = random.sample(_CHOOSE_FROM, 200)
        for candidate in candidates:
            if _listen_error(candidate, host) is None:
                return candidate
        port = candidates[0]
    deadline_s = time.monotonic() + _PORT_WAIT_S
    while (error := _listen_error(port, host)) is not None:
        if error.errno != errno.EADDRINUSE or time.monotonic() > deadline_s:
            raise _explained(error, port, host, setting)
        time.sleep(0.05)
    return port


def _listen_error(port: int, host: str) -> OSError | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        return error
    return None


def _explained(error: OSError, port: int, host: str, setting: str) -> CommandFailedError:
    if error.errno == errno.EADDRINUSE:
        return CommandFailedError(
            f"port {port} of {host} is in use by another program",
            hint=f"Set {setting}_PORT to another port, or to 0 for any free one.",
            code="port-in-use",
        )
    if error.errno == errno.EACCES:
        return CommandFailedError(
            f"this user may not listen on port {port}",
            hint=f"Set {setting}_PORT to a port from 1024 on.",
            code="port-not-allowed",
        )
    return CommandFailedError(
        f"cannot listen on {host}: {error.strerror}",
        hint=f"Set {setting}_HOST to an address of this machine.",
        code="bad-setting",
    )
