"""Compare what was sent with what arrived, with pydicom alone: none of our own DICOM code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement

ORIGINAL_ATTRIBUTES = 0x04000561
_PIXEL_DATA = 0x7FE00010


@dataclass(frozen=True, slots=True)
class Check:
    """One claim about what happened, and whether it is true."""

    claim: str
    holds: bool
    detail: str = ""


def verify_arrival(
    sent: Path, arrived: Path | None, where: str, changes: Mapping[str, str]
) -> Iterator[Check]:
    """Claims about one Instance at one destination; `changes` are the new Values by keyword."""
    name = f"{sent.name} at {where}"
    yield Check(f"{name}: arrived", arrived is not None)
    if arrived is None:
        return
    before, after = dcmread(sent), dcmread(arrived)
    pixels, arrived_pixels = _bytes(before, _PIXEL_DATA), _bytes(after, _PIXEL_DATA)
    yield Check(
        f"{name}: pixel data byte-identical",
        pixels is not None and pixels == arrived_pixels,
        f"{len(pixels or b''):,} bytes",
    )
    same_syntax = before.file_meta.TransferSyntaxUID == after.file_meta.TransferSyntaxUID
    yield Check(f"{name}: Transfer Syntax unchanged", same_syntax)
    allowed = {tag_for_keyword(keyword) for keyword in changes}
    if changes:
        allowed.add(ORIGINAL_ATTRIBUTES)
    differing = {tag for tag in {*before.keys(), *after.keys()} if _differs(before, after, tag)}
    yield Check(
        f"{name}: header differs where rules said and nowhere else",
        differing == allowed,
        _keywords(differing),
    )
    wrong = [keyword for keyword, value in changes.items() if str(after.get(keyword)) != value]
    yield Check(f"{name}: new Values as the rules say", not wrong, ", ".join(wrong))
    if changes:
        yield Check(
            f"{name}: Original Attributes keep the old Values", _keeps(before, after, changes)
        )


def _differs(before: Dataset, after: Dataset, tag: int) -> bool:
    if tag not in before or tag not in after:
        return True
    first, second = _bytes(before, tag), _bytes(after, tag)
    if first is not None and second is not None:
        return first != second
    return bool(before[tag] != after[tag])


def _bytes(dataset: Dataset, tag: int) -> bytes | None:
    """The Value Field as it was encoded; None for a Sequence, which pydicom has decoded."""
    if tag not in dataset:
        return None
    element = dataset.get_item(tag)
    value = element.value if isinstance(element, RawDataElement) or tag == _PIXEL_DATA else None
    return value if isinstance(value, bytes) else None


def _keeps(before: Dataset, after: Dataset, changes: Mapping[str, str]) -> bool:
    """PS3.3 C.12.1: the previous Values stand under their own tags."""
    sequence = after.get("OriginalAttributesSequence") or []
    if not sequence:
        return False
    kept = sequence[-1].ModifiedAttributesSequence[0]
    return all(kept.get(keyword) == before.get(keyword) for keyword in changes if keyword in before)


def _keywords(tags: Iterable[int]) -> str:
    return ", ".join(keyword_for_tag(tag) or f"{tag:08X}" for tag in sorted(tags))
