"""What the gateway's tests share: a Receiver that keeps everything, and a peer made of bytes."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, cast

from scp_gateway.gateway import Gateway
from scp_gateway.query_jobs import Archives
from scp_gateway.storage import Receiver
from shared.config.entities import Listener
from shared.errors import AxiomError
from shared.messages import Receipt, Source
from shared.ports import Buffer

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
_DICOM_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"

A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA_TF, A_RELEASE_RP, A_ABORT = 2, 3, 4, 6, 7

COMMAND, DATA, LAST = 1, 0, 2
_TIMEOUT_S = 60.0


class MemoryStaging:
    """A Staging that keeps the bytes, and fails as its receiver is told to."""

    def __init__(self, receiver: MemoryReceiver, source: Source) -> None:
        self._receiver, self.source = receiver, source
        self.data = bytearray()
        self.uids: tuple[str | None, str | None] = (None, None)
        self._open = True

    def write(self, *buffers: Buffer) -> None:
        assert self._open
        for buffer in buffers:
            self.data += buffer
        self._receiver.written.set()
        if self._receiver.write_error is not None:
            raise self._receiver.write_error

    def commit(
        self, *, sop_class_uid: str | None = None, sop_instance_uid: str | None = None
    ) -> Receipt:
        assert self._open
        self.uids = (sop_class_uid, sop_instance_uid)
        self._receiver.may_commit.wait(_TIMEOUT_S)
        if self._receiver.commit_error is not None:
            raise self._receiver.commit_error
        self._open = False
        self._receiver.committed.append(self)
        return cast(Receipt, None)

    def refuse(self, error: AxiomError) -> None:
        self._receiver.refused.append(error)
        self._discard()

    def _discard(self) -> None:
        if self._open:
            self._open = False
            self._receiver.discarded.append(self)
            self._receiver.was_discarded.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._discard()


class MemoryReceiver:
    """A Receiver whose Instances stay in lists."""

    def __init__(self) -> None:
        self.begin_error: Exception | None = None
        self.write_error: Exception | None = None
        self.commit_error: Exception | None = None
        self.may_commit = threading.Event()
        self.may_commit.set()
        self.begun = threading.Event()
        self.written = threading.Event()
        self.was_discarded = threading.Event()
        self.committed: list[MemoryStaging] = []
        self.discarded: list[MemoryStaging] = []
        self.refused: list[AxiomError] = []

    def begin(self, source: Source, *, move_originator: str = "") -> MemoryStaging:
        if self.begin_error is not None:
            raise self.begin_error
        self.begun.set()
        return MemoryStaging(self, source)


@contextmanager
def running_gateway(
    receiver: Receiver, archives: Archives | None = None, **settings: Any
) -> Iterator[tuple[Gateway, int]]:
    """A gateway with one listener on a free port, and that port."""
    gateway = Gateway(receiver, archives=archives)
    assert gateway.apply([listener(**settings)]) == {}
    try:
        yield gateway, gateway.ports()["test"]
    finally:
        gateway.stop(0)


def listener(**settings: Any) -> Listener:
    """A listener on any free port of the loopback interface, made as from its JSON document."""
    document = {
        "name": "test",
        "ae_title": "AXIOM",
        "host": "127.0.0.1",
        "port": 0,
        **settings,
    }
    return Listener.model_validate_json(json.dumps(document))


# ---- a peer made of bytes: whatever can be wrong can be sent


class RawPeer:
    """A requestor that sends exactly the bytes it is told to."""

    def __init__(self, port: int, own_address: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=_TIMEOUT_S, source_address=(own_address, 0)
        )

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive_pdu(self) -> tuple[int, bytes]:
        """Type and body of the next PDU. Raises: ConnectionError at the end of the connection."""
        header = self._receive(6)
        return header[0], self._receive(struct.unpack(">L", header[2:])[0])

    def receive_end(self) -> None:
        """Return at the end of the connection. Raises: AssertionError if anything comes."""
        try:
            assert self.socket.recv(1) == b""
        except ConnectionResetError:
            return

    def associate(
        self,
        contexts: Sequence[tuple[str, Sequence[str]]] = (
            (CT_IMAGE_STORAGE, (EXPLICIT_VR_LITTLE_ENDIAN,)),
        ),
        **request: Any,
    ) -> tuple[int, bytes]:
        """Propose contexts 1, 3, 5 ...; returns type and body of the answer."""
        self.send(associate_rq(contexts, **request))
        return self.receive_pdu()

    def receive_status(self) -> int:
        """The Status of the DIMSE response that comes next."""
        return int.from_bytes(self.receive_response()[0x0900], "little")

    def receive_response(self) -> dict[int, bytes]:
        """The elements of the DIMSE response that comes next, by element number."""
        kind, body = self.receive_pdu()
        assert kind == P_DATA_TF, f"PDU type {kind}: {body.hex()}"
        return command_elements(body[6:])

    def release(self) -> None:
        """Release and close. Raises: AssertionError if the release is not answered."""
        self.send(b"\x05\0\0\0\0\x04\0\0\0\0")
        assert self.receive_pdu() == (A_RELEASE_RP, b"\0\0\0\0")
        self.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise ConnectionError("the gateway closed")
            data += more
        return data


def associate_rq(
    contexts: Sequence[tuple[str, Sequence[str]]],
    *,
    called: str | bytes = "AXIOM",
    calling: str | bytes = "PEER",
    application_context: bytes = _DICOM_APPLICATION_CONTEXT,
    protocol_version: int = 1,
    items: bytes = b"",
    user_items: bytes = b"",
) -> bytes:
    """An A-ASSOCIATE-RQ PDU (PS3.8 9.3.2); text AE Titles are padded as they should be."""
    titles = (t if isinstance(t, bytes) else t.ljust(16).encode() for t in (called, calling))
    body = struct.pack(">HH16s16s32x", protocol_version, 0, *titles)
    body += item(0x10, application_context) + items
    for i, (abstract_syntax, transfer_syntaxes) in enumerate(contexts):
        syntaxes = item(0x30, abstract_syntax.encode())
        syntaxes += b"".join(item(0x40, uid.encode()) for uid in transfer_syntaxes)
        body += item(0x20, bytes([2 * i + 1, 0, 0, 0]) + syntaxes)
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4")
    return pdu(1, body + item(0x50, user + user_items))


def accepted_syntaxes(body: bytes) -> dict[int, tuple[int, str]]:
    """Result and Transfer Syntax of each context of an A-ASSOCIATE-AC, by its ID."""
    found = {}
    for kind, found_item in _items(body[68:]):
        if kind == 0x21:
            syntax = next((v for k, v in _items(found_item[4:]) if k == 0x40), b"")
            found[found_item[0]] = (found_item[2], syntax.decode())
    return found


def pdu(kind: int, body: bytes) -> bytes:
    """One PDU of this type."""
    return struct.pack(">BxL", kind, len(body)) + body


def pdv(context_id: int, control: int, data: bytes) -> bytes:
    """One Presentation Data Value item."""
    return struct.pack(">LBB", len(data) + 2, context_id, control) + data


def p_data(*pdvs: bytes) -> bytes:
    """A P-DATA-TF PDU of these items."""
    return pdu(P_DATA_TF, b"".join(pdvs))


def store_rq(
    *,
    sop_class_uid: str = CT_IMAGE_STORAGE,
    sop_instance_uid: str = "1.2.3",
    message_id: int = 1,
    data_set_type: int = 1,
) -> bytes:
    """The Command Set of a C-STORE-RQ (PS3.7 9.3.1.1)."""
    return command_set(
        {
            0x0002: _uid(sop_class_uid),
            0x0100: b"\x01\0",
            0x0110: struct.pack("<H", message_id),
            0x0700: b"\0\0",
            0x0800: struct.pack("<H", data_set_type),
            0x1000: _uid(sop_instance_uid),
        }
    )


def echo_rq(message_id: int = 1) -> bytes:
    """The Command Set of a C-ECHO-RQ (PS3.7 9.3.5.1)."""
    return command_set(
        {
            0x0002: _uid(VERIFICATION),
            0x0100: b"\x30\0",
            0x0110: struct.pack("<H", message_id),
            0x0800: b"\x01\x01",
        }
    )


def command_set(elements: dict[int, bytes]) -> bytes:
    """A Command Set with its group length."""
    body = b"".join(struct.pack("<HHL", 0, e, len(v)) + v for e, v in elements.items())
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def command_elements(data: bytes) -> dict[int, bytes]:
    """The Values of a Command Set by element number."""
    found = {}
    while data:
        _, element, length = struct.unpack_from("<HHL", data)
        found[element] = data[8 : 8 + length]
        data = data[8 + length :]
    return found


def _uid(text: str) -> bytes:
    value = text.encode()
    return value + b"\0" if len(value) % 2 else value


def item(kind: int, body: bytes) -> bytes:
    """One Item or Sub-Item of an association PDU."""
    return struct.pack(">BxH", kind, len(body)) + body


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack_from(">BxH", data)
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]
