"""HTTP to where the configuration says, if it may say that: see `shared.addresses`."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from shared.addresses import AddressRefusedError, policy


class GuardedAdapter(HTTPAdapter):
    """An HTTPAdapter that looks at where a connection has arrived before it sends anything."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Called by requests when the adapter is made, and when it is unpickled."""
        super().init_poolmanager(*args, **kwargs)
        self._opened: WeakSet[socket.socket] = WeakSet()
        self.poolmanager.pool_classes_by_scheme = {
            "http": partial(_Pool, opened=self._opened),
            "https": partial(_TlsPool, opened=self._opened),
        }

    def interrupt(self) -> None:
        """From another thread: have every request that is under way fail as if the peer had gone.

        One that has no connection yet ends by its time-out.
        """
        for connection in list(self._opened):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def guarded_session() -> requests.Session:
    """A session whose connections are looked at."""
    session = requests.Session()
    guard(session)
    return session


def guard(session: requests.Session) -> None:
    """Have the connections of a session be looked at from now on."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, GuardedAdapter())


def origin_of(url: str) -> tuple[str, str]:
    """Scheme, and host with port: whether two URLs are of one server."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, f"{parts.hostname}:{parts.port or default}"


class _Looking(HTTPConnection):
    def __init__(self, *args: Any, opened: WeakSet[socket.socket], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opened = opened

    def connect(self) -> None:
        super().connect()
        if self.sock is not None:
            self._opened.add(self.sock)

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        try:
            policy().check_peer(connection)
        except AddressRefusedError as error:
            raise NewConnectionError(self, str(error)) from error
        return connection


class _LookingTls(_Looking, HTTPSConnection):
    """The same before the TLS handshake."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Looking


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _LookingTls
