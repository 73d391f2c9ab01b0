"""Original Attributes Sequence (0400,0561): what an Instance said before it was changed.

PS3.3 C.12.1: each Item holds when, by whom and why Attributes were modified, and in the one Item of
Modified Attributes Sequence (0400,0550) their previous values under their own tags. Attributes that
were added have no previous value and are not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from shared.dicom.changes import Change
from shared.dicom.character_sets import DEFAULT, CharacterSet
from shared.dicom.data_set import SPECIFIC_CHARACTER_SET, DataSet, creator_tag
from shared.dicom.edit import FILE_META_GROUP, HeaderEdit
from shared.dicom.header import Header
from shared.dicom.paths import AttributePath
from shared.dicom.splicing import encode_element, encode_item
from shared.dicom.values import LONG_VRS, encode

BY: Final = "original-attributes"


def original_attributes_change(
    header: Header,
    changes: Sequence[Change],
    *,
    modifying_system: str,
    source: str,
    reason: str,
    at: datetime,
) -> Change | None:
    """One more Change, to be made after `changes`, that tells what these replaced in `header`.

    `reason` is a defined term such as COERCE or CORRECT; `source` may be "" if it is not known.
    Text outside ASCII is written as `?`. None if no previous value was lost: there is nothing to
    tell. Raises: ValueError if `changes` were not made from `header`, or a text breaks its VR.
    """
    edit = HeaderEdit(header)
    for change in changes:
        edit.replay(change)
    modified = _modified_tags(header, edit, changes)
    if not modified:
        return None
    before = header.data_set
    previous = encode_item(before, b"".join(_previous(before, modified, edit.character_set)))
    stamp = at.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")
    elements = (
        encode_element(before, 0x04000550, "SQ", previous),
        _text_element(before, 0x04000562, "DT", stamp),
        _text_element(before, 0x04000563, "LO", modifying_system),
        _text_element(before, 0x04000564, "LO", source),
        _text_element(before, 0x04000565, "CS", reason),
    )
    return edit.append_item(AttributePath.of_tag(ORIGINAL_ATTRIBUTES_SEQUENCE), elements, by=BY)


ORIGINAL_ATTRIBUTES_SEQUENCE: Final = 0x04000561
_MAX_LO_CHARACTERS: Final = 64


def _modified_tags(before: Header, after: HeaderEdit, changes: Sequence[Change]) -> list[int]:
    """Top-level tags whose previous value is gone; a nested one counts as its Sequence.

    Text that only got other bytes, because the character set changed, says what it said.
    """
    changed = {AttributePath.parse(change.path).steps[0].tag for change in changes}
    changed.discard(ORIGINAL_ATTRIBUTES_SEQUENCE)
    return sorted(
        tag
        for tag in changed
        if tag >> 16 != FILE_META_GROUP
        and tag in before.data_set.entries
        and _is_modified(before.data_set, after.view(tag), tag)
    )


def _is_modified(before: DataSet, after: DataSet, tag: int) -> bool:
    if tag not in after.entries:
        return True
    if before.vr(tag) == "SQ" or after.vr(tag) == "SQ":
        return _bytes(before, tag) != _bytes(after, tag)
    return before.values(tag) != after.values(tag)


def _previous(before: DataSet, tags: Iterable[int], after: CharacterSet) -> Iterable[bytes]:
    """The previous Data Elements in tag order, and what is needed to read them."""
    wanted = set(tags)
    wanted.update(
        creator_tag(tag)
        for tag in tags
        if tag & 0x10000 and tag & 0xFF00 and creator_tag(tag) in before.entries
    )
    has_other_set = before.character_set != after
    if has_other_set and SPECIFIC_CHARACTER_SET not in before.entries:
        # Else the Item would inherit the new character set; empty is the default one.
        yield encode_element(before, SPECIFIC_CHARACTER_SET, "CS", b"")
    elif has_other_set:
        wanted.add(SPECIFIC_CHARACTER_SET)
    for tag in sorted(wanted):
        yield _bytes(before, tag)


def _bytes(data_set: DataSet, tag: int) -> bytes:
    """The Data Element as it stands, with a VR even if it had none in Explicit VR."""
    start, value_start, end, encoded_vr = data_set.entries[tag]
    if encoded_vr is not None or data_set.is_implicit_vr:
        return data_set.data[start:end]
    raw = data_set.data[value_start:end]
    vr = data_set.vr(tag)
    return encode_element(data_set, tag, vr if vr in LONG_VRS or len(raw) < 0xFFFF else "UN", raw)


def _text_element(data_set: DataSet, tag: int, vr: str, text: str) -> bytes:
    plain = text.encode("ascii", "replace").decode("ascii")
    if vr == "LO":
        plain = plain.replace("\\", "/")[:_MAX_LO_CHARACTERS]
    raw = encode(vr, (plain,) if plain else (), True, DEFAULT)
    return encode_element(data_set, tag, vr, raw)
