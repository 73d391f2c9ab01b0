"""Values to bytes and back, by VR."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.dicom.character_sets import DEFAULT
from shared.dicom.values import Value, decode, encode

VALUES: dict[str, st.SearchStrategy[Value]] = {
    "US": st.integers(0, 2**16 - 1),
    "SS": st.integers(-(2**15), 2**15 - 1),
    "UL": st.integers(0, 2**32 - 1),
    "SL": st.integers(-(2**31), 2**31 - 1),
    "UV": st.integers(0, 2**64 - 1),
    "SV": st.integers(-(2**63), 2**63 - 1),
    "FL": st.floats(width=32, allow_nan=False),
    "FD": st.floats(allow_nan=False),
    "CS": st.from_regex(r"[A-Z0-9_][A-Z0-9 _]{0,14}[A-Z0-9_]", fullmatch=True),
    "UI": st.from_regex(r"[1-9][0-9]{0,5}(\.[1-9][0-9]{0,5}){1,4}", fullmatch=True),
    "DA": st.dates().map(lambda day: day.strftime("%Y%m%d").rjust(8, "0")),
    "IS": st.integers(-(2**31), 2**31 - 1).map(str),
    "AT": st.integers(0, 2**32 - 1).map(lambda tag: f"({tag >> 16:04X},{tag & 0xFFFF:04X})"),
}


@pytest.mark.parametrize("vr", VALUES)
@pytest.mark.parametrize("is_little_endian", [True, False])
@given(data=st.data())
@settings(deadline=None, max_examples=40, derandomize=True)
def test_values_survive(vr: str, is_little_endian: bool, data: st.DataObject) -> None:
    values = tuple(data.draw(st.lists(VALUES[vr], max_size=4)))
    raw = encode(vr, values, is_little_endian, DEFAULT)
    assert len(raw) % 2 == 0
    assert decode(vr, raw, is_little_endian, DEFAULT) == values


@given(number=st.floats(-1e300, 1e300) | st.integers(-(10**40), 10**40))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_a_number_fits_a_decimal_string(number: int | float) -> None:
    (text,) = decode("DS", encode("DS", (number,), True, DEFAULT), True, DEFAULT)
    assert isinstance(text, str)
    assert len(text) <= 16
    assert float(text) == pytest.approx(number, rel=1e-8)


@given(vr=st.sampled_from([*VALUES, "LO", "PN", "UT", "DS", "OB", "UN"]), raw=st.binary())
@settings(deadline=None, max_examples=300, derandomize=True)
def test_any_bytes_decode_to_something(vr: str, raw: bytes) -> None:
    assert isinstance(decode(vr, raw, True, DEFAULT), tuple)


def test_bytes_that_are_no_values_come_back_as_bytes() -> None:
    assert decode("US", b"abc", True, DEFAULT) == (b"abc",)
    assert decode("AT", b"abc", True, DEFAULT) == (b"abc",)


def test_padding_is_no_value() -> None:
    assert decode("LO", b"  ", True, DEFAULT) == ()
    assert decode("UI", b"1.2\0", True, DEFAULT) == ("1.2",)
    assert decode("LO", b"A \\ B ", True, DEFAULT) == ("A", " B")
    assert decode("AE", b" A ", True, DEFAULT) == ("A",)
    assert decode("LT", b"a\\b ", True, DEFAULT) == ("a\\b",)


def test_text_does_for_numbers_and_numbers_for_text() -> None:
    assert encode("US", ("12",), True, DEFAULT) == struct.pack("<H", 12)
    assert encode("FD", ("0.5",), True, DEFAULT) == struct.pack("<d", 0.5)
    assert encode("IS", (12,), True, DEFAULT) == b"12"
    assert encode("DS", (0.1,), True, DEFAULT) == b"0.1 "
    assert encode("AT", (0x00100020,), True, DEFAULT) == b"\x10\x00\x20\x00"


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("US", "1_0"),
        ("US", 1.5),
        ("US", -1),
        ("FL", 1e39),
        ("DS", float("nan")),
        ("DS", 10**400),
        ("FD", 10**400),
        ("OW", b"abc"),
        ("OB", "text"),
        ("LO", b"bytes"),
        ("UR", "two words"),
        ("TM", "24"),
        ("DT", "20261231235960.1234567"),
        ("AS", "12M "),
        ("PN", "x" * 65),
        ("LT", "x" * 10241),
    ],
)
def test_what_breaks_a_vr_is_refused(vr: str, value: Value) -> None:
    with pytest.raises(ValueError):
        encode(vr, (value,), True, DEFAULT)


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("TM", "23"),
        ("TM", "235960.5"),
        ("DT", "2026"),
        ("DT", "20260102030405.123456-0500"),
        ("AS", "012M"),
        ("UI", "0"),
        ("ST", "two\r\nlines"),
        ("UR", "https://example.org/?a=b"),
        ("UC", "x" * 100_000),
    ],
)
def test_what_keeps_it_is_written(vr: str, value: Value) -> None:
    assert decode(vr, encode(vr, (value,), True, DEFAULT), True, DEFAULT) == (value,)
