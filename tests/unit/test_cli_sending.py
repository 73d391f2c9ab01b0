"""The Storage SCU: which files it takes, and what it says of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from infra.local.sending import FAILED, SENT, SKIPPED, examine, find_files, send
from shared.adapters.destinations.association import Peer
from tests.peers import StorescpPeer

pytest_plugins = ("tests.peers",)


def shipped(name: str, folder: Path) -> Path:
    path = folder / name
    shutil.copy(str(get_testdata_file(name, download=False)), path)
    return path


def test_finds_files_folders_and_globs_each_once(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("a.dcm", "b/c.dcm", "b/.hidden"):
        (tmp_path / name).touch()
    found = find_files([str(tmp_path), str(tmp_path / "a.dcm"), str(tmp_path / "*" / "*.dcm")])
    assert found == [tmp_path / "a.dcm", tmp_path / "b" / "c.dcm"]


def test_a_name_that_fits_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        find_files([str(tmp_path / "nothing-here*")])


def test_reads_what_to_propose_from_the_file(tmp_path: Path) -> None:
    file = examine(shipped("JPEG2000.dcm", tmp_path))
    assert file.outcome == ""
    assert file.context.abstract_syntax == "1.2.840.10008.5.1.4.1.1.7"
    assert file.context.transfer_syntax == "1.2.840.10008.1.2.4.91"


def test_says_what_cannot_be_sent(tmp_path: Path) -> None:
    text, cut = tmp_path / "text.dcm", tmp_path / "cut.dcm"
    text.write_text("not DICOM " * 30)
    cut.write_bytes(shipped("CT_small.dcm", tmp_path).read_bytes()[:200])
    results = [examine(path) for path in (text, cut, tmp_path / "absent.dcm", tmp_path)]
    assert [result.outcome for result in results] == [FAILED] * 4
    assert results[0].reason == "not a DICOM Part 10 file"


def test_says_which_uid_a_file_lacks(tmp_path: Path) -> None:
    path = shipped("CT_small.dcm", tmp_path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\x02\x00\x03\x00UI", b"\x02\x00\x04\x00UI", 1))
    assert "lacks Media Storage SOP Instance UID" in examine(path).reason


def test_a_dicomdir_is_left_out(tmp_path: Path) -> None:
    """A folder from a disc has one, and it is no fault."""
    assert examine(shipped("DICOMDIR-empty.dcm", tmp_path)).outcome == SKIPPED


def test_no_peer_fails_every_file(tmp_path: Path, free_port: Callable[[], int]) -> None:
    files = [examine(shipped(name, tmp_path)) for name in ("CT_small.dcm", "MR_small.dcm")]
    results = list(send(files, Peer("127.0.0.1", free_port(), "NOBODY", "TEST", 0, 5.0)))
    assert [result.outcome for result in results] == [FAILED, FAILED]
    assert "no association" in results[0].reason


def test_a_stock_receiver_takes_every_transfer_syntax_over_one_association(
    tmp_path: Path, storescp: Callable[..., StorescpPeer]
) -> None:
    """One that shares no code with us: storescp of dcmtk."""
    peer = storescp()
    names = ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "SC_rgb_rle.dcm")
    files = [examine(shipped(name, tmp_path)) for name in names]
    results = list(send(files, Peer("127.0.0.1", peer.port, "STORESCP", "TEST", 0, 30.0)))
    assert [(result.outcome, result.dimse_status) for result in results] == [(SENT, "0000H")] * 4
