"""Values as a Change shows them to people."""

from __future__ import annotations

from typing import Final

from shared.dicom.data_set import DataSet
from shared.dicom.paths import Step
from shared.dicom.values import Value, decode

_MAX_SHOWN_CHARACTERS: Final = 1024
_MAX_SHOWN_ITEMS: Final = 20
_MAX_SHOWN_ITEM_CHARACTERS: Final = 256
_MAX_SHOWN_BYTES: Final = 64


def shown_values(data_set: DataSet, tag: int) -> tuple[str, ...]:
    """The Values as a Change shows them: long ones are cut, an Item is its first Attributes."""
    if data_set.vr(tag) == "SQ":
        items = data_set.items(tag)
        shown = tuple(_shown_item(item.data_set) for item in items[:_MAX_SHOWN_ITEMS])
        return shown if len(shown) == len(items) else (*shown, f"... ({len(items)} Items)")
    return tuple(map(_shown_value, data_set.values(tag)))


def shown_encoded(data_set: DataSet, vr: str, raw: bytes) -> tuple[str, ...]:
    """As `shown_values` of encoded Values that the data set does not have yet."""
    values = decode(vr, raw, data_set.is_little_endian, data_set.character_set)
    return tuple(map(_shown_value, values))


def _shown_value(value: Value) -> str:
    if isinstance(value, bytes):
        if len(value) <= _MAX_SHOWN_BYTES:
            return value.hex()
        return f"{value[:_MAX_SHOWN_BYTES].hex()}... ({len(value)} bytes)"
    text = str(value)
    if len(text) <= _MAX_SHOWN_CHARACTERS:
        return text
    return f"{text[:_MAX_SHOWN_CHARACTERS]}... ({len(text)} characters)"


def _shown_item(data_set: DataSet) -> str:
    parts = []
    for tag in data_set.entries:
        values = "\\".join(shown_values(data_set, tag))
        brackets = f"[{values}]" if data_set.vr(tag) == "SQ" else values
        parts.append(f"{Step(tag)}={brackets}")
        if sum(map(len, parts)) > _MAX_SHOWN_ITEM_CHARACTERS:
            parts.append("...")
            break
    return "; ".join(parts)
