"""A large Instance passes through each destination without ever being in memory."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.adapters.destinations import authorization
from shared.adapters.destinations.dicomweb import DicomwebDestination
from shared.adapters.destinations.dimse import StorageScpDestination
from shared.adapters.destinations.filesystem import FolderDestination
from shared.dicom.header import Header
from shared.dicom.outgoing import OutgoingInstance
from tests.data import build
from tests.unit.destinations.received import ReceivedFile
from tests.unit.destinations.scripted_scp import Connection, ScriptedScp

PIXEL_BYTES = 192 << 20
MOST_GROWTH_BYTES = 16 << 20

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")

pytestmark = pytest.mark.skipif(not CLEAR_REFS.exists(), reason="measures memory as Linux does")


@pytest.fixture(params=[True, False], ids=["descriptor", "stream"])
def large(tmp_path: Path, request: pytest.FixtureRequest) -> OutgoingInstance:
    """A received file of 192 MiB, most of it a hole, with an edited Header."""
    small = build.ct()
    header = Header.parse(small, file_size=len(small))
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(small[: header.body_offset])
        file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, PIXEL_BYTES))
        file.truncate(file.tell() + PIXEL_BYTES)
    edited = build.ct(patient_id="SOMEBODY-ELSE")
    return OutgoingInstance(
        header=Header.parse(edited, file_size=len(edited)),
        reader=ReceivedFile(path, has_descriptor=request.param),
        body_offset=header.body_offset,
        unchanged=False,
    )


@contextmanager
def flat_memory() -> Iterator[None]:
    """Fails if the resident set grows by more than 16 MiB at any moment meanwhile."""
    CLEAR_REFS.write_text("5")  # forget the largest size so far (proc(5))
    before = _status("VmRSS")
    yield
    assert _status("VmHWM") - before < MOST_GROWTH_BYTES


def test_into_a_folder(large: OutgoingInstance, tmp_path: Path) -> None:
    destination = FolderDestination("folder", tmp_path / "out")
    with flat_memory():
        path = destination.deliver(large)
        assert destination.deliver(large) == path
    assert (tmp_path / "out" / path).stat().st_size == large.part10_size


def test_by_c_store(large: OutgoingInstance) -> None:
    taken = []

    def script(connection: Connection) -> None:
        connection.accept(131072)
        exchange = connection.read_store_request()
        taken.append(_discard_data_set(connection))
        connection.answer(exchange)

    with ScriptedScp(script) as scp:
        destination = StorageScpDestination(
            "pacs", host="127.0.0.1", port=scp.port, called_ae_title="A", calling_ae_title="B"
        )
        with flat_memory():
            assert destination.deliver(large) == "0000H"
        destination.close()
    assert taken == [sum(map(len, large.data_set_parts()))]


def test_by_stow(large: OutgoingInstance) -> None:
    with _discarding_server() as (url, taken):
        destination = DicomwebDestination(
            "archive", base_url=url, authorization=authorization.none()
        )
        with flat_memory():
            assert destination.deliver(large) == "200"
        destination.close()
    assert taken() > large.part10_size


def test_a_deflated_instance_that_inflates_to_much(tmp_path: Path) -> None:
    """192 MiB of equal pixels deflate to 192 KiB."""
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, PIXEL_BYTES) + bytes(PIXEL_BYTES)
    syntax = "1.2.840.10008.1.2.1.99"
    received = build.ct(transfer_syntax_uid=syntax, changes={build.PIXEL_DATA: pixels})
    del pixels
    edited = build.ct(patient_id="SOMEBODY-ELSE", transfer_syntax_uid=syntax)
    (tmp_path / "deflated").write_bytes(received)
    instance = OutgoingInstance(
        header=Header.parse(edited, file_size=len(edited)),
        reader=ReceivedFile(tmp_path / "deflated"),
        body_offset=Header.parse(received, file_size=len(received)).body_offset,
        unchanged=False,
    )
    with flat_memory():
        assert instance.part10_size < 1 << 20


def _status(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def _discard_data_set(connection: Connection) -> int:
    size = 0
    buffer = bytearray(1 << 17)
    while True:
        head = connection.read_exactly(12)
        left = int.from_bytes(head[6:10], "big") - 2
        size += left
        while left:
            left -= connection.socket.recv_into(buffer, min(left, len(buffer)))
        if head[11] == 2:
            return size


@contextmanager
def _discarding_server() -> Iterator[tuple[str, Callable[[], int]]]:
    """An HTTP server for one request; also a function that says how large its body was."""
    taken = [0]

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(1 << 12)
            header, _, start = head.partition(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in header.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            taken[0] = len(start)
            buffer = bytearray(1 << 17)
            while taken[0] < length:
                taken[0] += connection.recv_into(buffer)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", lambda: taken[0]
        thread.join(120)
