"""dcmtk's SCUs against a running gateway whose Receiver keeps everything in memory."""

from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from shared.errors import InvalidInstanceError, OverloadedError
from tests.gateway import MemoryReceiver, running_gateway

pytestmark = [
    pytest.mark.peer("dcmtk"),
    pytest.mark.skipif(shutil.which("storescu") is None, reason="dcmtk is not installed"),
]

# A file, and how dcmtk proposes the Transfer Syntax that it has: dcmsend does so by itself if the
# Pixel Data are compressed, and is free to choose among the uncompressed ones.
AS_THEY_ARE: list[tuple[str, list[str]]] = [
    ("CT_small.dcm", ["storescu", "-xe"]),
    ("rtplan.dcm", ["storescu", "-xi"]),
    ("MR_small_bigendian.dcm", ["storescu", "-xb"]),
    ("image_dfl.dcm", ["storescu", "-xd"]),
    ("MR_small_RLE.dcm", ["dcmsend", "--decompress-never"]),
    ("JPEG2000.dcm", ["dcmsend", "--decompress-never"]),
    ("SC_rgb_jpeg_dcmtk.dcm", ["dcmsend", "--decompress-never"]),
    ("JPGExtended.dcm", ["dcmsend", "--decompress-never"]),
]


def _run(command: list[str], port: int, *files: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, "-d", "127.0.0.1", str(port), *files],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _file(name: str) -> str:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return path


def test_echoscu_is_answered() -> None:
    with running_gateway(MemoryReceiver()) as (_, port):
        done = _run(["echoscu"], port)
    assert done.returncode == 0
    assert "Received Echo Response (Success)" in done.stderr


@pytest.mark.parametrize(("name", "command"), AS_THEY_ARE)
def test_an_instance_is_staged_as_it_was_sent(name: str, command: list[str]) -> None:
    """Nothing is decoded: what is staged is what the peer put on the wire."""
    receiver = MemoryReceiver()
    sent = pydicom.dcmread(_file(name))
    with running_gateway(receiver) as (_, port):
        done = _run([*command, "-aet", "MODALITY"], port, _file(name))
    assert done.returncode == 0, done.stdout + done.stderr
    [staging] = receiver.committed
    received = pydicom.dcmread(BytesIO(bytes(staging.data)))
    assert received.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    assert received.file_meta.MediaStorageSOPInstanceUID == sent.SOPInstanceUID
    assert received.file_meta.SourceApplicationEntityTitle == "MODALITY"
    # dcmtk writes data sets anew: without group lengths and trailing padding.
    assert list(received) == [e for e in sent if e.tag.element and e.tag != 0xFFFCFFFC]
    assert staging.uids == (sent.SOPClassUID, sent.SOPInstanceUID)
    if "PixelData" in sent:
        assert received.PixelData == sent.PixelData


def test_many_instances_come_over_one_association(tmp_path: Path) -> None:
    receiver = MemoryReceiver()
    paths = []
    for i in range(20):
        data_set = pydicom.dcmread(_file("CT_small.dcm"))
        data_set.SOPInstanceUID = f"1.2.3.{i}"
        data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
        path = tmp_path / f"{i}.dcm"
        data_set.save_as(path)
        paths.append(str(path))
    with running_gateway(receiver) as (_, port):
        done = _run(["storescu"], port, *paths)
        assert done.returncode == 0, done.stderr
    assert [s.uids[1] for s in receiver.committed] == [f"1.2.3.{i}" for i in range(20)]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OverloadedError("disk full"), "0xa700"),
        (InvalidInstanceError("no Study Instance UID"), "0xc000"),
        (RuntimeError("a bug"), "0x0110"),
    ],
)
def test_a_refusal_reaches_storescu_as_its_status(error: Exception, status: str) -> None:
    receiver = MemoryReceiver()
    receiver.commit_error = error
    with running_gateway(receiver) as (_, port):
        done = _run(["storescu"], port, _file("CT_small.dcm"))
    assert status in (done.stdout + done.stderr).lower()
    assert not receiver.committed
