"""Frames of Pixel Data as arrays: read natively, decoded, and encoded without loss.

This imports the codecs: only the delivery of an Instance that is transcoded may import it.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder

from shared.dicom.header import Header

# A few hundred bytes can claim to be any frame.
MAX_FRAME_BYTES: Final = 1 << 28
# What codecs complain of is in the FrameError, and need not be in the log as well.
for _name in ("pydicom.pixels", "openjpeg"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_JPEG_2000_LOSSLESS: Final = "1.2.840.10008.1.2.4.90"
_HTJ2K_LOSSLESS: Final = "1.2.840.10008.1.2.4.201"
_JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"
_JPEG_EXTENDED: Final = "1.2.840.10008.1.2.4.51"
# Which of several codecs is asked: Pillow takes JPEG of 8 bits alone, and imagecodecs knows the
# lossless one too.
_PLUGINS: Final = {
    _JPEG_BASELINE: "pillow",
    _JPEG_EXTENDED: "imagecodecs",
    "1.2.840.10008.1.2.4.57": "imagecodecs",
    "1.2.840.10008.1.2.4.70": "imagecodecs",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.5": "pylibjpeg",
    _JPEG_2000_LOSSLESS: "pylibjpeg",
    _HTJ2K_LOSSLESS: "pylibjpeg",
    **{f"1.2.840.10008.1.2.4.{n}": "pylibjpeg" for n in (91, 202, 203)},
}
# They lose something whatever the pixels, and mostly keep colours as luminance and chrominance.
LOSSY_JPEG: Final = frozenset((_JPEG_BASELINE, _JPEG_EXTENDED))

Frame = NDArray[Any]


class FrameError(Exception):
    """These pixels cannot be decoded, or encoded without loss. The text holds no Values."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How Pixel Data is laid out (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples_per_pixel: int
    photometric_interpretation: str
    planar_configuration: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    number_of_frames: int

    @classmethod
    def of(cls, header: Header) -> Layout:
        """Raises: FrameError if an Attribute is missing, or is not what it may be."""
        layout = cls(
            rows=_number(header, "Rows"),
            columns=_number(header, "Columns"),
            samples_per_pixel=_number(header, "SamplesPerPixel", 1),
            photometric_interpretation=(header.text("PhotometricInterpretation") or "").strip(),
            planar_configuration=_number(header, "PlanarConfiguration", 0),
            bits_allocated=_number(header, "BitsAllocated"),
            bits_stored=_number(header, "BitsStored"),
            pixel_representation=_number(header, "PixelRepresentation", 0),
            number_of_frames=_number(header, "NumberOfFrames", 1) or 1,
        )
        if layout.bits_allocated not in (8, 16, 32):
            raise FrameError(f"Bits Allocated is {layout.bits_allocated}")
        if layout.samples_per_pixel not in (1, 3) or layout.pixel_representation not in (0, 1):
            raise FrameError("Samples per Pixel or Pixel Representation is none of the Standard's")
        if not 0 < layout.frame_bytes <= MAX_FRAME_BYTES:
            raise FrameError(f"a frame has {layout.frame_bytes} bytes")
        return layout

    @property
    def frame_bytes(self) -> int:
        return self.rows * self.columns * self.samples_per_pixel * self.bits_allocated // 8

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"<{'ui'[self.pixel_representation]}{self.bits_allocated // 8}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one frame, the samples of each pixel together."""
        several = (self.samples_per_pixel,) if self.samples_per_pixel > 1 else ()
        return (self.rows, self.columns, *several)

    def options(self) -> dict[str, Any]:
        """What the codecs ask for, for one frame with the samples of each pixel together."""
        options = {
            "rows": self.rows,
            "columns": self.columns,
            "samples_per_pixel": self.samples_per_pixel,
            "photometric_interpretation": self.photometric_interpretation,
            "bits_allocated": self.bits_allocated,
            "bits_stored": self.bits_stored,
            "pixel_representation": self.pixel_representation,
            "number_of_frames": 1,
        }
        if self.samples_per_pixel > 1:
            options["planar_configuration"] = 0
        return options


