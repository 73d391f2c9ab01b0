"""Storage SCPs that do not take an Instance as it is, or from us, judged by dcmtk's programs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from shared.adapters.destinations.dimse import StorageScpDestination
from shared.dicom.transcode import transcoded
from shared.errors import DestinationRefusedError
from tests.data import build
from tests.peers import LOOPBACK, StartStorescp, StorescpPeer
from tests.unit.destinations.received import outgoing

pytest_plugins = ("tests.peers",)
pytestmark = pytest.mark.peer("dcmtk")
IMPLICIT_ONLY = "+xi"


@pytest.fixture
def destinations() -> Iterator[list[StorageScpDestination]]:
    made: list[StorageScpDestination] = []
    yield made
    for one in made:
        one.close()


def to(
    peer: StorescpPeer, made: list[StorageScpDestination], *, transcodes: bool
) -> StorageScpDestination:
    made.append(
        StorageScpDestination(
            "pacs",
            host=LOOPBACK,
            port=peer.port,
            called_ae_title=peer.ae_title,
            calling_ae_title="AXIOM",
            transcodes_when_refused=transcodes,
        )
    )
    return made[-1]


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_RLE.dcm", "image_dfl.dcm"])
def test_what_a_peer_refuses_comes_in_what_it_takes(
    name: str, storescp: StartStorescp, destinations: list[StorageScpDestination], tmp_path: Path
) -> None:
    peer = storescp(IMPLICIT_ONLY)
    data = build.pydicom_file(name)
    instance = outgoing(tmp_path, data)
    destination = to(peer, destinations, transcodes=True)
    answer = destination.deliver(instance)
    assert answer == "0000H, transcoded to 1.2.840.10008.1.2"
    assert destination.deliver(instance) == answer  # it is remembered what the peer takes
    path = peer.file(instance.sop_instance_uid)
    stored, received = pydicom.dcmread(path), pydicom.dcmread(outgoing_path(tmp_path, data))
    assert stored.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    assert np.array_equal(stored.pixel_array, received.pixel_array)
    dumped = subprocess.run(["dcmdump", str(path)], capture_output=True, timeout=60, check=False)
    assert (dumped.returncode, dumped.stderr) == (0, b"")


def outgoing_path(folder: Path, data: bytes) -> Path:
    path = folder / "received.dcm"
    path.write_bytes(data)
    return path


def test_without_the_setting_it_is_refused(
    storescp: StartStorescp, destinations: list[StorageScpDestination], tmp_path: Path
) -> None:
    peer = storescp(IMPLICIT_ONLY)
    instance = outgoing(tmp_path, build.compressed())
    with pytest.raises(DestinationRefusedError):
        to(peer, destinations, transcodes=False).deliver(instance)
    assert peer.files() == []


def test_what_cannot_be_transcoded_stays_refused(
    storescp: StartStorescp, destinations: list[StorageScpDestination], tmp_path: Path
) -> None:
    peer = storescp(IMPLICIT_ONLY)
    instance = outgoing(tmp_path, build.pydicom_file("JPEG2000-embedded-sequence-delimiter.dcm"))
    with pytest.raises(DestinationRefusedError):
        to(peer, destinations, transcodes=True).deliver(instance)


@pytest.mark.parametrize(
    ("target", "decoder"),
    [("1.2.840.10008.1.2.5", "dcmdrle"), ("1.2.840.10008.1.2.4.80", "dcmdjpls")],
)
def test_what_a_rule_compresses_arrives_as_dcmtk_reads_it(
    target: str,
    decoder: str,
    storescp: StartStorescp,
    destinations: list[StorageScpDestination],
    tmp_path: Path,
) -> None:
    peer = storescp()
    data = build.pydicom_file("CT_small.dcm")
    instance = transcoded(outgoing(tmp_path, data), target, asked_by="a test")
    assert to(peer, destinations, transcodes=False).deliver(instance) == "0000H"
    decoded = tmp_path / "decoded.dcm"
    command = [decoder, str(peer.file(instance.sop_instance_uid)), str(decoded)]
    subprocess.run(command, check=True, timeout=60)
    before = pydicom.dcmread(outgoing_path(tmp_path, data))
    assert np.array_equal(pydicom.dcmread(decoded).pixel_array, before.pixel_array)


def test_each_instance_comes_from_the_ae_that_sent_it(
    storescp: StartStorescp, tmp_path: Path
) -> None:
    """Over an association of that AE, and no more of them than callers at once; what came from no
    AE, or one whose title is none, comes from us.
    """
    peer = storescp("--exec-on-reception", f"echo #a >> {tmp_path}/callers", "--exec-sync")
    destination = StorageScpDestination(
        "pacs",
        host=LOOPBACK,
        port=peer.port,
        called_ae_title=peer.ae_title,
        calling_ae_title="AXIOM",
        passes_calling_ae_title=True,
    )
    callers = ["CT1", "CT1", "MR 2", "", "CT1", "a title that is too long", " MR 2 "]
    for number, caller in enumerate(callers):
        instance = outgoing(tmp_path, build.ct(instance=f"i{number}"))
        destination.deliver(replace(instance, calling_ae_title=caller))
    destination.close()
    seen = (tmp_path / "callers").read_text().splitlines()
    assert seen == ["CT1", "CT1", "MR 2", "AXIOM", "CT1", "AXIOM", "MR 2"]
