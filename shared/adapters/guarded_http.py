"""HTTP to where the configuration says, if it may say that: see `shared.addresses`."""

from __future__ import annotations

import socket
from typing import Any

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
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


def guarded_session() -> requests.Session:
    """A session whose connections are looked at."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, GuardedAdapter())
    return session


class _Looking(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        try:
            policy().check_peer(connection)
        except AddressRefusedError as error:
            raise NewConnectionError(self, str(error)) from error
        return connection


class _LookingTls(HTTPSConnection, _Looking):
    """The same before the TLS handshake."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Looking


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _LookingTls
