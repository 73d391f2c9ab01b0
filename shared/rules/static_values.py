"""Whether a Value that a rule always sets fits its Attribute, found out when the rule is read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from shared.dicom.edit import HeaderEdit
from shared.dicom.header import Header
from shared.dicom.paths import ANY_ITEM, AttributePath, Step
from shared.rules.actions import split_text


def check_literal(path: AttributePath, values: Sequence[str | int | float], vr: str | None) -> str:
    """Why the Values cannot be set, or "" if they can, tried on an empty data set in UTF-8."""
    steps = (
        Step(step.tag, step.creator, 0) if step.item == ANY_ITEM else step for step in path.steps
    )
    place = AttributePath(tuple(steps))
    texts: list[str | int | float] = []
    for value in values:
        texts += split_text(value, place, vr) if isinstance(value, str) else [value]
    try:
        HeaderEdit(_empty_header()).set(place, texts, vr=vr, by="check")
    except ValueError as error:
        return str(error)
    return ""


@lru_cache(maxsize=1)
def _empty_header() -> Header:
    """Explicit VR Little Endian, with nothing but the character set."""
    transfer_syntax = b"1.2.840.10008.1.2.1\0"
    meta = b"\x02\0\x10\0UI" + len(transfer_syntax).to_bytes(2, "little") + transfer_syntax
    length = b"\x02\0\0\0UL\x04\0" + len(meta).to_bytes(4, "little")
    character_set = b"\x08\0\x05\0CS\x0a\0ISO_IR 192"
    return Header.parse(b"\0" * 128 + b"DICM" + length + meta + character_set, body_size=0)
