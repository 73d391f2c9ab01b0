"""Whether what a server stores is what we sent: compared while it streams in, never held whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from crc32c import crc32c as extended_crc32c
from msgspec import Struct

from shared.adapters.destinations.checksums import crc32c
from shared.adapters.destinations.multipart import first_part
from shared.dicom.outgoing import Part, chunks

# Preamble, prefix, and File Meta Information Group Length (PS3.10 7.1): 12 bytes that say how many
# bytes of File Meta follow them.
_GROUP_LENGTH_AT = 132
_META_AT = 144
_LONGEST_META_BYTES = 1 << 16
_PIECE_BYTES = 1 << 16


class Comparison(Struct, frozen=True):
    """CRC32Cs are of the data sets without File Meta, as 8 hex digits, or "unknown"."""

    are_equal: bool
    stored_crc32c: str
    sent_crc32c: str

    @classmethod
    def without_copy(cls, sent: Sequence[Part]) -> Self:
        """What can be said if the server does not show what it stores."""
        return cls(False, "unknown", crc32c(chunks(sent)))


def compare(retrieved: Iterable[bytes], content_type: str, sent: Sequence[Part]) -> Comparison:
    """Compare a retrieved Part 10 file, alone or the only part of a multipart, with a data set."""
    is_multipart = content_type.lower().startswith("multipart/")
    theirs = _Stream(_without_meta(first_part(retrieved) if is_multipart else iter(retrieved)))
    are_equal = True
    stored_crc = sent_crc = 0
    for ours in chunks(sent):
        stored = theirs.take(len(ours))
        are_equal = are_equal and stored == ours
        stored_crc = extended_crc32c(stored, stored_crc)
        sent_crc = extended_crc32c(ours, sent_crc)
    # After as many bytes as ours there is nothing, or the boundary that closes the multipart.
    ends_here = theirs.take(4) == (b"\r\n--" if is_multipart else b"")
    stored_text = f"{stored_crc:08X}" if ends_here else "unknown"
    return Comparison(are_equal and ends_here, stored_text, f"{sent_crc:08X}")


class _Stream:
    """Pieces of any size, taken by count."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._pending = bytearray()

    def take(self, count: int) -> bytes:
        """The next `count` bytes; fewer only at the end."""
        while len(self._pending) < count:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._pending += piece
        taken = bytes(self._pending[:count])
        del self._pending[:count]
        return taken


def _without_meta(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The data set of a Part 10 file; nothing if it has no File Meta that says how long it is."""
    stream = _Stream(pieces)
    head = stream.take(_META_AT)
    length = int.from_bytes(head[_META_AT - 4 :], "little")
    is_part10 = head[_GROUP_LENGTH_AT - 4 : _GROUP_LENGTH_AT + 4] == b"DICM\2\0\0\0"
    if not is_part10 or length > _LONGEST_META_BYTES:
        return
    stream.take(length)
    while piece := stream.take(_PIECE_BYTES):
        yield piece
