"""Whatever a sender does to a file, validation answers in time, with findings or our errors."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.dicom.header import read_header
from shared.dicom.validation import DEFAULT_SEVERITIES, Finding, check_received, validate
from shared.errors import AxiomError
from tests.data import build
from tests.unit.dicom.builders import BytesReader

GOOD = (
    build.ct(4, 4),
    build.ct(4, 4, transfer_syntax_uid=build.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
    build.ct(
        4,
        4,
        transfer_syntax_uid=build.RLE_LOSSLESS,
        changes={
            0x00280008: build.element(0x00280008, "IS", "3"),
            build.PIXEL_DATA: build.encapsulated(
                b"ab", b"cdef", b"gh", offset_table=b"\0\0\0\0\x0a\0\0\0\x16\0\0\0"
            )
            + build.sequence(0xFFFAFFFA, build.sequence(0x04000401, b""), undefined_length=True),
        },
    ),
    *map(
        build.pydicom_file,
        (
            "MR_small_bigendian.dcm",
            "MR_small_implicit.dcm",
            "SC_rgb_rle_2frame.dcm",
            "liver_1frame.dcm",
            "nested_priv_SQ.dcm",
            "test-SR.dcm",
        ),
    ),
)

files = st.sampled_from(GOOD)
FEW = settings(deadline=2000, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def inspect(data: bytes) -> tuple[Finding, ...] | AxiomError:
    """What a stage sees of these bytes; any other exception is a bug."""
    reader = BytesReader(data)
    try:
        header = read_header(reader)
        findings = validate(header, reader)
    except AxiomError as error:
        return error
    for start in (b"", data[header.body_offset : header.body_offset + 12]):
        with suppress(AxiomError):
            check_received(header, len(data), body_start=start)
    assert all(finding.code in DEFAULT_SEVERITIES for finding in findings)
    assert len(findings) < 40
    return findings


@FEW
@given(files, st.data())
def test_a_cut_anywhere_is_answered(whole: bytes, data: st.DataObject) -> None:
    inspect(whole[: data.draw(st.integers(0, len(whole)))])


@FEW
@given(files, st.data())
def test_flipped_bits_are_answered(whole: bytes, data: st.DataObject) -> None:
    flipped = bytearray(whole)
    positions = st.integers(132, len(whole) - 1)
    for position in data.draw(st.lists(positions, min_size=1, max_size=8)):
        flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    inspect(bytes(flipped))


@FEW
@given(files, st.data())
def test_lengths_that_lie_are_answered(whole: bytes, data: st.DataObject) -> None:
    """Four bytes of 0xFF claim 4 GB or an undefined length, wherever they fall."""
    position = data.draw(st.integers(132, len(whole) - 4))
    inspect(whole[:position] + b"\xff" * 4 + whole[position + 4 :])


@FEW
@given(files, st.binary(max_size=200))
def test_anything_after_the_end_is_answered(whole: bytes, junk: bytes) -> None:
    inspect(whole + junk)


@FEW
@given(st.binary(max_size=300))
def test_any_body_is_answered(body: bytes) -> None:
    """The Body is the sender's: every byte after the start of Pixel Data may be anything."""
    for pixels in (b"OB\0\0\xff\xff\xff\xff", b"OW\0\0\x00\x01\x00\x00"):
        start = b"\xe0\x7f\x10\x00" + pixels
        inspect(build.ct(4, 4, changes={build.PIXEL_DATA: start + body}))


@FEW
@given(st.lists(st.sampled_from([b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"])))
def test_any_nesting_of_items_is_answered(starts: list[bytes]) -> None:
    body = b"".join(start + b"\xff\xff\xff\xff" for start in starts)
    undefined = b"\xe1\x7f\x10\x10SQ\0\0\xff\xff\xff\xff"
    inspect(build.ct(4, 4) + undefined + body)
    inspect(build.ct(4, 4, changes={build.PIXEL_DATA: build.encapsulated()[:-8] + body}))
