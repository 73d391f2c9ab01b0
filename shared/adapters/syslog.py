"""Audit messages to a repository by syslog: RFC 5424 over TLS (RFC 5425), TCP or UDP (RFC 5426), as
PS3.15 A.6 and A.7 say.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import ssl
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_PORTS: Final = {"tls": 6514, "tcp": 601, "udp": 514}
_FILES: Final = {
    "trusted_file": "AXIOM_AUDIT_SYSLOG_CA",
    "certificate_file": "AXIOM_AUDIT_SYSLOG_CERTIFICATE",
    "private_key_file": "AXIOM_AUDIT_SYSLOG_KEY",
}
_TIMEOUT_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.005
# Facility 10 (security), severity 5 (notice): RFC 5424 6.2.1.
_PRIORITY: Final = 10 * 8 + 5
_MESSAGE_ID: Final = "DICOM+RFC3881"  # PS3.15 A.6
_BOM: Final = b"\xef\xbb\xbf"  # says that UTF-8 follows (RFC 5424 6.4)
_SIOCOUTQ: Final = 0x5411  # of Linux: bytes that the peer has not acknowledged


@dataclass(frozen=True, slots=True)
class SyslogSettings:
    """Where audit messages go, and who we are there."""

    scheme: str
    host: str
    port: int
    trusted_file: str = ""
    certificate_file: str = ""
    private_key_file: str = ""

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> SyslogSettings | None:
        """None if nobody is to get them. Raises: ValueError naming the setting that is wrong."""
        url = environ.get("AXIOM_AUDIT_SYSLOG", "")
        if not url:
            return None
        try:
            parts = urlsplit(url)
            scheme, host, port = parts.scheme, parts.hostname, parts.port
        except ValueError:
            scheme, host, port = "", None, None
        if scheme not in _PORTS or not host or parts.path.strip("/") or parts.query:
            raise ValueError("AXIOM_AUDIT_SYSLOG is such as tls://repository.example:6514")
        files = {field: environ.get(name, "") for field, name in _FILES.items()}
        for field, name in _FILES.items():
            if files[field] and not Path(files[field]).is_file():
                raise ValueError(f"{name} is not a file")
        if bool(files["certificate_file"]) != bool(files["private_key_file"]):
            raise ValueError(
                "AXIOM_AUDIT_SYSLOG_CERTIFICATE and AXIOM_AUDIT_SYSLOG_KEY go together"
            )
        return cls(scheme, host, port or _PORTS[scheme], **files)


class SyslogCollector:
    """As `shared.pipeline.audit_forwarding.Collector`."""

    def __init__(self, settings: SyslogSettings) -> None:
        self._settings = settings

    def send(self, messages: Sequence[tuple[str, str]]) -> None:
        """As `Collector`. Over TCP and TLS the peer's machine has all of it once this returns;
        nobody says so of UDP.
        """
        lines = [_line(when, text) for when, text in messages]
        address = self._settings.host, self._settings.port
        if self._settings.scheme == "udp":
            family, kind, protocol, _, place = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[
                0
            ]
            with socket.socket(family, kind, protocol) as datagrams:
                for line in lines:
                    datagrams.sendto(line, place)
            return
        with socket.create_connection(address, _TIMEOUT_S) as connection:
            if self._settings.scheme == "tls":
                with self._context().wrap_socket(
                    connection, server_hostname=self._settings.host
                ) as secured:
                    _send(secured, lines)
            else:
                _send(connection, lines)

    def _context(self) -> ssl.SSLContext:
        settings = self._settings
        context = ssl.create_default_context(cafile=settings.trusted_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.certificate_file:
            context.load_cert_chain(settings.certificate_file, settings.private_key_file)
        return context


def _send(connection: socket.socket, lines: Sequence[bytes]) -> None:
    # Octet counting: RFC 6587 3.4.1, RFC 5425 4.3.
    connection.sendall(b"".join(b"%d %s" % (len(line), line) for line in lines))
    ends_s = time.monotonic() + _TIMEOUT_S
    while _unacknowledged(connection):
        if time.monotonic() > ends_s:
            raise TimeoutError("the collector takes nothing")
        time.sleep(_LOOK_EVERY_S)
    fault = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if fault:
        raise OSError(fault, os.strerror(fault))


def _unacknowledged(connection: socket.socket) -> int:
    waiting = fcntl.ioctl(connection.fileno(), _SIOCOUTQ, struct.pack("i", 0))
    found: int = struct.unpack("i", waiting)[0]
    return found


def _line(when: str, text: str) -> bytes:
    host = re.sub("[^!-~]", "", socket.gethostname())[:255] or "-"
    head = f"<{_PRIORITY}>1 {when} {host} axiom-flow {os.getpid()} {_MESSAGE_ID} - "
    return head.encode() + _BOM + text.encode()
