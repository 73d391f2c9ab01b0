"""Where the configuration may have us connect to.

Who may write the configuration could otherwise have us fetch what is not theirs to see: the cloud's
metadata server gives credentials to whoever asks from its machine. Such addresses are refused when
they are saved, as far as they are spelled out, and whatever a name stands for when we connect: the
address that a connection has reached is looked at before a byte is sent on it.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Of Google, AWS, Azure and Alibaba, also where they are not link-local.
_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "fd20:ce::254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"),
    )
)
_METADATA_NAMES: Final = ("metadata", "metadata.google.internal", "instance-data")
_LOOPBACK_NAMES: Final = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")


class AddressRefusedError(OSError):
    """The address is one that we do not connect to. To adapters it is a connection that failed."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"{host} is refused: {reason}")
        self.strerror = f"{host} is refused: {reason}"


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What is refused. In the cloud nothing of ours listens on loopback that is a peer."""

    allows_loopback: bool = True
    allowed: tuple[Network, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> AddressPolicy:
        """As AXIOM_PLATFORM and AXIOM_ALLOWED_NETWORKS say. Raises: ValueError."""
        words = environ.get("AXIOM_ALLOWED_NETWORKS", "").replace(",", " ").split()
        try:
            allowed = tuple(ipaddress.ip_network(word, strict=False) for word in words)
        except ValueError:
            raise ValueError(
                "AXIOM_ALLOWED_NETWORKS has networks such as 127.0.0.0/8, with commas between"
            ) from None
        return cls(environ.get("AXIOM_PLATFORM", "") != "cloud", allowed)

    def refusal(self, address: Address) -> str | None:
        """In words why the address is refused; None if it is not."""
        if isinstance(address, ipaddress.IPv6Address):
            # An IPv4 address by another name reaches the same machine.
            address = address.ipv4_mapped or address.sixtofour or address
        if any(address in network for network in self.allowed):
            return None
        if address in _METADATA:
            return "it is a metadata server's"
        if address.is_link_local:
            return "it is link-local"
        if address.is_multicast:
            return "it is multicast"
        if (address.is_loopback or address.is_unspecified) and not self.allows_loopback:
            return "it is our own machine's"
        return None

    def refusal_of(self, host: str) -> str | None:
        """The same of a host as it is spelled; a name is looked up when we connect."""
        name = host.strip().strip("[]").rstrip(".").lower()
        if name in _METADATA_NAMES:
            return self.refusal(ipaddress.ip_address("169.254.169.254"))
        if name in _LOOPBACK_NAMES:
            return self.refusal(ipaddress.ip_address("127.0.0.1"))
        address = _spelled(name.partition("%")[0])
        return None if address is None else self.refusal(address)

    def check_peer(self, connection: socket.socket) -> None:
        """Look at what a connection has reached. Raises: AddressRefusedError, after closing it."""
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return
        host = str(connection.getpeername()[0])
        reason = self.refusal(ipaddress.ip_address(host.partition("%")[0]))
        if reason is not None:
            connection.close()
            raise AddressRefusedError(host, reason)

    def check_host(self, host: str, port: int) -> list[str]:
        """Look at what a name stands for, where the connection is made by others; to be sure, they
        are to connect to the addresses that are returned, for a name may stand for others soon.

        Raises: AddressRefusedError; OSError if it stands for nothing.
        """
        addresses = []
        for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            addresses.append(str(place[0]))
            reason = self.refusal(ipaddress.ip_address(addresses[-1].partition("%")[0]))
            if reason is not None:
                raise AddressRefusedError(host, reason)
        return addresses


@cache
def policy() -> AddressPolicy:
    """What holds in this process. Raises: ValueError naming the setting that is wrong."""
    return AddressPolicy.read(os.environ)


def is_googles(url: str) -> bool:
    """Whether it is one of Google's own services, under TLS: whoever is shown a token of ours acts
    as we do until it ends.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return parts.scheme == "https" and host.endswith(".googleapis.com")


def hosts_of(entity: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each field of a document that says where to connect to, and the host that it says."""
    if isinstance(entity, Mapping):
        for name, value in entity.items():
            below = f"{path}.{name}" if path else str(name)
            if isinstance(value, str) and name == "host":
                yield below, value
            elif isinstance(value, str) and str(name).endswith("url"):
                yield below, _host_of(value)
            else:
                yield from hosts_of(value, below)
    elif isinstance(entity, list | tuple):
        for index, value in enumerate(entity):
            yield from hosts_of(value, f"{path}[{index}]")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _spelled(name: str) -> Address | None:
    """The address that a host spells out, also as 2130706433, 0x7f.1 and other old ways."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        pass
    try:
        return ipaddress.ip_address(socket.inet_aton(name))
    except (OSError, ValueError, UnicodeError):
        return None
