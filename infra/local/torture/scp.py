"""A Storage SCP that misbehaves: refuses, stalls, half-closes, and forgets to answer."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable

from infra.local.torture.instances import Kind
from infra.local.torture.ledger import Inbox, Ledger
from infra.local.torture.moods import Deed, Mood, Temper
from infra.local.torture.peers import STALL_S, Peer, read_exactly
from shared.adapters.destinations import responses, upper_layer
from shared.adapters.destinations.upper_layer import (
    A_ASSOCIATE_RQ,
    A_RELEASE_RQ,
    COMMAND,
    LAST,
    P_DATA_TF,
    RELEASE_RP,
)

AE_TITLE = "TORTURED"

_MAX_PDU_SIZE = 16384
_ASSOCIATE_FIXED_BYTES = 68
_SUCCESS, _OUT_OF_RESOURCES, _PROCESSING_FAILURE = 0x0000, 0xA700, 0x0110
_CANNOT_UNDERSTAND = 0xC000
_REJECTED_TRANSIENT = struct.pack(">BxLxBBB", 3, 4, 2, 3, 1)  # temporary congestion


class MisbehavingScp(Peer):
    """Accepts every Presentation Context; keeps what it stores in `inbox`, and hands on what it is
    told of storage commitment.
    """

    def __init__(
        self, ledger: Ledger, inbox: Inbox, temper: Temper, take_report: Callable[[bytes], None]
    ) -> None:
        self._ledger, self._inbox, self._take_report = ledger, inbox, take_report
        super().__init__(temper)

    def serve(self, connection: socket.socket) -> None:
        """One association."""
        kind, body = _read_pdu(connection)
        if kind != A_ASSOCIATE_RQ:
            return
        if self.temper.mood is Mood.FLAKY and self.temper.chance(0.1):
            connection.sendall(_REJECTED_TRANSIENT)
            return
        connection.sendall(_accept(body))
        while self._serve_store(connection):
            pass

    def _serve_store(self, connection: socket.socket) -> bool:
        """Take one C-STORE-RQ; False if the association is over."""
        deed = self.temper.deed()
        command, data_set = bytearray(), bytearray()
        while True:
            kind, body = _read_pdu(connection)
            if kind == A_RELEASE_RQ:
                connection.sendall(RELEASE_RP)
            if kind != P_DATA_TF:
                return False
            for number, control, fragment in upper_layer.pdvs(body):
                if control & COMMAND:
                    command += fragment
                    continue
                data_set += fragment
                if deed is Deed.DROP:
                    return False
                if control & LAST:
                    return self._act(connection, deed, number, bytes(command), bytes(data_set))

    def _act(
        self, connection: socket.socket, deed: Deed, number: int, command: bytes, data_set: bytes
    ) -> bool:
        taken = responses.event_report_answer(command)
        if taken is not None and deed in (Deed.STORE, Deed.LOSE_ANSWER):
            self._take_report(data_set)
            header = upper_layer.pdata_header(number, COMMAND | LAST, len(taken))
            connection.sendall(header + taken if deed is Deed.STORE else b"")
            return deed is Deed.STORE
        if taken is not None:
            return False
        elements = _elements(command)
        sop_class_uid = elements[0x0002]
        sop_instance_uid = elements[0x1000].decode("ascii").rstrip("\0")

        def answer(status: int) -> bool:
            connection.sendall(
                _response(number, elements[0x0110], sop_class_uid, elements[0x1000], status)
            )
            return True

        known = self._ledger.find(sop_instance_uid)
        if deed is Deed.BUSY:
            return answer(_OUT_OF_RESOURCES)
        if deed is Deed.FAIL:
            return answer(_PROCESSING_FAILURE)
        if deed is Deed.STALL:
            time.sleep(STALL_S)
            return False
        if deed is Deed.HALF_CLOSE:
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.2)
            return False
        if known and known[0].kind is Kind.UNWANTED:
            return answer(_CANNOT_UNDERSTAND)
        self._inbox.take(sop_instance_uid, data_set)
        return deed is not Deed.LOSE_ANSWER and answer(_SUCCESS)


def _read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    kind, length = upper_layer.parse_pdu_header(
        read_exactly(connection, upper_layer.PDU_HEADER_BYTES)
    )
    return kind, read_exactly(connection, length)


def _accept(request: bytes) -> bytes:
    """An A-ASSOCIATE-AC that accepts each context in its first Transfer Syntax (PS3.8 9.3.3)."""
    contexts = b""
    for kind, value in _items(request, _ASSOCIATE_FIXED_BYTES):
        if kind == 0x20:
            syntax = next(v for k, v in _items(value, 4) if k == 0x40)
            contexts += _item(0x21, bytes((value[0], 0, 0, 0)) + _item(0x40, syntax))
    user = _item(0x51, struct.pack(">L", _MAX_PDU_SIZE)) + _item(0x52, b"2.25.2")
    body = request[:_ASSOCIATE_FIXED_BYTES]
    body += _item(0x10, upper_layer.APPLICATION_CONTEXT_NAME.encode()) + contexts
    body += _item(0x50, user)
    return struct.pack(">BxL", upper_layer.A_ASSOCIATE_AC, len(body)) + body


def _response(
    number: int, message_id: bytes, sop_class_uid: bytes, sop_instance_uid: bytes, status: int
) -> bytes:
    """A C-STORE-RSP (PS3.7 9.3.1.2) in one P-DATA-TF."""
    group = b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value
        for element, value in (
            (0x0002, sop_class_uid),
            (0x0100, struct.pack("<H", 0x8001)),
            (0x0120, message_id),
            (0x0800, struct.pack("<H", 0x0101)),
            (0x0900, struct.pack("<H", status)),
            (0x1000, sop_instance_uid),
        )
    )
    command = struct.pack("<HHLL", 0, 0, 4, len(group)) + group
    return upper_layer.pdata_header(number, COMMAND | LAST, len(command)) + command


def _elements(command: bytes) -> dict[int, bytes]:
    found, offset = {}, 0
    while offset + 8 <= len(command):
        _, element, length = struct.unpack_from("<HHL", command, offset)
        found[element] = command[offset + 8 : offset + 8 + length]
        offset += 8 + length
    return found


def _items(data: bytes, offset: int) -> list[tuple[int, bytes]]:
    found = []
    while offset + 4 <= len(data):
        kind, length = struct.unpack_from(">BxH", data, offset)
        found.append((kind, data[offset + 4 : offset + 4 + length]))
        offset += 4 + length
    return found


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value
