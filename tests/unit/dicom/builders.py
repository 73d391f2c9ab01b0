"""Part 10 bytes spelled out field by field, for tests that must know every byte."""

from __future__ import annotations

import struct
import zlib

from shared.dicom.values import LONG_VRS

EXPLICIT_LE = "1.2.840.10008.1.2.1"
IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
UNDEFINED = 0xFFFFFFFF

SOP_CLASS_UID = "1.2.840.10008.5.1.4.1.1.2"
SOP_INSTANCE_UID = "1.2.826.0.1.3680043.9.1"


class Builder:
    """Encodes Data Elements in one Transfer Syntax."""

    def __init__(self, transfer_syntax_uid: str = EXPLICIT_LE) -> None:
        self.transfer_syntax_uid = transfer_syntax_uid
        self.order = ">" if transfer_syntax_uid == EXPLICIT_BE else "<"
        self.implicit = transfer_syntax_uid == IMPLICIT_LE

    def element(self, tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
        """One Data Element; `length` claims another length than the value has."""
        size = len(value) if length is None else length
        head = struct.pack(self.order + "HH", tag >> 16, tag & 0xFFFF)
        if self.implicit:
            return head + struct.pack(self.order + "L", size) + value
        head += vr.encode()
        if vr in LONG_VRS:
            return head + struct.pack(self.order + "xxL", size) + value
        return head + struct.pack(self.order + "H", size) + value

    def item(self, *elements: bytes, undefined: bool = False) -> bytes:
        """One Item with its delimiter if it has no length."""
        value = b"".join(elements)
        head = struct.pack(
            self.order + "HHL", 0xFFFE, 0xE000, UNDEFINED if undefined else len(value)
        )
        return head + value + (self.delimiter(0xE00D) if undefined else b"")

    def sequence(self, tag: int, *items: bytes, undefined: bool = False, vr: str = "SQ") -> bytes:
        """A Sequence with its delimiter if it has no length."""
        value = b"".join(items)
        if undefined:
            return self.element(tag, vr, value, UNDEFINED) + self.delimiter(0xE0DD)
        return self.element(tag, vr, value)

    def delimiter(self, element: int) -> bytes:
        """An Item or Sequence Delimitation Item."""
        return struct.pack(self.order + "HHL", 0xFFFE, element, 0)

    def file(self, *elements: bytes, meta: bytes | None = None) -> bytes:
        """A Part 10 file with these Data Elements as its data set."""
        data_set = b"".join(elements)
        if self.transfer_syntax_uid == DEFLATED_LE:
            deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            data_set = deflater.compress(data_set) + deflater.flush()
        return b"\0" * 128 + b"DICM" + (meta or self.meta()) + data_set

    def meta(self) -> bytes:
        """File Meta Information with a right group length."""
        explicit = Builder()
        elements = (
            explicit.element(0x00020001, "OB", b"\x00\x01")
            + explicit.element(0x00020002, "UI", padded(SOP_CLASS_UID, b"\0"))
            + explicit.element(0x00020003, "UI", padded(SOP_INSTANCE_UID, b"\0"))
            + explicit.element(0x00020010, "UI", padded(self.transfer_syntax_uid, b"\0"))
            + explicit.element(0x00020012, "UI", b"1.2.3\0")
        )
        return explicit.element(0x00020000, "UL", struct.pack("<L", len(elements))) + elements


def padded(text: str, padding: bytes = b" ") -> bytes:
    """The text in ASCII, of even length."""
    value = text.encode()
    return value + padding * (len(value) % 2)


def small_instance(
    builder: Builder, *extra: bytes, pixels: bytes = b"\1\2\3\4", after: bytes = b""
) -> bytes:
    """UIDs, a name, then `extra`, then Pixel Data, then `after`."""
    return builder.file(
        builder.element(0x00080016, "UI", padded(SOP_CLASS_UID, b"\0")),
        builder.element(0x00080018, "UI", padded(SOP_INSTANCE_UID, b"\0")),
        builder.element(0x00080060, "CS", b"CT"),
        builder.element(0x00100010, "PN", b"Doe^Jane"),
        builder.element(0x00100020, "LO", b"ID42"),
        *extra,
        builder.element(0x7FE00010, "OW", pixels),
        after,
    )


class BytesReader:
    """An ObjectReader over bytes that remembers how much was read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.name, self.size, self.bytes_read = "object", len(data), 0

    def read_at(self, offset: int, length: int) -> bytes:
        piece = self._data[offset : offset + length]
        self.bytes_read += len(piece)
        return piece

    def stream(self, offset: int = 0, length: int | None = None):  # type: ignore[no-untyped-def]
        end = None if length is None else offset + length
        yield self._data[offset:end]

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        return None

    def __enter__(self) -> BytesReader:
        return self

    def __exit__(self, *_: object) -> None:
        return None
