"""The read buffer of a connection: what came stays in order, however large the buffer is."""

from __future__ import annotations

import socket
from typing import cast

import pytest
from pynetdicom import AE
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association

from scp_gateway.connection import BUFFER_BYTES, LARGE_BUFFER_BYTES, GatewaySocket


class Stream:
    """A socket that gives as much as it is asked for, or `at_most` bytes."""

    def __init__(self, data: bytes, at_most: int) -> None:
        self._data, self._at_most, self._position = data, at_most, 0

    def setsockopt(self, *_: object) -> None: ...

    def recv_into(self, view: memoryview) -> int:
        piece = self._data[self._position :][: min(len(view), self._at_most)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


DATA = b"".join(number.to_bytes(4, "big") for number in range(2_000_000))


@pytest.mark.parametrize(
    ("at_most", "buffer_bytes"),
    [(len(DATA), LARGE_BUFFER_BYTES), (BUFFER_BYTES // 2, BUFFER_BYTES)],
    ids=["a large Instance", "what comes in pieces"],
)
def test_the_buffer_grows_for_whoever_fills_it_again_and_again(
    at_most: int, buffer_bytes: int
) -> None:
    stream = cast(socket.socket, Stream(DATA, at_most))
    connection = GatewaySocket(Association(AE("X"), MODE_ACCEPTOR), stream)
    taken = []
    while connection.fill(60.0):
        # As the data phase, which leaves what may be the start of a header.
        taken.append(connection.take(connection.end - connection.start - 3))
    taken.append(connection.take(connection.end - connection.start))
    assert b"".join(taken) == DATA
    assert len(connection.view) == buffer_bytes
