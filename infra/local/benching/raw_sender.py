"""A Storage SCU that is never the bottleneck: its PDUs are cut before the clock starts.

Each association is a process of its own that maps its files, waits for the others, and pushes ready
buffers with sendmsg(2). It sends as the peer's announced maximum allows, or the data set of one
Instance as one PDU.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from infra.local.benching.programs import BenchError
from shared.adapters.destinations import upper_layer
from shared.adapters.destinations.upper_layer import Context
from shared.dicom import command_set

_BUFFERS_AT_ONCE = 512
_LARGEST_PDU_BYTES = 131072
_SUCCESS = 0x0000

Plan = list[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Sent:
    """How long all associations took together, and how many Instances the peer took."""

    seconds: float
    count: int

    @property
    def per_s(self) -> float:
        return self.count / self.seconds


def send(
    port: int,
    files: Sequence[Path],
    *,
    associations: int = 1,
    association_each: bool = False,
    one_pdu: bool = False,
) -> Sent:
    """Send the files over so many associations at once, or each over one of its own.

    Raises: BenchError if the peer does not answer each with Success.
    """
    workers = []
    for number in range(associations):
        go_read, go_write = os.pipe()
        told_read, told_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            _become_worker(
                port, files[number::associations], association_each, one_pdu, go_read, told_write
            )
        os.close(go_read)
        os.close(told_write)
        workers.append((pid, go_write, told_read))
    are_ready = [os.read(told, 1) == b"r" for _, _, told in workers]
    for _, go, _ in workers:
        if all(are_ready):
            os.write(go, b"g")
        os.close(go)
    ends = []
    for pid, _, told in workers:
        with os.fdopen(told, "rb") as file:
            words = file.read()
        os.waitpid(pid, 0)
        if not words.startswith(b"{"):
            raise BenchError(f"the sender failed: {words.decode(errors='replace')[:300]}")
        ends.append(json.loads(words))
    seconds = max(end["end_s"] for end in ends) - min(end["start_s"] for end in ends)
    return Sent(seconds, sum(end["count"] for end in ends))


def _become_worker(
    port: int, files: Sequence[Path], association_each: bool, one_pdu: bool, go: int, told: int
) -> None:
    status = 1
    try:
        os.write(told, json.dumps(_work(port, files, association_each, one_pdu, go, told)).encode())
        status = 0
    except BaseException as error:
        os.write(told, repr(error).encode())
    finally:
        sys.stdout.flush()
        os._exit(status)


def _work(
    port: int, files: Sequence[Path], association_each: bool, one_pdu: bool, go: int, told: int
) -> dict[str, float]:
    heads = [dcmread(path, stop_before_pixels=True, specific_tags=[]) for path in files[:1]]
    meta = heads[0].file_meta
    context = Context(str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
    connection, max_pdu = _associate(port, context)
    plans = [_plan(path, 0 if one_pdu else max_pdu) for path in files]
    if association_each:
        _release(connection)
    os.write(told, b"r")
    if os.read(go, 1) != b"g":
        raise BenchError("another sender failed")
    start_s = time.perf_counter()
    for message_id, plan in enumerate(plans, start=1):
        if association_each:
            connection, _ = _associate(port, context)
        _push(connection, plan)
        _expect_success(connection, 1 if association_each else message_id)
        if association_each:
            _release(connection)
    end_s = time.perf_counter()
    if not association_each:
        _release(connection)
    return {"start_s": start_s, "end_s": end_s, "count": len(plans)}


def _associate(port: int, context: Context) -> tuple[socket.socket, int]:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(upper_layer.associate_request("ANY", "BENCH", [context], 16384))
    kind, body = _receive_pdu(connection)
    if kind != upper_layer.A_ASSOCIATE_AC:
        raise BenchError(f"PDU type {kind:02X}H answers the A-ASSOCIATE-RQ")
    announced = upper_layer.parse_associate_accept(body).max_pdu_size
    return connection, min(announced or _LARGEST_PDU_BYTES, _LARGEST_PDU_BYTES)


def _release(connection: socket.socket) -> None:
    connection.sendall(upper_layer.RELEASE_RQ)
    _receive_pdu(connection)
    connection.close()


_message_ids = 0


def _plan(path: Path, max_pdu: int) -> Plan:
    """The C-STORE of a file as buffers; 0 puts its data set into one PDU."""
    global _message_ids
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    # The group length is the first element of the File Meta (PS3.10 7.1).
    start = 144 + int.from_bytes(data[140:144], "little")
    meta = dcmread(path, stop_before_pixels=True, specific_tags=[]).file_meta
    _message_ids += 1
    request = command_set.store_request(
        _message_ids, str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
    )
    control = upper_layer.COMMAND | upper_layer.LAST
    plan: Plan = [upper_layer.pdata_header(1, control, len(request)), request]
    step = (max_pdu - upper_layer.PDV_HEADER_BYTES) & ~1 if max_pdu else len(data) - start
    for position in range(start, len(data), step):
        piece = data[position : position + step]
        is_last = position + step >= len(data)
        plan += [upper_layer.pdata_header(1, upper_layer.LAST if is_last else 0, len(piece)), piece]
    _touch(data)
    return plan


def _touch(data: memoryview) -> None:
    """Have the pages of a small file mapped before the clock starts."""
    if len(data) < 1 << 26:
        sum(data[::4096])


def _push(connection: socket.socket, plan: Plan) -> None:
    for first in range(0, len(plan), _BUFFERS_AT_ONCE):
        buffers = plan[first : first + _BUFFERS_AT_ONCE]
        sent = connection.sendmsg(buffers)
        for buffer in buffers:
            if sent < len(buffer):
                connection.sendall(memoryview(buffer)[sent:])
            sent = max(0, sent - len(buffer))


def _expect_success(connection: socket.socket, message_id: int) -> None:
    # Else a peer that writes header and body apart with Nagle on stalls for 40 ms.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    kind, body = _receive_pdu(connection)
    if kind != upper_layer.P_DATA_TF:
        raise BenchError(f"PDU type {kind:02X}H answers a C-STORE")
    command = b"".join(bytes(fragment) for _, _, fragment in upper_layer.pdvs(body))
    (status,) = struct.unpack("<H", command[command.rindex(_STATUS) + 8 :][:2])
    if status != _SUCCESS:
        raise BenchError(f"message {message_id} is answered {status:04X}H")


# Tag and length of (0000,0900).
_STATUS = b"\x00\x00\x00\x09\x02\x00\x00\x00"


def _receive_pdu(connection: socket.socket) -> tuple[int, bytes]:
    kind, length = upper_layer.parse_pdu_header(_receive(connection, upper_layer.PDU_HEADER_BYTES))
    return kind, _receive(connection, length)


def _receive(connection: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        piece = connection.recv(length - len(received))
        if not piece:
            raise BenchError("the peer closed the connection")
        received += piece
    return received
