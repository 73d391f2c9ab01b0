"""Data Elements that stand in the Body beside Pixel Data: private ones and signatures, mostly.

Rules see the Header alone, so they neither read nor set these; they can have them left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from shared.dicom.changes import Change
from shared.dicom.paths import AttributePath


class BodyElement(Struct, frozen=True, array_like=True):
    """One of them; `start` and `end` count bytes as the Header's `body_offset` does."""

    tag: int
    start: int
    end: int


def leaving_out(tag: int, *, by: str) -> Change:
    """The Change that has it left out. No Header shows it, and its Values were not read."""
    return Change(
        path=str(AttributePath.of_tag(tag)),
        vr="UN",
        old=(),
        new=None,
        old_element=None,
        new_element=None,
        by=by,
    )


def is_of_body(change: Change) -> bool:
    """True for what `leaving_out` makes."""
    return change.old_element is None and change.new_element is None


def left_out(elements: Iterable[BodyElement], changes: Iterable[Change]) -> tuple[BodyElement, ...]:
    """Those that the Changes have left out, and the lengths of their groups, which would be wrong
    then (PS3.5 7.2).
    """
    paths = {change.path for change in changes if is_of_body(change)}
    if not paths:
        return ()
    known = tuple(elements)
    tags = {each.tag for each in known if str(AttributePath.of_tag(each.tag)) in paths}
    tags |= {tag & 0xFFFF0000 for tag in tags}
    return tuple(each for each in known if each.tag in tags)


def kept_ranges(start: int, end: int, cut: Iterable[BodyElement]) -> Iterator[tuple[int, int]]:
    """Offset and length of what is left between two offsets, in order."""
    for element in sorted(cut, key=lambda each: each.start):
        if element.start > start:
            yield start, element.start - start
        start = max(start, element.end)
    if end > start:
        yield start, end - start


def without(pieces: Iterable[bytes], start: int, cut: Iterable[BodyElement]) -> Iterator[bytes]:
    """The bytes of a stream that begins at the offset `start`, but for those elements."""
    position = start
    ahead = sorted(cut, key=lambda each: each.start)
    for piece in pieces:
        end = position + len(piece)
        for offset, length in kept_ranges(position, end, (e for e in ahead if e.start < end)):
            yield piece[offset - position : offset - position + length]
        position = end