def native_frames(pieces: Iterable[bytes], layout: Layout) -> Iterator[Frame]:
    """Each frame of native Pixel Data, little endian. Raises: FrameError if one is missing."""
    if layout.photometric_interpretation in ("YBR_FULL_422", "YBR_PARTIAL_422"):
        raise FrameError(f"native pixels are subsampled: {layout.photometric_interpretation}")
    wanted = layout.frame_bytes
    pending = bytearray()
    left = layout.number_of_frames
    for piece in pieces:
        pending += piece
        while left and len(pending) >= wanted:
            yield _by_pixel(np.frombuffer(bytes(pending[:wanted]), layout.dtype), layout)
            del pending[:wanted]
            left -= 1
        if not left:
            return
    raise FrameError(f"{left} of {layout.number_of_frames} frames are missing")


def decoded_frames(
    encapsulated: BinaryIO, transfer_syntax_uid: str, layout: Layout
) -> Iterator[tuple[Frame, str]]:
    """Each frame of encapsulated Pixel Data, and its Photometric Interpretation.

    `encapsulated` stands at the start of the value. Raises: FrameError.
    """
    found = 0
    try:
        encoded = generate_frames(encapsulated, number_of_frames=layout.number_of_frames)
        for frame in encoded:
            found += 1
            if found > layout.number_of_frames:
                raise FrameError(f"there are more than {layout.number_of_frames} frames")
            yield decode(frame, transfer_syntax_uid, layout)
    except (ValueError, EOFError, struct.error):
        raise FrameError("the fragments of Pixel Data cannot be told apart") from None
    if found < layout.number_of_frames:
        missing = layout.number_of_frames - found
        raise FrameError(f"{missing} of {layout.number_of_frames} frames are missing")


def decode(encoded: bytes, transfer_syntax_uid: str, layout: Layout) -> tuple[Frame, str]:
    """One frame, and its Photometric Interpretation. Raises: FrameError."""
    plugin = _PLUGINS.get(transfer_syntax_uid)
    if plugin is None:
        raise FrameError("there is no codec for it here")
    if transfer_syntax_uid == _JPEG_EXTENDED and layout.bits_allocated == 8:
        plugin = "pillow"
    # A codestream that claims to be huge must not be believed.
    declared = _declared_size(encoded)
    if declared is not None and declared != (layout.rows, layout.columns):
        raise FrameError("a frame is of another size than Rows and Columns say")
    is_lossy = transfer_syntax_uid in LOSSY_JPEG
    options = layout.options()
    if transfer_syntax_uid not in _SIGN_CORRECTED:
        # Bits above Bits Stored are kept: an overlay may be in them.
        options["correct_unused_bits"] = False
    options.update(raw=not is_lossy, as_rgb=is_lossy)
    with _codec("decoded"):
        if plugin == "imagecodecs":
            frame, interpretation = _jpeg(encoded, layout), layout.photometric_interpretation
        else:
            frame, properties = get_decoder(transfer_syntax_uid).as_array(
                encapsulate([encoded], has_bot=False), decoding_plugin=plugin, **options
            )
            interpretation = str(properties["photometric_interpretation"])
    if frame.shape != layout.shape:
        raise FrameError("a frame is of another size than Rows and Columns say")
    return np.ascontiguousarray(frame, dtype=layout.dtype), interpretation


