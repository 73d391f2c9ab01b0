"""Bytes that are too many for memory, and for a folder of temporary files that is memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from shared.adapters.embedded.object_store import FolderObjectStore
from shared.dicom.outgoing import chunks
from shared.dicom.spooling import ELSEWHERE_PREFIX, TemporaryFile, keep_elsewhere
from shared.dicom.transcode import transcoded
from tests.data import build
from tests.unit.destinations.received import outgoing

MOST = 100_000
PIECES = [bytes([n]) * 33_000 for n in range(9)]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[FolderObjectStore]:
    store = FolderObjectStore(tmp_path / "objects")
    keep_elsewhere(store, MOST)
    yield store
    keep_elsewhere(None, 0)


def kept(store: FolderObjectStore) -> list[str]:
    return list(store.list(ELSEWHERE_PREFIX))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_all_bytes_are_there_wherever_they_are(elsewhere: FolderObjectStore, count: int) -> None:
    data = b"".join(PIECES[:count])
    file = TemporaryFile(PIECES[:count])
    assert len(kept(elsewhere)) == (len(data) > MOST)
    assert (file.fileno() is None) == (len(data) > MOST)
    assert file.size == len(data)
    assert b"".join(file.stream()) == data
    assert b"".join(file.stream(40_000, 50_000)) == data[40_000:90_000]
    for offset, length in ((0, 8), (5, 70_000), (32_999, 2), (len(data) - 3, 10), (0, 1 << 20)):
        assert file.read_at(max(0, offset), length) == data[max(0, offset) :][:length]


def test_nothing_is_left_once_nobody_refers_to_it(elsewhere: FolderObjectStore) -> None:
    file = TemporaryFile(PIECES)
    assert kept(elsewhere)
    del file
    gc.collect()
    assert kept(elsewhere) == []


def test_nothing_is_left_of_what_could_not_be_made(elsewhere: FolderObjectStore) -> None:
    def broken() -> Iterator[bytes]:
        yield from PIECES
        raise ValueError

    with pytest.raises(ValueError):
        TemporaryFile(broken())
    assert kept(elsewhere) == []


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99"])
def test_an_instance_that_is_larger_is_transcoded_there_and_back(
    elsewhere: FolderObjectStore, tmp_path: Path, uid: str
) -> None:
    """From a reader without a file, as a bucket's is."""
    (tmp_path / "in").mkdir()
    data = build.ct(400, 400)
    native = outgoing(tmp_path / "in", data, has_descriptor=False)
    once = transcoded(native, uid, asked_by="test")
    there = b"".join(chunks(once.part10_parts()))
    back = transcoded(
        outgoing(tmp_path / "in", there, has_descriptor=False),
        "1.2.840.10008.1.2.1",
        asked_by="test",
    )
    path = tmp_path / "back.dcm"
    path.write_bytes(b"".join(chunks(back.part10_parts())))
    received = tmp_path / "received.dcm"
    received.write_bytes(data)
    before, after = pydicom.dcmread(received), pydicom.dcmread(path)
    assert np.array_equal(before.pixel_array, after.pixel_array)
