"""CRC32C (Castagnoli) of what is sent and of what is stored, to tell two copies apart."""

from __future__ import annotations

from collections.abc import Iterable

import google_crc32c


def crc32c(pieces: Iterable[bytes]) -> str:
    """Of all the pieces together, as 8 hex digits."""
    crc = 0
    for piece in pieces:
        crc = google_crc32c.extend(crc, piece)
    return f"{crc:08X}"
