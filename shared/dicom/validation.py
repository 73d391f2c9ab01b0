"""Is this an Instance that can be routed? Checks of structure, which never decode.

`check_received` refuses, while the sender waits, what the header and the size show to be wrong;
`validate` finds everything, the Body included, and `raise_if_rejected` applies the configured
severities to what was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from shared.dicom.header import Header
from shared.dicom.paths import format_tag
from shared.dicom.validation_body import (
    UNDEFINED_LENGTH,
    ElementStart,
    Seen,
    body_findings,
    parse_element_start,
    pixel_element_findings,
)
from shared.dicom.validation_findings import DEFAULT_SEVERITIES, Finding, Severity
from shared.dicom.validation_identity import (
    element_findings,
    identity_findings,
    is_media_directory,
    mismatches,
)
from shared.dicom.validation_pixels import (
    DOUBLE_FLOAT_PIXEL_DATA,
    FLOAT_PIXEL_DATA,
    PIXEL_DATA,
    PIXEL_KEYWORDS,
    Image,
    is_encapsulated,
)
from shared.errors import (
    InvalidInstanceError,
    PermanentError,
    SopInstanceMismatchError,
    TruncatedInstanceError,
)
from shared.ports import ObjectReader

__all__ = [
    "DEFAULT_SEVERITIES",
    "Finding",
    "Severity",
    "check_received",
    "raise_if_rejected",
    "validate",
]

_NO_OVERRIDES: Mapping[str, Severity] = MappingProxyType({})
# What deflate can make of one byte, at the most (zlib's own bound).
_MAX_INFLATION = 1032


def check_received(
    header: Header,
    size: int,
    severities: Mapping[str, Severity] = _NO_OVERRIDES,
    *,
    body_start: bytes = b"",
) -> None:
    """Refuse what the sender must not be told Success for. Cheap: nothing is read.

    `size` is that of the received file. `body_start` are its first 12 bytes from
    `header.body_offset` on, as they were received; without them the length of native Pixel Data is
    taken from the image's Attributes. `severities` override the defaults.

    Raises: SopInstanceMismatchError, TruncatedInstanceError, InvalidInstanceError.
    """

    def rejects(code: str) -> bool:
        return severities.get(code, DEFAULT_SEVERITIES[code]) == Severity.REJECT

    if not is_media_directory(header):
        for mismatch in mismatches(header):
            if rejects(mismatch.kind.code):
                raise SopInstanceMismatchError(
                    mismatch.keyword, mismatch.in_meta, mismatch.in_data_set
                )
    raise_if_rejected(identity_findings(header), severities)
    image = Image.of(header)
    start = None if header.is_deflated else _element_start(header, body_start)
    if rejects("pixel-data-truncated") and (error := _truncation(header, size, image, start)):
        raise error
    if start is not None and start.tag in PIXEL_KEYWORDS:
        pixels = pixel_element_findings(start, image, header.transfer_syntax_uid)
        raise_if_rejected(pixels, severities)


def validate(header: Header, reader: ObjectReader, seen: Seen | None = None) -> tuple[Finding, ...]:
    """Everything that is wrong, the worst of it and the rest, in the order of the file; `seen` is
    told what else the walk met with.

    Reads the starts of Data Elements and Items of the Body, not what they hold; a deflated file is
    inflated to its end, a window at a time. Raises what `reader` raises.
    """
    identity = tuple(identity_findings(header))
    if is_media_directory(header):
        return identity
    return (*identity, *element_findings(header), *body_findings(header, reader, seen or Seen()))


def raise_if_rejected(
    findings: Iterable[Finding], severities: Mapping[str, Severity] = _NO_OVERRIDES
) -> tuple[Finding, ...]:
    """The findings to warn of. `severities` override the defaults.

    Raises: InvalidInstanceError with every finding that rejects.
    """
    rejected, warned = list[Finding](), list[Finding]()
    for finding in findings:
        severity = severities.get(finding.code, DEFAULT_SEVERITIES[finding.code])
        if severity == Severity.REJECT:
            rejected.append(finding)
        elif severity == Severity.WARN:
            warned.append(finding)
    if rejected:
        raise InvalidInstanceError(*map(str, rejected))
    return tuple(warned)


def _element_start(header: Header, data: bytes) -> ElementStart | None:
    return parse_element_start(
        data, is_implicit_vr=header.is_implicit_vr, is_little_endian=header.is_little_endian
    )


def _truncation(
    header: Header, size: int, image: Image, start: ElementStart | None
) -> PermanentError | None:
    """What the received size shows about the length of native Pixel Data."""
    if header.is_deflated:
        expected = image.native_length(PIXEL_DATA) or 0
        room = size * _MAX_INFLATION
        return TruncatedInstanceError("PixelData", expected, size) if expected > room else None
    received = size - header.body_offset
    if received <= 0:
        return None
    if start is not None:
        received -= start.size
        if start.length == UNDEFINED_LENGTH or start.length <= received or not start.tag:
            return None
        return TruncatedInstanceError(format_tag(start.tag), start.length, received)
    if is_encapsulated(header.transfer_syntax_uid) is not False:
        return None
    tags = (PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA)
    lengths = [length for tag in tags if (length := image.native_length(tag)) is not None]
    received -= 8 if header.is_implicit_vr else 12
    # Pixel Data that is there and empty is no truncation: some de-identify that way.
    if received > 0 and lengths and min(lengths) > received:
        return TruncatedInstanceError("PixelData", min(lengths), received)
    return None
