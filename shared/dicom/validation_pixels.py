"""What the header says about Pixel Data: how long it should be, and in which form it comes."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from shared.dicom import validation_findings as kinds
from shared.dicom.header import Header
from shared.dicom.validation_findings import Finding

FLOAT_PIXEL_DATA = 0x7FE00008
DOUBLE_FLOAT_PIXEL_DATA = 0x7FE00009
PIXEL_DATA = 0x7FE00010
PIXEL_KEYWORDS = {
    FLOAT_PIXEL_DATA: "FloatPixelData",
    DOUBLE_FLOAT_PIXEL_DATA: "DoubleFloatPixelData",
    PIXEL_DATA: "PixelData",
}
_FLOAT_BITS = {FLOAT_PIXEL_DATA: 32, DOUBLE_FLOAT_PIXEL_DATA: 64}

_NATIVE_SYNTAXES = frozenset(
    {
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.1.99",  # deflated as a whole
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.20",  # Papyrus 3, retired
        "1.2.840.113619.5.2",  # GE: little endian with big endian pixels
    }
)
_ENCAPSULATED_PREFIXES = (
    "1.2.840.10008.1.2.1.98",
    "1.2.840.10008.1.2.4.",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.8.",  # each frame deflated
)
# The pixels are elsewhere: JPIP.
_REFERENCING_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (94, 95, 204, 205))
# MPEG2, MPEG-4 and HEVC, the fragmentable ones too: a stream, not frames (PS3.5 A.4.5 ff.).
_VIDEO_PREFIXES = tuple(f"1.2.840.10008.1.2.4.{n}" for n in range(100, 109))

# Samples for each 2 x 2 pixels where the chrominance is subsampled (PS3.3 C.7.6.3.1.2).
_SUBSAMPLED = {"YBR_FULL_422": 8, "YBR_PARTIAL_422": 8, "YBR_PARTIAL_420": 6}


def is_encapsulated(transfer_syntax_uid: str) -> bool | None:
    """True if the Transfer Syntax encapsulates Pixel Data; None if it is not one we know."""
    if transfer_syntax_uid in _NATIVE_SYNTAXES:
        return False
    return True if transfer_syntax_uid.startswith(_ENCAPSULATED_PREFIXES) else None


def is_video(transfer_syntax_uid: str) -> bool:
    """True if all frames are one stream, in as many fragments as the sender likes."""
    return transfer_syntax_uid.startswith(_VIDEO_PREFIXES)


def refers_to_pixels(header: Header) -> bool:
    """True if the Instance says where its pixels are instead of holding them."""
    return header.transfer_syntax_uid in _REFERENCING_SYNTAXES or "PixelDataProviderURL" in header


class Image(Struct, frozen=True):
    """The Attributes that fix the length of Pixel Data; None for absent, empty or no number."""

    rows: int | None
    columns: int | None
    samples_per_pixel: int | None
    bits_allocated: int | None
    frames: int | None  # 1 if Number of Frames is absent
    photometric_interpretation: str

    @classmethod
    def of(cls, header: Header) -> Image:
        """Read them from the header."""
        frames = number(header, "NumberOfFrames") if "NumberOfFrames" in header else 1
        try:
            photometric_interpretation = header.text("PhotometricInterpretation") or ""
        except ValueError:
            photometric_interpretation = ""
        return cls(
            rows=number(header, "Rows"),
            columns=number(header, "Columns"),
            samples_per_pixel=number(header, "SamplesPerPixel"),
            bits_allocated=number(header, "BitsAllocated"),
            frames=frames,
            photometric_interpretation=photometric_interpretation.strip(),
        )

    def native_length(self, tag: int) -> int | None:
        """Bytes of the native Pixel Data under `tag` without padding; None if unknown.

        Frames of single bits follow each other without a gap (PS3.5 8.1.1), so only the whole is
        rounded up to bytes.
        """
        if not self.rows or not self.columns or not self.frames:
            return None
        pixels = self.rows * self.columns * self.frames
        if tag in _FLOAT_BITS:
            return pixels * _FLOAT_BITS[tag] // 8
        if not self.samples_per_pixel or not self.bits_allocated:
            return None
        samples = pixels * self.samples_per_pixel
        if self.samples_per_pixel == 3 and self.photometric_interpretation in _SUBSAMPLED:
            samples = pixels * _SUBSAMPLED[self.photometric_interpretation] // 4
        return (samples * self.bits_allocated + 7) // 8

    def findings(self, tag: int) -> Iterator[Finding]:
        """What is missing to understand the Pixel Data under `tag`."""
        keyword = PIXEL_KEYWORDS[tag]
        for name, value in (("Rows", self.rows), ("Columns", self.columns)):
            if not value:
                yield kinds.IMAGE_SIZE_MISSING(name, f"{keyword} is there, but {name} is not")
        needed = {"NumberOfFrames": self.frames}
        if tag == PIXEL_DATA:
            needed |= {
                "SamplesPerPixel": self.samples_per_pixel,
                "BitsAllocated": self.bits_allocated,
            }
        for name, value in needed.items():
            if not value:
                yield kinds.IMAGE_ATTRIBUTE_MALFORMED(
                    name, f"{name} is missing or not a positive number"
                )


def number(header: Header, keyword: str) -> int | None:
    """The first Value as a whole number from 0; None if there is none or it is no such number."""
    try:
        values = header.values(keyword)
        if not values:
            return None
        value = values[0]
        if isinstance(value, bytes):  # VR UN
            ordered = value if header.is_little_endian else value[::-1]
            parsed = int.from_bytes(ordered, "little") if len(value) in (2, 4) else -1
        else:
            parsed = int(value)
    except (ValueError, OverflowError):
        return None
    return parsed if parsed >= 0 else None
