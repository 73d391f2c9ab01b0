"""A part of a file is appended as it is, wherever it lies in either file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.adapters.destinations.file_copy import append_range

DATA = os.urandom(3 * (1 << 20) + 17)


@pytest.mark.parametrize("before", [0, 1, 4096, 10_324], ids=lambda size: f"after {size}")
@pytest.mark.parametrize("offset", [0, 1, 4096, 10_325], ids=lambda offset: f"from {offset}")
def test_the_bytes_arrive_after_what_is_there(tmp_path: Path, before: int, offset: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(DATA)
    length = len(DATA) - offset - 5
    with source.open("rb") as received, target.open("xb", buffering=0) as file:
        file.write(bytes(before))
        append_range(received.fileno(), offset, length, file.fileno())
    assert target.read_bytes() == bytes(before) + DATA[offset : offset + length]


@pytest.mark.parametrize("length", [0, 1, len(DATA) - 10_324], ids=lambda length: f"{length} bytes")
@pytest.mark.parametrize("head", [0, 1, 6_228, 2 << 20], ids=lambda size: f"{size} before them")
def test_what_comes_before_them_is_appended_with_them(
    tmp_path: Path, head: int, length: int
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(DATA)
    with source.open("rb") as received, target.open("xb", buffering=0) as file:
        file.write(bytes(4096))
        append_range(received.fileno(), 10_324, length, file.fileno(), b"h" * head)
    assert target.read_bytes() == bytes(4096) + b"h" * head + DATA[10_324 : 10_324 + length]


@pytest.mark.parametrize("before", [0, 1], ids=["in the kernel", "through memory"])
def test_a_file_that_is_shorter_than_it_was_is_an_error(tmp_path: Path, before: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(DATA)
    with source.open("rb") as received, target.open("xb", buffering=0) as file:
        file.write(bytes(before))
        with pytest.raises(OSError, match="shorter"):
            append_range(received.fileno(), 0, len(DATA) + 1, file.fileno())


def test_nothing_is_appended_of_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(DATA)
    with source.open("rb") as received, target.open("xb", buffering=0) as file:
        append_range(received.fileno(), 3, 0, file.fileno())
    assert target.read_bytes() == b""
