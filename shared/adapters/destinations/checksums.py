"""CRC32C (Castagnoli) of what is sent and of what is stored, to tell two copies apart."""

from __future__ import annotations

from collections.abc import Iterable

from crc32c import crc32c as extended_crc32c


def crc32c(pieces: Iterable[bytes]) -> str:
    """Of all the pieces together, as 8 hex digits."""
    crc = 0
    for piece in pieces:
        crc = extended_crc32c(piece, crc)
    return f"{crc:08X}"
