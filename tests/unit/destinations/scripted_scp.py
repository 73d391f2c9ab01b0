"""A Storage SCP that does what a test tells it to, byte by byte, and mostly something wrong."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

RELEASE_RQ, RELEASE_RP, P_DATA, ABORT = 5, 6, 4, 7
LAST_DATA = 2


@dataclass
class Exchange:
    """One C-STORE-RQ as it came."""

    command: bytes
    data_set: bytes
    context_id: int
    pdu_lengths: list[int]

    @property
    def message_id(self) -> int:
        """Message ID (0000,0110)."""
        return _elements(self.command)[0x0110]


@dataclass
class Connection:
    """The SCP's end of one association; a script calls these in any order it likes."""

    socket: socket.socket
    exchanges: list[Exchange] = field(default_factory=list)

    def read_exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def read_pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self.read_exactly(6))
        return kind, self.read_exactly(length)

    def accept(self, max_pdu: int = 16384, *, refuse: tuple[str, ...] = ()) -> A_ASSOCIATE_RQ:
        """Accept all contexts whose Abstract Syntax is not in `refuse`."""
        kind, body = self.read_pdu()
        request = A_ASSOCIATE_RQ()
        request.decode(struct.pack(">BxL", kind, len(body)) + body)
        self.socket.sendall(accept_pdu(request, max_pdu, refuse))
        return request

    def read_store(self) -> Exchange:
        """One whole C-STORE-RQ. Raises EOFError when the peer releases instead."""
        command, data = b"", b""
        lengths = []
        while True:
            kind, body = self.read_pdu()
            if kind == RELEASE_RQ:
                self.socket.sendall(struct.pack(">BxL4x", RELEASE_RP, 4))
            if kind != P_DATA:
                raise EOFError
            lengths.append(len(body))
            offset = 0
            while offset < len(body):
                (length,) = struct.unpack_from(">L", body, offset)
                context_id, control = body[offset + 4], body[offset + 5]
                fragment = body[offset + 6 : offset + 4 + length]
                offset += 4 + length
                if control & 1:
                    command += fragment
                else:
                    data += fragment
                if control == LAST_DATA:
                    self.exchanges.append(Exchange(command, data, context_id, lengths))
                    return self.exchanges[-1]

    def read_store_request(self) -> Exchange:
        """The command of a C-STORE-RQ alone, its data set left unread."""
        _, body = self.read_pdu()
        return Exchange(body[6:], b"", body[4], [len(body)])

    def answer(self, exchange: Exchange, status: int = 0, comment: str = "") -> None:
        """Send a C-STORE-RSP made by pynetdicom."""
        self.socket.sendall(response_pdu(exchange, status, comment))

    def abort(self, source: int = 0, reason: int = 0) -> None:
        self.socket.sendall(struct.pack(">BxLxxBB", ABORT, 4, source, reason))


Script = Callable[[Connection], None]


class ScriptedScp:
    """Runs one script for each connection, in order; the last one for all further ones."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
            connection.socket.close()
        for thread in [self._acceptor, *self._threads]:
            thread.join(5)

    @property
    def stored(self) -> list[Exchange]:
        return [exchange for connection in self.connections for exchange in connection.exchanges]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                connection = Connection(accepted)
                script = self._scripts[min(len(self.connections), len(self._scripts) - 1)]
                self.connections.append(connection)
                thread = threading.Thread(target=self._run, args=(script, connection), daemon=True)
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _run(script: Script, connection: Connection) -> None:
        with suppress(EOFError, OSError):
            script(connection)
        with suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)


def stores(status: int = 0, comment: str = "", *, max_pdu: int = 16384) -> Script:
    """A script that accepts everything and answers each C-STORE with `status`."""

    def script(connection: Connection) -> None:
        connection.accept(max_pdu)
        while True:
            connection.answer(connection.read_store(), status, comment)

    return script


def accept_pdu(request: A_ASSOCIATE_RQ, max_pdu: int, refuse: tuple[str, ...] = ()) -> bytes:
    """An A-ASSOCIATE-AC, written out so that odd limits can be said too."""
    contexts = b""
    for item in request.presentation_context:
        result = 3 if str(item.abstract_syntax) in refuse else 0
        syntax = str(item.transfer_syntax[0]).encode()
        body = struct.pack(">BxBx", item.context_id, result) + _item(0x40, syntax)
        contexts += _item(0x21, body)
    user = _item(0x51, struct.pack(">L", max_pdu)) + _item(0x52, b"1.2.3") + _item(0x55, b"SCRIPT")
    body = struct.pack(">H66x", 1) + _item(0x10, b"1.2.840.10008.3.1.1.1") + contexts
    body += _item(0x50, user)
    pdu = struct.pack(">BxL", 2, len(body)) + body
    A_ASSOCIATE_AC().decode(pdu)  # what pynetdicom reads is well-formed
    return pdu


def response_pdu(exchange: Exchange, status: int, comment: str = "") -> bytes:
    """A P-DATA-TF with the C-STORE-RSP to `exchange`, encoded by pynetdicom."""
    primitive = C_STORE()
    primitive.MessageIDBeingRespondedTo = exchange.message_id
    primitive.Status = status
    if comment:
        primitive.ErrorComment = comment  # type: ignore[assignment]
    message = C_STORE_RSP()
    message.primitive_to_message(primitive)
    encoded = b"".join(
        value
        for pdata in message.encode_msg(exchange.context_id, 16384)
        for _, value in pdata.presentation_data_value_list
    )
    pdv = struct.pack(">LB", len(encoded) + 1, exchange.context_id) + encoded
    return struct.pack(">BxL", P_DATA, len(pdv)) + pdv


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _elements(command: bytes) -> dict[int, int]:
    return dict(_walk(command))


def _walk(command: bytes) -> Iterator[tuple[int, int]]:
    offset = 0
    while offset < len(command):
        _, number, length = struct.unpack_from("<HHL", command, offset)
        yield number, int.from_bytes(command[offset + 8 : offset + 8 + length], "little")
        offset += 8 + length
