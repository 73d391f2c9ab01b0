"""Putting changed Data Elements between bytes that stay as they were.

Lengths of what is around a change (Sequences, Items, groups) grow or shrink by its difference
rather than being computed anew: a right length stays right, and taking the change back gives the
bytes there were, even where a sender had written a wrong one.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from shared.dicom.character_sets import DEFAULT, CharacterSet
from shared.dicom.data_set import (
    SPECIFIC_CHARACTER_SET,
    DataSet,
    Element,
    creator_tag,
    free_private_block,
)
from shared.dicom.paths import Step, format_tag
from shared.dicom.values import LONG_VRS


class EditedDataSet:
    """A data set with some of its Data Elements replaced, removed or added."""

    def __init__(self, base: DataSet) -> None:
        self.base = base
        self._data = base.data
        self._in_order = base.is_in_order
        # Where each stands, if a tag alone does not tell.
        self._ranges: list[tuple[int, int]] = []
        if base.is_in_order:
            self._tags = list(base.entries)
        else:
            found = base.occurrences()
            self._tags = [tag for tag, _ in found]
            self._ranges = [(entry.start, entry.end) for _, entry in found]
        # What stands in place of the range, None for the range itself.
        self._chunks: list[bytes | None] = [None] * len(self._tags)
        # The same by tag, None for what was removed.
        self._edited: dict[int, bytes | None] = {}
        # Whether tag order tells where the edited ones stand.
        self._stays_in_order = base.is_in_order
        self._views: dict[int, DataSet] = {}
        self.is_edited = False
        self._has_new_character_set = False

    @property
    def tags(self) -> list[int]:
        """In the order of the bytes; a tag that stands twice comes twice."""
        return list(self._tags)

    def stands_twice(self, tag: int) -> bool:
        """True where a sender got it wrong, or more than twice."""
        return not self._in_order and self._tags.count(tag) > 1

    def element_bytes(self, tag: int) -> bytes | None:
        """The whole Data Element; the last one where the tag stands twice."""
        index = self._index(tag)
        return None if index is None else self._bytes(index)

    def view(self, tag: int) -> DataSet:
        """A data set in which `tag` can be read as it is now, if it is there at all."""
        if not self.is_edited:
            return self.base
        is_in_block = tag & 0x10000 and tag & 0xFF00
        is_as_it_was = self._in_order and tag not in self._edited
        if (
            is_as_it_was
            and not self._has_new_character_set
            and (not is_in_block or tag in self.base.entries)
        ):
            return self.base
        known = self._views.get(tag)
        if known is None:
            index = self._index(tag)
            reserved = self.element_bytes(creator_tag(tag)) if is_in_block else None
            data = (reserved or b"") + (b"" if index is None else self._bytes(index))
            known = self._views[tag] = self._data_set_of(data)
        return known

    @property
    def character_set(self) -> CharacterSet:
        """By Specific Character Set as it is now."""
        index = self._index(SPECIFIC_CHARACTER_SET)
        if index is None:
            if SPECIFIC_CHARACTER_SET not in self.base.entries:
                return self.base.character_set
            return self.base.parent.character_set if self.base.parent else DEFAULT
        chunk = self._chunks[index]
        if chunk is None:
            return self.base.character_set
        alone = DataSet(
            chunk,
            0,
            is_implicit_vr=self.base.is_implicit_vr,
            is_little_endian=self.base.is_little_endian,
        )
        alone.scan_elements(len(chunk))
        return alone.character_set

    def private_block(self, group: int, creator: str) -> int | None:
        """The block that the creator has reserved; None if it has none."""
        for tag in self._creator_tags(group):
            if self.view(tag).creator_text(tag) == creator:
                return tag & 0xFF
        return None

    def free_private_block(self, group: int) -> int | None:
        """The first block that nobody has reserved or uses; None if all are taken."""
        return free_private_block(self._tags, group)

    def replace(
        self, tag: int, old: bytes | None, new: bytes | None, position: int | None = None
    ) -> int | None:
        """Put `new` in place of `old`; None is no Data Element.

        Returns the position of it, if tag order does not tell where it stands. Raises: ValueError
        if `old` is not what is there.
        """
        index = self._place(tag, old, position)
        if old is None:
            if new is None:
                return None
            self._tags.insert(index, tag)
            self._chunks.insert(index, new)
            if not self._in_order:
                self._ranges.insert(index, (0, 0))
        elif new is None:
            del self._tags[index], self._chunks[index]
            if not self._in_order:
                del self._ranges[index]
        else:
            self._chunks[index] = new
        self._edited[tag] = new
        self.is_edited = True
        self._has_new_character_set |= tag == SPECIFIC_CHARACTER_SET
        self._views.clear()
        self._grow_group(tag, len(new or b"") - len(old or b""))
        return None if self._in_order else index

    def assemble(self) -> bytes:
        """All Data Elements as bytes."""
        data = self._data
        if not self.is_edited:
            return data[self.base.start : self.base.end]
        if self._stays_in_order:
            return self._assemble_in_order()
        parts = []
        run_start = run_end = 0
        for index, chunk in enumerate(self._chunks):
            start, end = (0, 0) if chunk is not None else self._range(index)
            if chunk is None and start == run_end:
                run_end = end
                continue
            parts.append(data[run_start:run_end])
            if chunk is None:
                run_start, run_end = start, end
            else:
                parts.append(chunk)
                run_start = run_end = 0
        parts.append(data[run_start:run_end])
        return b"".join(parts)

    @property
    def is_read_as_made(self) -> bool:
        """True if what `assemble` gives would be read as just these Data Elements."""
        return self._stays_in_order and all(
            chunk is None or self.base.is_one(tag, chunk) for tag, chunk in self._edited.items()
        )

    @property
    def edited_tags(self) -> Iterable[int]:
        """Of what was replaced, removed or added."""
        return self._edited

    def index_of(self, data: bytes, start: int) -> Callable[[], DataSet]:
        """Gives what is assembled now, in `data` from `start`, if it `is_read_as_made`."""
        return partial(self.base.respliced, data, start, list(self._tags), list(self._chunks))

    def _assemble_in_order(self) -> bytes:
        data, entries = self._data, self.base.entries
        base_tags = list(entries)
        parts = []
        position = self.base.start
        for tag, chunk in sorted(self._edited.items()):
            found = entries.get(tag)
            if found is not None:
                parts.append(data[position : found[0]])
                position = found[2]
            else:
                index = bisect_left(base_tags, tag)
                end = entries[base_tags[index]][0] if index < len(base_tags) else self.base.end
                parts.append(data[position:end])
                position = end
            if chunk is not None:
                parts.append(chunk)
        parts.append(data[position : self.base.end])
        return b"".join(parts)

    def _index(self, tag: int) -> int | None:
        tags = self._tags
        if self._in_order:
            index = bisect_left(tags, tag)
            return index if index < len(tags) and tags[index] == tag else None
        return next((i for i in range(len(tags) - 1, -1, -1) if tags[i] == tag), None)

    def _bytes(self, index: int) -> bytes:
        chunk = self._chunks[index]
        if chunk is not None:
            return chunk
        start, end = self._range(index)
        return self._data[start:end]

    def _range(self, index: int) -> tuple[int, int]:
        if not self._in_order:
            return self._ranges[index]
        start, _, end, _ = self.base.entries[self._tags[index]]
        return start, end

    def _place(self, tag: int, old: bytes | None, position: int | None) -> int:
        """Where `old` stands, or where a new Data Element belongs."""
        if position is not None:
            self._stays_in_order = False
        index = position if position is not None else self._index(tag)
        if old is None:
            if position is None and index is not None:
                raise ValueError(f"{format_tag(tag)} is there already")
            if index is None:
                index = self._insertion_index(tag)
            if index > len(self._tags):
                raise ValueError(f"{format_tag(tag)} has no place there")
            return index
        if index is None or index >= len(self._tags) or self._tags[index] != tag:
            raise ValueError(f"{format_tag(tag)} is not there")
        if self._bytes(index) != old:
            raise ValueError(f"{format_tag(tag)} is not what the change was made from")
        return index

    def _insertion_index(self, tag: int) -> int:
        if self._in_order:
            return bisect_left(self._tags, tag)
        return next((i for i, t in enumerate(self._tags) if t > tag), len(self._tags))

    def _creator_tags(self, group: int) -> list[int]:
        first = group << 16 | 0x10
        if self._in_order:
            start = bisect_left(self._tags, first)
            return self._tags[start : bisect_left(self._tags, first + 0xF0)]
        return [tag for tag in self._tags if first <= tag < first + 0xF0]

    def _data_set_of(self, data: bytes) -> DataSet:
        data_set = DataSet(
            data,
            0,
            is_implicit_vr=self.base.is_implicit_vr,
            is_little_endian=self.base.is_little_endian,
            parent=self.base,
            character_set=self.character_set,
        )
        data_set.scan_elements(len(data))
        return data_set

    def _grow_group(self, tag: int, difference: int) -> None:
        """Keep the group length (PS3.5 7.2), where there is one, as right as it was."""
        length_tag = tag & 0xFFFF0000
        if tag == length_tag or not difference:
            return
        if length_tag not in self.base.entries and length_tag not in self._edited:
            return  # nearly always
        index = self._index(length_tag)
        if index is None:
            return
        element = self._bytes(index)
        if len(element) == _GROUP_LENGTH_SIZE:
            self._chunks[index] = self._edited[length_tag] = _grown(
                element, _GROUP_LENGTH_SIZE - 4, difference, self.base.is_little_endian
            )


def replace_at(
    level: EditedDataSet,
    steps: tuple[Step, ...],
    old: bytes | None,
    new: bytes | None,
    position: int | None = None,
) -> int | None:
    """EditedDataSet.replace for a Data Element in Items of Items; steps have tags, not creators.

    Raises: ValueError if a Sequence or Item on the way is absent.
    """
    step = steps[0]
    if step.item is None:
        return level.replace(step.tag, old, new, position)
    view = level.view(step.tag)
    if step.tag not in view.entries:
        raise ValueError(f"{format_tag(step.tag)} is not there")
    element = view.element(step.tag)
    if not 0 <= step.item < len(element.items):
        raise ValueError(f"{format_tag(step.tag)} has no Item {step.item}")
    item = element.items[step.item]
    child = EditedDataSet(item.data_set)
    position = replace_at(child, steps[1:], old, new, position)
    content = child.assemble()
    difference = len(content) - (item.value_end - item.value_start)
    data = view.data
    head = data[item.start : item.value_start]
    if not item.is_undefined_length:
        head = _grown(head, 4, difference, item.data_set.is_little_endian)
    before = data[element.start : element.end]
    after = data[element.start : item.start] + head + content + data[item.value_end : element.end]
    level.replace(step.tag, before, _with_length(view, element, after, difference))
    return position


def without(view: DataSet, tag: int, paths: Sequence[tuple[Step, ...]]) -> bytes:
    """The Sequence's bytes without the Data Elements that these paths lead to.

    Each path starts with the step into an Item of this Sequence. One pass, however many they are.
    """
    element = view.element(tag)
    by_item: dict[int, list[tuple[Step, ...]]] = {}
    for path in paths:
        by_item.setdefault(path[0].item or 0, []).append(path[1:])
    data = view.data
    parts = []
    position = element.start
    difference = 0
    for number, item in enumerate(element.items):
        if number not in by_item:
            continue
        content = _content_without(item.data_set, by_item[number])
        shrunk = len(content) - (item.value_end - item.value_start)
        head = data[item.start : item.value_start]
        if not item.is_undefined_length:
            head = _grown(head, 4, shrunk, item.data_set.is_little_endian)
        parts += [data[position : item.start], head, content]
        position = item.value_end
        difference += shrunk
    parts.append(data[position : element.end])
    return _with_length(view, element, b"".join(parts), difference)


def with_item(view: DataSet, element: Element, item: bytes) -> bytes:
    """The Sequence's bytes with one more Item at its end."""
    data = view.data
    after = data[element.start : element.value_end] + item + data[element.value_end : element.end]
    return _with_length(view, element, after, len(item))


