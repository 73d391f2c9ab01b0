"""A DICOMweb server that misbehaves, and that refuses with 409 what it has already."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from infra.local.torture.instances import data_set_of
from infra.local.torture.ledger import Inbox
from infra.local.torture.moods import Deed, Temper
from infra.local.torture.peers import STALL_S, Peer, read_exactly
from shared.dicom.header import Header

# SOP Class and Instance UID.
Uids = tuple[str, str]

_LONGEST_HEAD_BYTES = 1 << 16
# Referenced and Failed SOP Sequence (PS3.18 I.2).
_STORED, _FAILED = "00081199", "00081198"
_BOUNDARY = re.compile(rb'boundary="?([^";\r\n]+)', re.IGNORECASE)
_INSTANCE_PATH = re.compile(r"/studies/[^/]+/series/[^/]+/instances/([0-9.]+)$")


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    head: bytes
    body: bytes


class MisbehavingStowServer(Peer):
    """STOW-RS, and WADO-RS of one Instance; keeps what it stores in `inbox` and in memory."""

    def __init__(self, inbox: Inbox, temper: Temper) -> None:
        self._inbox = inbox
        self._files: dict[str, bytes] = {}
        super().__init__(temper)

    @property
    def base_url(self) -> str:
        """Of the DICOMweb service."""
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def serve(self, connection: socket.socket) -> None:
        """One connection, kept alive."""
        while True:
            deed = self.temper.deed()
            request = _read_request(connection, drop=deed is Deed.DROP)
            if request is None or not self._act(connection, deed, request):
                return

    def _act(self, connection: socket.socket, deed: Deed, request: _Request) -> bool:
        """Answer; False if the connection is over."""
        if deed is Deed.BUSY:
            status = "429 Too Many Requests" if self.temper.chance(0.5) else "503 Unavailable"
            return _answer(connection, status, b"later", "text/plain", "Retry-After: 1\r\n")
        if deed is Deed.FAIL:
            return _answer(connection, "500 Internal Server Error", b"oops", "text/plain")
        if deed is Deed.STALL:
            time.sleep(STALL_S)
            return False
        if deed is Deed.HALF_CLOSE:
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.2)
            return False
        if request.method == "GET":
            return self._retrieve(connection, request)
        stored: list[Uids] = []
        known: list[Uids] = []
        for part10 in _parts(request):
            header = Header.parse(part10)
            uids = header.text("SOPClassUID") or "", header.text("SOPInstanceUID") or ""
            if uids[1] in self._files:
                known.append(uids)
                continue
            self._files[uids[1]] = part10
            self._inbox.take(uids[1], data_set_of(part10))
            stored.append(uids)
        if not stored:
            return self._refuse_known(connection, known)
        if deed is Deed.LOSE_ANSWER:
            return False
        module = {**_module(_STORED, stored), **(_module(_FAILED, known, 0x0111) if known else {})}
        status = "202 Accepted" if known else "200 OK"
        return _answer(connection, status, json.dumps(module).encode(), "application/dicom+json")

    def _refuse_known(self, connection: socket.socket, known: Sequence[Uids]) -> bool:
        """As servers do that keep the first: with a reason, or in words, or without any."""
        if self.temper.chance(0.5):
            failed = json.dumps(_module(_FAILED, known, 0x0111)).encode()
            return _answer(connection, "409 Conflict", failed, "application/dicom+json")
        words = b"the Instance already exists" if self.temper.chance(0.5) else b""
        return _answer(connection, "409 Conflict", words, "text/plain")

    def _retrieve(self, connection: socket.socket, request: _Request) -> bool:
        found = _INSTANCE_PATH.search(request.path)
        part10 = self._files.get(found[1]) if found else None
        if part10 is None:
            return _answer(connection, "404 Not Found", b"", "text/plain")
        part = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part10 + b"\r\n--b--\r\n"
        kind = 'multipart/related; type="application/dicom"; boundary=b'
        return _answer(connection, "200 OK", part, kind)


def _read_request(connection: socket.socket, *, drop: bool) -> _Request | None:
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece or len(head) > _LONGEST_HEAD_BYTES:
            return None
        head += piece
    method, path, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
    length = re.search(rb"content-length: *(\d+)", bytes(head), re.IGNORECASE)
    size = int(length[1]) if length else 0
    if drop and size:
        read_exactly(connection, size // 2)
        return None
    if b"expect: 100-continue" in bytes(head).lower():
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    return _Request(method, path, bytes(head), read_exactly(connection, size))


def _parts(request: _Request) -> list[bytes]:
    """The Instances of a request; it may be a single one without more around it."""
    boundary = _BOUNDARY.search(request.head)
    if boundary is None:
        return [request.body]
    pieces = (b"\r\n" + request.body).split(b"\r\n--" + boundary[1])
    # Before the first delimiter stands nothing, and after the last one "--".
    return [piece[piece.index(b"\r\n\r\n") + 4 :] for piece in pieces[1:-1]]


def _module(sequence: str, found: Sequence[Uids], reason: int | None = None) -> dict[str, object]:
    items: list[dict[str, object]] = []
    for sop_class_uid, sop_instance_uid in found:
        item: dict[str, object] = {
            "00081150": {"vr": "UI", "Value": [sop_class_uid]},
            "00081155": {"vr": "UI", "Value": [sop_instance_uid]},
        }
        if reason is not None:
            item["00081197"] = {"vr": "US", "Value": [reason]}
        items.append(item)
    return {sequence: {"vr": "SQ", "Value": items}}


def _answer(
    connection: socket.socket, status: str, body: bytes, content_type: str, fields: str = ""
) -> bool:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{fields}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return True
