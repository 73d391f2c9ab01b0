"""Files that are the same Instance: their data sets are equal, whatever stands around them."""

from __future__ import annotations

import struct

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from shared.dicom.header import read_header
from shared.dicom.sameness import data_set_mark, followed_by
from shared.dicom.validation import validate
from shared.dicom.validation_body import Seen
from tests.data import build
from tests.unit.dicom.builders import BytesReader

PLAIN = build.ct()
PADDED = build.compressed()  # 138 bytes of padding, as some tool wrote it
COMPRESSED = PADDED[:-138]
WITHOUT_PIXELS = build.without(0x7FE00010)


def mark(data: bytes) -> str:
    reader, seen = BytesReader(data), Seen()
    header = read_header(reader)
    validate(header, reader, seen)
    return data_set_mark(header, reader, file_crc32c=crc32c(data), padding_start=seen.padding_start)


def padding(value: bytes) -> bytes:
    return struct.pack("<HH2sxxL", 0xFFFC, 0xFFFC, b"OB", len(value)) + value


def with_source_ae_title(data: bytes, ae_title: bytes) -> bytes:
    """(0002,0016) at the end of the File Meta Information, whose length grows."""
    (length,) = struct.unpack_from("<L", data, 140)
    value = ae_title + b" " * (len(ae_title) % 2)
    element = struct.pack("<HH2sH", 2, 0x16, b"AE", len(value)) + value
    end = 144 + length
    return (
        data[:140] + struct.pack("<L", length + len(element)) + data[144:end] + element + data[end:]
    )


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_crc_of_an_end_follows_from_those_of_the_whole_and_the_start(
    start: bytes, end: bytes
) -> None:
    assert crc32c(start + end) ^ followed_by(crc32c(start), len(end)) == crc32c(end)


def test_of_large_files_too() -> None:
    end = bytes(5_000_001)
    assert crc32c(b"start" + end) ^ followed_by(crc32c(b"start"), len(end)) == crc32c(end)


@pytest.mark.parametrize("data", [PLAIN, COMPRESSED, WITHOUT_PIXELS])
@given(value=st.binary(max_size=200), ae_title=st.binary(min_size=1, max_size=16))
def test_padding_and_file_meta_make_no_difference(
    data: bytes, value: bytes, ae_title: bytes
) -> None:
    even = value + b"\0" * (len(value) % 2)
    sent = with_source_ae_title(data, ae_title.hex().encode()[:16])
    assert mark(data) == mark(sent) == mark(data + padding(even)) == mark(sent + padding(even))


def test_padding_that_some_tool_wrote_makes_no_difference() -> None:
    assert mark(PADDED) == mark(COMPRESSED)
    assert struct.unpack_from("<HH", PADDED, len(COMPRESSED)) == (0xFFFC, 0xFFFC)


@pytest.mark.parametrize(
    "other",
    [
        PLAIN[:-1] + bytes([PLAIN[-1] ^ 1]),
        PLAIN + b"\0\0",  # no Data Element
        PLAIN + padding(b"\0\0") + b"\0",  # not to the end
        PLAIN + padding(b"\0\0")[:-1],
        PLAIN.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4\0"),
    ],
)
def test_all_else_makes_one(other: bytes) -> None:
    assert other != PLAIN
    assert mark(other) != mark(PLAIN)