def encode_element(context: DataSet, tag: int, vr: str, raw: bytes) -> bytes:
    """One Data Element as `context` encodes its own (PS3.5 7.1)."""
    order = "<" if context.is_little_endian else ">"
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if context.is_implicit_vr:
        return head + struct.pack(order + "L", len(raw)) + raw
    head += vr.encode("ascii")
    if vr in LONG_VRS:
        return head + struct.pack(order + "xxL", len(raw)) + raw
    return head + struct.pack(order + "H", len(raw)) + raw


def encode_item(context: DataSet, content: bytes) -> bytes:
    """One Item of defined length (PS3.5 7.5)."""
    order = "<" if context.is_little_endian else ">"
    return struct.pack(order + "HHL", 0xFFFE, 0xE000, len(content)) + content


_GROUP_LENGTH_SIZE: Final = 12  # tag, VR and length or length alone, and four bytes


def _content_without(data_set: DataSet, paths: Sequence[tuple[Step, ...]]) -> bytes:
    edited = EditedDataSet(data_set)
    deeper: dict[int, list[tuple[Step, ...]]] = {}
    for path in paths:
        tag = path[0].tag
        if path[0].item is not None:
            deeper.setdefault(tag, []).append(path)
            continue
        while (old := edited.element_bytes(tag)) is not None:
            edited.replace(tag, old, None)
    for tag, inner in deeper.items():
        old = edited.element_bytes(tag)
        if old is not None:
            edited.replace(tag, old, without(edited.view(tag), tag, inner))
    return edited.assemble()


def _with_length(view: DataSet, element: Element, after: bytes, difference: int) -> bytes:
    if element.is_undefined_length:
        return after
    at = element.value_start - element.start - 4
    return _grown(after, at, difference, view.is_little_endian)


def _grown(data: bytes, at: int, difference: int, is_little_endian: bool) -> bytes:
    """`data` with the 32-bit length at `at` changed by the difference."""
    order = "<L" if is_little_endian else ">L"
    (length,) = struct.unpack_from(order, data, at)
    return data[:at] + struct.pack(order, (length + difference) & 0xFFFFFFFF) + data[at + 4 :]
