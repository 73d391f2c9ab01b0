"""The fast look for odd lengths sees what a walk over every Data Element sees."""

from __future__ import annotations

from pathlib import Path

import pydicom.data
import pytest

from shared.dicom.header import Header

_FILES = [
    path
    for path in sorted(Path(pydicom.data.__file__).with_name("test_files").glob("*.dcm"))
    if path.read_bytes()[128:132] == b"DICM" and path.stat().st_size < 1 << 20
][::4]


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_agrees_with_the_walk(path: Path) -> None:
    data = path.read_bytes()
    header = Header.parse(data, file_size=len(data))
    walked = any(
        (element.value_end - element.value_start) % 2 and element.vr != "SQ"
        for _, element in header.walk()
    )
    assert header.data_set.has_even_lengths() == (not walked)


def test_sees_an_odd_length_at_any_depth() -> None:
    even = b"\x08\x00\x60\x00CS\x02\x00CT"
    odd = b"\x08\x00\x60\x00CS\x03\x00CT "
    for inner, expected in ((even, True), (odd, False)):
        item = b"\xfe\xff\x00\xe0" + len(inner).to_bytes(4, "little") + inner
        sequence = b"\x08\x00\x15\x11SQ\0\0" + len(item).to_bytes(4, "little") + item
        meta = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
        data = bytes(128) + b"DICM" + meta + sequence
        header = Header.parse(data, file_size=len(data))
        assert header.data_set.has_even_lengths() is expected
