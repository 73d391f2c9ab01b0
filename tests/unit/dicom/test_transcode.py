"""What leaves in another Transfer Syntax is the same Instance, pixel for pixel."""

from __future__ import annotations

import io
import shutil
import subprocess
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.pixels.utils import pixel_array

from shared.dicom.header import read_header
from shared.dicom.outgoing import OutgoingInstance, chunks
from shared.dicom.transcode import transcoded
from shared.dicom.transfer_syntaxes import COMPRESSED, NATIVE, TARGETS
from shared.errors import AxiomError, CannotTranscodeError
from tests.data import build
from tests.unit.destinations.received import ReceivedFile, outgoing

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
RLE, JPEG_LS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80"
JPEG_2000, HTJ2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"
# Of every way to encode pixels that a codec reads, and of every colour.
FILES = (
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_jpeg_gdcm.dcm",  # lossless JPEG
    "examples_palette.dcm",
    "image_dfl.dcm",
)


def instance_of(data: bytes, folder: Path, **options: Any) -> OutgoingInstance:
    return outgoing(folder, data, **options)


def made(data: bytes, target: str, folder: Path, **options: Any) -> bytes:
    instance = transcoded(instance_of(data, folder, **options), target, asked_by="a test")
    return b"".join(chunks(instance.part10_parts()))


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def pixels(data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pixel_array(read(data), raw=True)


def attributes(data: bytes) -> dict[int, str]:
    """All but pixels, group lengths and how colours are laid out, which follows the pixels."""
    changes = (0x7FE00010, 0x00280006)
    return {
        element.tag: str(element.value)
        for element in read(data)
        if element.tag not in changes and element.tag & 0xFFFF
    }


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("name", FILES)
def test_pixels_and_attributes_stay_as_they_were(name: str, target: str, tmp_path: Path) -> None:
    data = build.pydicom_file(name)
    result = made(data, target, tmp_path)
    assert read(result).file_meta.TransferSyntaxUID == target
    # Tables of numbers are bytes to pydicom, and in the other order there.
    if target != BIG_ENDIAN:
        assert attributes(result) == attributes(data)
    if name != "SC_rgb_jpeg_gdcm.dcm":  # pydicom has no codec of lossless JPEG here
        assert np.array_equal(pixels(result), pixels(data))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_same_instance_gives_the_same_bytes(target: str, tmp_path: Path) -> None:
    data = build.pydicom_file("MR_small_RLE.dcm")
    once = made(data, target, tmp_path)
    assert once == made(data, target, tmp_path)
    assert once == made(data, target, tmp_path, has_descriptor=False)


@pytest.mark.parametrize("target", sorted(NATIVE | COMPRESSED))
def test_there_and_back_is_the_same_data_set(target: str, tmp_path: Path) -> None:
    data = build.mr()
    there = made(data, target, tmp_path)
    back = instance_of(there, tmp_path)
    result = transcoded(back, EXPLICIT, asked_by="a test")
    original = instance_of(data, tmp_path)
    assert b"".join(chunks(result.data_set_parts())) == b"".join(chunks(original.data_set_parts()))


def test_sequences_private_blocks_and_what_follows_pixel_data_come_along(tmp_path: Path) -> None:
    trailing = build.element(0xFFFCFFFC, "OB", bytes(6))
    data = build.ct() + trailing
    for target in sorted(TARGETS):
        result = read(made(data, target, tmp_path))
        assert result[0xFFFCFFFC].value == bytes(6)
        assert result.ReferencedImageSequence[0].ReferencedSOPInstanceUID == build.uid("referenced")
        block = result.private_block(0x0029, "AXIOM TEST B")
        if target != IMPLICIT:  # where nothing says that it is a Sequence
            assert block[0x02].value[0].CodeMeaning == "nested"


def test_a_value_too_long_for_its_vr_becomes_unknown(tmp_path: Path) -> None:
    header = read_header(ReceivedFile(_implicit(tmp_path, "LO", b"x" * 70_000)))
    data = made(_implicit(tmp_path, "LO", b"x" * 70_000).read_bytes(), EXPLICIT, tmp_path)
    assert header.element("00080104") is not None
    assert read(data)[0x00080104].value in ("x" * 70_000, b"x" * 70_000)
    again = read_header(ReceivedFile(_kept(tmp_path, data))).element("00080104")
    assert again is not None
    assert again.encoded_vr == "UN"


def _implicit(folder: Path, vr: str, value: bytes) -> Path:
    import struct

    plain = made(build.ct(), IMPLICIT, folder)
    start = plain.index(bytes.fromhex("08001600"))
    element = struct.pack("<HHL", 0x0008, 0x0104, len(value)) + value
    at = plain.index(bytes.fromhex("08004011"), start)
    return _kept(folder, plain[:at] + element + plain[at:])


def _kept(folder: Path, data: bytes) -> Path:
    path = folder / f"kept-{len(list(folder.iterdir()))}"
    path.write_bytes(data)
    return path


def test_without_pixel_data_there_is_nothing_to_compress(tmp_path: Path) -> None:
    instance = instance_of(build.pydicom_file("test-SR.dcm"), tmp_path)
    assert transcoded(instance, JPEG_2000, asked_by="a test") is instance
    assert transcoded(instance, IMPLICIT, asked_by="a test").transfer_syntax_uid == IMPLICIT


def test_lossy_jpeg_becomes_rgb_and_stays_marked_as_lossy(tmp_path: Path) -> None:
    result = read(made(build.pydicom_file("SC_rgb_jpeg_dcmtk.dcm"), EXPLICIT, tmp_path))
    assert result.PhotometricInterpretation == "RGB"
    assert result.PlanarConfiguration == 0
    assert result.LossyImageCompression == "01"
    assert len(result.PixelData) == 100 * 100 * 3


def test_each_frame_is_a_fragment_and_the_offset_table_tells_where(tmp_path: Path) -> None:
    data = build.pydicom_file("SC_rgb_rle_2frame.dcm")
    result = read(made(data, JPEG_LS, tmp_path))
    table, frames = pydicom.encaps.parse_basic_offsets, pydicom.encaps.generate_fragments
    assert len(table(result.PixelData)) == 2
    assert len(list(frames(result.PixelData))) == 3  # the table is the first


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("liver_1frame.dcm", RLE, "Bits Allocated is 1"),
        ("SC_ybr_full_422_uncompressed.dcm", RLE, "subsampled"),
        ("rtdose_1frame.dcm", HTJ2K, "does not provide for 32 of 32 bits"),
        ("rtdose_1frame.dcm", BIG_ENDIAN, "understood in two ways"),
        ("MR_truncated.dcm", RLE, "cut short"),
        ("CT_small.dcm", "1.2.840.10008.1.2.4.50", "none that can be made here"),
    ],
)
def test_what_cannot_be_done_is_said(name: str, target: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(CannotTranscodeError, match=reason) as raised:
        made(build.pydicom_file(name), target, tmp_path)
    assert "a test asks to transcode from" in str(raised.value)


def test_bits_above_bits_stored_are_not_lost(tmp_path: Path) -> None:
    """An overlay may be in them, which a codec of 12 bits would drop."""
    stored = build.element(0x00280101, "US", b"\x0c\x00")
    data = build.ct(
        64, 64, changes={0x00280101: stored}
    )  # 12 of 16 bits, and the pixels have all 16
    assert np.array_equal(pixels(made(data, RLE, tmp_path)), pixels(data))
    with pytest.raises(CannotTranscodeError, match="not equal to the original"):
        made(data, JPEG_2000, tmp_path)


@pytest.mark.parametrize("claim", [(0x00280010, b"\xff\xff"), (0x00280010, b"\x00\x00")])
def test_a_claimed_size_is_not_believed(claim: tuple[int, bytes], tmp_path: Path) -> None:
    tag, value = claim
    data = build.ct(changes={tag: build.element(tag, "US", value)})
    with pytest.raises(CannotTranscodeError):
        made(data, JPEG_LS, tmp_path)


def test_memory_holds_frames_and_not_the_instance(tmp_path: Path) -> None:
    rows = columns = 256
    frames = 96
    frame = bytes(rows * columns * 2)
    number = build.element(0x00280008, "IS", str(frames))
    data = build.ct(rows, columns, changes={0x00280008: number})
    at = data.index(bytes.fromhex("e07f1000"))
    data = data[:at] + build.element(build.PIXEL_DATA, "OW", frame * frames)
    instance = instance_of(data, tmp_path)
    transcoded(instance, RLE, asked_by="a test")  # imports the codecs
    del data
    tracemalloc.start()
    try:
        for target in (RLE, BIG_ENDIAN, DEFLATED):
            result = transcoded(instance, target, asked_by="a test")
            sum(map(len, chunks(result.part10_parts())))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(frame) * frames / 2


COMPRESSED_FILES = ("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "JPEG-lossy.dcm")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(("CT_small.dcm", "priv_SQ.dcm", "UN_sequence.dcm", *COMPRESSED_FILES)),
    target=st.sampled_from(sorted(TARGETS)),
    at=st.floats(0, 1, exclude_max=True),
    noise=st.binary(min_size=1, max_size=8),
)
def test_broken_files_give_our_errors_or_something_readable(
    name: str, target: str, at: float, noise: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(build.pydicom_file(name))
    position = int(at * len(data))
    data[position : position + len(noise)] = noise
    try:
        result = made(bytes(data), target, tmp_path_factory.mktemp("broken"))
    except AxiomError:
        return
    assert result[128:132] == b"DICM"


@pytest.mark.peer("dcmtk")
@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmdump is not installed")
@pytest.mark.parametrize("target", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED, RLE, JPEG_LS])
def test_dcmtk_reads_the_same_pixels(target: str, tmp_path: Path) -> None:
    decoders = {RLE: "dcmdrle", JPEG_LS: "dcmdjpls"}
    for name in ("CT_small.dcm", "SC_rgb_rle_2frame.dcm", "examples_palette.dcm"):
        data = build.pydicom_file(name)
        path = _kept(tmp_path, made(data, target, tmp_path))
        decoded = tmp_path / "decoded.dcm"
        for command in (["dcmdump", str(path)], [decoders.get(target, "dcmconv"), "+te"]):
            files = [] if command[0] == "dcmdump" else [str(path), str(decoded)]
            done = subprocess.run([*command, *files], capture_output=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr
        assert np.array_equal(pixels(decoded.read_bytes()), pixels(data))
