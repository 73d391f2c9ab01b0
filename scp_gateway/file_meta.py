"""The start of the received file: preamble and File Meta Information (PS3.10 7.1)."""

from __future__ import annotations

import struct

# From a random UUID (PS3.5 B.2): who wrote the file, the same in every version.
IMPLEMENTATION_CLASS_UID = "2.25.208404519253866398405470893563028914163"
IMPLEMENTATION_VERSION_NAME = "AXIOM_FLOW_0.1"

_PREAMBLE = b"\0" * 128 + b"DICM"
_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2sxxL")


def file_meta(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    source_ae_title: str,
) -> bytes:
    """All bytes of the file up to its data set."""
    elements = b"".join(
        (
            _LONG.pack(2, 0x0001, b"OB", 2) + b"\0\1",
            _element(0x0002, b"UI", sop_class_uid),
            _element(0x0003, b"UI", sop_instance_uid),
            _element(0x0010, b"UI", transfer_syntax_uid),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _element(0x0016, b"AE", source_ae_title) if source_ae_title else b"",
        )
    )
    return _PREAMBLE + _SHORT.pack(2, 0, b"UL", 4) + struct.pack("<L", len(elements)) + elements


def _element(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return _SHORT.pack(2, element, vr, len(value)) + value
