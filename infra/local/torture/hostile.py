"""A hostile sender, as a process: `python -m infra.local.torture.hostile HOST PORT HTTP_PORT`.

Garbage instead of PDUs, PDUs that claim gigabytes, data that trickles, associations without end,
headers and bodies over HTTP that never end. It goes on until it is killed.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from infra.local.torture.instances import CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN
from infra.local.torture.system import AE_TITLE
from shared.adapters.destinations import upper_layer
from shared.adapters.destinations.upper_layer import Context
from shared.dicom import command_set

# Loopback is a whole network, and the hostile one has an address of its own in it.
_OWN_ADDRESS = "127.0.0.66"

_GARBAGE_THREADS = 2
# Between two connections of one thread, on average.
_PAUSE_S = 0.3
_HELD_ASSOCIATIONS = 80
_HELD_CONNECTIONS = 80
_TRICKLES = 20
_HTTP_TRICKLES = 20
_TRICKLE_PAUSE_S = 0.5
_CONTEXT = Context(CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN)


def main() -> None:
    """Attack in many threads."""
    # It has a machine of its own in life, and is not to win by using up this one's processors.
    os.nice(10)
    host, dimse_port, http_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    attacks: list[tuple[Callable[[socket.socket], None], int, int]] = [
        (_garbage, dimse_port, _GARBAGE_THREADS),
        (_hold, dimse_port, _HELD_CONNECTIONS),
        (_hold_association, dimse_port, _HELD_ASSOCIATIONS),
        (_trickle, dimse_port, _TRICKLES),
        (_trickle_http, http_port, _HTTP_TRICKLES),
    ]
    for attack, port, count in attacks:
        for _ in range(count):
            threading.Thread(target=_repeat, args=(attack, host, port), daemon=True).start()
    threading.Event().wait()


def _repeat(attack: Callable[[socket.socket], None], host: str, port: int) -> None:
    while True:
        with (
            suppress(OSError),
            socket.create_connection((host, port), 5, (_OWN_ADDRESS, 0)) as connection,
        ):
            attack(connection)
        time.sleep(_PAUSE_S * random.uniform(0.1, 1.9))  # noqa: S311


def _garbage(connection: socket.socket) -> None:
    kinds = (
        random.randbytes(2000),  # noqa: S311
        struct.pack(">BxL", upper_layer.A_ASSOCIATE_RQ, 0xFFFFFFFF) + bytes(1000),
        struct.pack(">BxL", upper_layer.P_DATA_TF, 0x7FFFFFFF) + bytes(1000),
        _request()[:-7] + random.randbytes(7),  # noqa: S311
    )
    connection.sendall(random.choice(kinds))  # noqa: S311
    connection.recv(1024)


def _hold(connection: socket.socket) -> None:
    """Connect, and say nothing."""
    connection.settimeout(None)
    connection.recv(1)


def _hold_association(connection: socket.socket) -> None:
    """Associate, and do nothing."""
    connection.sendall(_request())
    connection.settimeout(None)
    while connection.recv(4096):
        pass


def _trickle(connection: socket.socket) -> None:
    """Send a byte of a data set now and then, which is said to have 4 GB."""
    connection.sendall(_request())
    connection.recv(4096)
    command = command_set.store_request(1, CT_IMAGE_STORAGE, "2.25.666")
    last = upper_layer.COMMAND | upper_layer.LAST
    connection.sendall(upper_layer.pdata_header(1, last, len(command)) + command)
    connection.sendall(upper_layer.pdata_header(1, 0, 0xFFFFFFF0))
    while True:
        connection.sendall(b"\0")
        time.sleep(_TRICKLE_PAUSE_S)


def _trickle_http(connection: socket.socket) -> None:
    head = b"POST /api/v1/dicomweb/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n"
    connection.sendall(head + (b"\r\n" if random.random() < 0.5 else b""))  # noqa: S311
    while True:
        connection.sendall(b"X")
        time.sleep(_TRICKLE_PAUSE_S)


def _request() -> bytes:
    return upper_layer.associate_request(AE_TITLE, "HOSTILE", [_CONTEXT], 16384)


if __name__ == "__main__":
    main()