def encode(frame: Frame, transfer_syntax_uid: str, layout: Layout) -> bytes:
    """One frame without loss, which was made sure of by decoding it. Raises: FrameError."""
    native = frame.tobytes()
    interpretation = layout.photometric_interpretation
    options = layout.options()
    with _codec("encoded"):
        if transfer_syntax_uid == _HTJ2K_LOSSLESS:
            if layout.bits_allocated == 32 or interpretation not in _HTJ2K_COLOURS:
                raise _not_provided_for(layout)
            encoded = bytes(imagecodecs.htj2k_encode(frame, reversible=True, rgb=False))
        elif transfer_syntax_uid == _JPEG_2000_LOSSLESS and min(frame.shape[:2]) < _SMALL:
            # pylibjpeg asks for more resolutions than so small a frame can have.
            encoded = _small_jpeg_2000(frame, layout)
        else:
            encoder, plugin = get_encoder(transfer_syntax_uid), _PLUGINS[transfer_syntax_uid]
            try:
                encoded = bytes(encoder.encode(native, encoding_plugin=plugin, **options))
            except ValueError:  # pydicom's table of what PS3.5 8.2 allows
                raise _not_provided_for(layout) from None
    again, colours = decode(encoded, transfer_syntax_uid, layout)
    if again.tobytes() != native or colours != interpretation:
        raise FrameError("the encoded frame is not equal to the original when decoded")
    return encoded


_SMALL: Final = 32  # rows or columns
_SIGN_CORRECTED: Final = frozenset(
    f"1.2.840.10008.1.2.4.{n}" for n in (80, 81, 90, 91, 201, 202, 203)
)
_HTJ2K_COLOURS: Final = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL")


@contextmanager
def _codec(verb: str) -> Iterator[None]:
    """Codecs have no errors in common; a panic of one in Rust is not even an Exception."""
    try:
        yield
    except FrameError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise FrameError(f"a frame cannot be {verb} ({type(error).__name__})") from None


def _number(header: Header, keyword: str, default: int | None = None) -> int:
    values = header.values(keyword) or ()
    try:
        return int(values[0])
    except (IndexError, ValueError):
        if default is None:
            raise FrameError(f"{keyword} is missing") from None
        return default


def _by_pixel(samples: Frame, layout: Layout) -> Frame:
    """A frame whose samples of each pixel stand together, whatever Planar Configuration says."""
    if layout.samples_per_pixel == 1 or layout.planar_configuration == 0:
        return samples.reshape(layout.shape)
    planes = samples.reshape(layout.samples_per_pixel, layout.rows, layout.columns)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _jpeg(encoded: bytes, layout: Layout) -> Frame:
    """JPEG of more than 8 bits, or lossless, without any change of colours."""
    colours = "RGB" if layout.samples_per_pixel > 1 else None
    frame = np.asarray(imagecodecs.jpeg8_decode(encoded, colorspace=colours, outcolorspace=colours))
    is_signed = layout.pixel_representation == 1
    return frame.view(f"i{frame.dtype.itemsize}") if is_signed else frame


def _small_jpeg_2000(frame: Frame, layout: Layout) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(
            frame,
            level=0,
            codecformat="J2K",
            reversible=True,
            mct=False,
            resolutions=1,
            bitspersample=layout.bits_stored,
        )
    )


def _declared_size(encoded: bytes) -> tuple[int, int] | None:
    """Rows and columns by the codestream's own header; None if it has none that is known."""
    if encoded[:4] == b"\xff\x4f\xff\x51" and len(encoded) >= _SIZ_BYTES:  # JPEG 2000: SIZ
        width, height, left, top = struct.unpack_from(">LLLL", encoded, 8)
        return height - top, width - left
    position = 2
    while encoded[:2] == b"\xff\xd8" and position + 9 <= len(encoded):
        marker, length = struct.unpack_from(">HH", encoded, position)
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", encoded, position + 5)
            return height, width
        if marker == _FILL:
            position += 1
            continue
        position += 2 + length
    return None


_SIZ_BYTES: Final = 24
_FILL: Final = 0xFFFF
# SOF0 to SOF15, without DHT, JPG and DAC among them, and SOF55 of JPEG-LS.
_START_OF_FRAME: Final = (frozenset(range(0xFFC0, 0xFFD0)) - {0xFFC4, 0xFFC8, 0xFFCC}) | {0xFFF7}


def _not_provided_for(layout: Layout) -> FrameError:
    return FrameError(
        f"the Standard does not provide for {layout.bits_stored} of {layout.bits_allocated} bits, "
        f"{layout.samples_per_pixel} samples, {layout.photometric_interpretation[:16]}"
    )
