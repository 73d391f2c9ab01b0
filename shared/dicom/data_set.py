"""An index of the Data Elements of one data set (PS3.5 7), made in one pass over its bytes.

Nothing is decoded or copied: the index holds offsets. What has a defined length is skipped and
looked into when asked for; what has an undefined length must be walked to find its end, and is
kept. So each byte is walked once, and a declared length never allocates anything.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from shared.dicom import dictionary
from shared.dicom.character_sets import DEFAULT, CharacterSet, character_set, terms_of
from shared.dicom.paths import ANY_ITEM, AttributePath, Step, format_tag
from shared.dicom.values import KNOWN_VRS, LONG_VRS, Value, decode
from shared.errors import MalformedHeaderError

UNDEFINED: Final = 0xFFFFFFFF
# Float Pixel Data, Double Float Pixel Data, Pixel Data: the Body starts at one of them.
PIXEL_DATA_TAGS: Final = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
# A top-level value larger than this (an Encapsulated Document) starts the Body too.
MAX_HEADER_VALUE_BYTES: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 64

SPECIFIC_CHARACTER_SET: Final = 0x00080005
PIXEL_REPRESENTATION: Final = 0x00280103


class Overrun(Exception):
    """A Data Element at `offset` needs bytes up to `needed`, past the end of what is there."""

    def __init__(self, tag: int | None, offset: int, needed: int) -> None:
        super().__init__(tag, offset, needed)
        self.tag, self.offset, self.needed = tag, offset, needed


class HasItemsError(ValueError):
    """Values were asked for of a Sequence, which has Items."""


class Entry(NamedTuple):
    """Where one Data Element is. `vr` is as encoded, None in Implicit VR; `end` is past the
    Sequence Delimitation Item if there is one.
    """

    start: int
    value_start: int
    end: int
    vr: bytes | None


class Item:
    """One Item of a Sequence. `value_end` is before the Item Delimitation Item, `end` after it."""

    __slots__ = ("_data_set", "_is_scanned", "end", "start", "value_end", "value_start")

    def __init__(self, start: int, value_end: int, end: int, data_set: DataSet) -> None:
        self.start, self.value_start, self.value_end, self.end = start, start + 8, value_end, end
        self._data_set = data_set
        self._is_scanned = self.is_undefined_length

    @property
    def is_undefined_length(self) -> bool:
        """True if a delimiter ends the Item."""
        return self.end != self.value_end

    @property
    def data_set(self) -> DataSet:
        """What is in the Item. Raises: MalformedHeaderError."""
        if not self._is_scanned:
            try:
                self._data_set.scan_item(self.value_end, is_delimited=False)
            except Overrun as overrun:
                name = "a Data Element" if overrun.tag is None else format_tag(overrun.tag)
                raise MalformedHeaderError(
                    f"{name} runs past the end of its Item", overrun.offset
                ) from None
            self._is_scanned = True
        return self._data_set

    def rebase(self, data: bytes) -> None:
        """See DataSet.rebase."""
        self._data_set.rebase(data)


class Element(Struct, frozen=True):
    """One Data Element: offsets in the header's data. `vr` is what it means, `encoded_vr` what
    stands there: None in Implicit VR, "UN" where a system knew no better.
    """

    tag: int
    vr: str
    encoded_vr: str | None
    start: int
    value_start: int
    value_end: int
    end: int
    items: tuple[Item, ...]

    @property
    def is_undefined_length(self) -> bool:
        """True if a delimiter ends the value."""
        return self.end != self.value_end


class DataSet:
    """The top-level data set, the File Meta Information, or one Item's data set."""

    __slots__ = (
        "_character_set",
        "_has_odd_values",
        "_inherited_set",
        "_items",
        "_long_tags",
        "_walkable",
        "data",
        "depth",
        "end",
        "entries",
        "is_implicit_vr",
        "is_in_order",
        "is_little_endian",
        "parent",
        "start",
    )

    def __init__(
        self,
        data: bytes,
        start: int,
        *,
        is_implicit_vr: bool,
        is_little_endian: bool,
        parent: DataSet | None = None,
        character_set: CharacterSet | None = None,
    ) -> None:
        """Nothing is scanned yet; `character_set` is inherited where the data set names none."""
        self.data, self.start, self.end = data, start, start
        self.is_implicit_vr, self.is_little_endian = is_implicit_vr, is_little_endian
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 0
        self.entries: dict[int, tuple[int, int, int, bytes | None]] = {}
        self.is_in_order = True  # tags ascend, and none comes twice
        self._items: dict[int, tuple[Item, ...]] = {}
        # What `has_even_lengths` would else have to find out from all entries.
        self._has_odd_values = False  # among those with a 16-bit length
        self._long_tags: list[int] = []  # all others
        self._inherited_set = character_set
        self._walkable: bool | None = None  # not known yet
        self._character_set: CharacterSet | None = None  # not known yet

    # ---- what is in it ----------------------------------------------------------------------

    @property
    def character_set(self) -> CharacterSet:
        """Of its own Specific Character Set, else of what is around it."""
        known = self._character_set
        if known is None:
            known = self._character_set = self._named_character_set()
        return known

    def entry(self, tag: int) -> Entry | None:
        """Where the Data Element is; the last one where a tag comes twice."""
        found = self.entries.get(tag)
        return Entry(*found) if found else None

    def value_end(self, entry: Entry) -> int:
        """Where the value ends, without a Sequence Delimitation Item."""
        return entry.end - 8 if self.is_undefined_length(entry) else entry.end

    def is_undefined_length(self, entry: Entry) -> bool:
        """True if a Sequence Delimitation Item ends the value."""
        if entry.end - entry.value_start < 8 or entry.value_start - entry.start < 8:
            return False
        if entry.value_start - entry.start == 8 and entry.vr is not None:
            return False  # a 16-bit length
        return self.data[entry.value_start - 4 : entry.value_start] == b"\xff\xff\xff\xff"

    def vr(self, tag: int) -> str:
        """The VR that the value means: the encoded one, or the dictionary's for UN and Implicit VR.

        A choice in the dictionary is settled by Pixel Representation (PS3.5 A.1). Raises: KeyError
        if absent.
        """
        known = _MEANT.get(self.entries[tag][3])
        if known is not None:  # nearly all
            return known
        entry = Entry._make(self.entries[tag])
        encoded = entry.vr
        if self.is_undefined_length(entry):
            return "OB" if tag in PIXEL_DATA_TAGS else "SQ"
        if tag >> 16 & 1:
            vr = self._private_vr(tag)
        elif encoded is not None and entry.end - entry.value_start >= 0xFFFF:
            vr = None  # a value that long was written as UN for its length (PS3.5 6.2.2 note 2)
        else:
            vr = dictionary.vr_for_tag(tag)
        if vr is None or vr == "NONE":
            return "UN"
        if vr == "SQ" and (encoded is not None or tag >> 16 & 1) and not self._has_good_items(tag):
            return "UN"  # a guess that its bytes refute
        return self.choose_vr(vr) if " or " in vr else vr

    def choose_vr(self, choice: str) -> str:
        """Settle "US or SS" and the like by Pixel Representation; bytes as OW."""
        if choice.startswith("US or SS"):
            signed = self._pixel_representation() == 1
            return "SS" if signed else "US"
        return "OW"

    def values(self, tag: int) -> tuple[Value, ...]:
        """The Values. Raises: KeyError if absent, HasItemsError for a Sequence."""
        start, value_start, end, encoded = self.entries[tag]
        short_vr = _SHORT_NAMES.get(encoded)
        if short_vr is not None:  # nearly all
            raw = self.data[value_start:end]
            return decode(short_vr, raw, self.is_little_endian, self.character_set)
        vr = self.vr(tag)
        if vr == "SQ":
            raise HasItemsError(f"{format_tag(tag)} is a Sequence: it has Items, not Values")
        entry = Entry(start, value_start, end, encoded)
        end = self.value_end(entry)
        # What is UN was Implicit VR Little Endian before (PS3.5 6.2.2).
        is_little_endian = self.is_little_endian or entry.vr == b"UN"
        raw = self.data[entry.value_start : end]
        return decode(vr, raw, is_little_endian, self.character_set)

    def element(self, tag: int) -> Element:
        """Raises: KeyError if absent, MalformedHeaderError if its Items cannot be walked."""
        entry = self.entry(tag)
        if entry is None:
            raise KeyError(tag)
        encoded = entry.vr.decode("latin-1") if entry.vr is not None else None
        vr = self.vr(tag)
        return Element(
            tag,
            vr,
            encoded,
            entry.start,
            entry.value_start,
            self.value_end(entry),
            entry.end,
            self.items(tag) if vr == "SQ" else (),
        )

    def items(self, tag: int) -> tuple[Item, ...]:
        """The Items of a Sequence. Raises: MalformedHeaderError."""
        entry = Entry(*self.entries[tag])
        known = self._items.get(entry.start)
        if known is None:
            try:
                known, _ = self._scan_items(entry.value_start, entry.end, entry.vr, False)
            except Overrun as overrun:
                name = "an Item" if overrun.tag is None else format_tag(overrun.tag)
                raise MalformedHeaderError(
                    f"{name} runs past the end of {format_tag(tag)}", overrun.offset
                ) from None
            self._items[entry.start] = known
        return known

    def tag(self, step: Step) -> int | None:
        """The tag of this step here, None if a private creator has no block or it is absent."""
        if not step.creator:
            return step.tag if step.tag in self.entries else None
        block = self.private_block(step.tag >> 16, step.creator)
        if block is None:
            return None
        tag = private_tag(step.tag, block)
        return tag if tag in self.entries else None

    def private_block(self, group: int, creator: str) -> int | None:
        """The block (10..FF) that the creator has reserved (PS3.5 7.8.1)."""
        first = group << 16 | 0x10
        for tag in range(first, first + 0xF0):
            if tag in self.entries and self.creator_text(tag) == creator:
                return tag & 0xFF
        return None

    def free_private_block(self, group: int) -> int | None:
        """The first block that nobody has reserved or uses; None if all are taken."""
        return free_private_block(self.entries, group)

    def creator_text(self, creator_tag: int) -> str:
        """The Private Creator's name at (gggg,00bb), "" if absent."""
        found = self.entries.get(creator_tag)
        if found is None:
            return ""
        raw = self.data[found[1] : found[2]]
        return self.character_set.decode(raw).strip(" \0")

    def find(self, steps: tuple[Step, ...]) -> Iterator[tuple[DataSet, int]]:
        """Each place the steps lead to: a data set and a tag that is in it."""
        step = steps[0]
        tag = self.tag(step)
        if tag is None:
            return
        if step.item is None:
            yield self, tag
            return
        if self.vr(tag) != "SQ":
            return
        items = self.items(tag)
        if step.item != ANY_ITEM:
            items = items[step.item : step.item + 1]
        for item in items:
            yield from item.data_set.find(steps[1:])

    def walk(self, prefix: tuple[Step, ...] = ()) -> Iterator[tuple[AttributePath, Element]]:
        """Every Data Element in the order of the bytes, a Sequence before what is in it."""
        for tag in self.entries:
            element = self.element(tag)
            yield AttributePath((*prefix, Step(tag))), element
            for position, item in enumerate(element.items):
                yield from item.data_set.walk((*prefix, Step(tag, "", position)))

    def has_even_lengths(self) -> bool:
        """True if every value in it, at any depth, has an even number of bytes (PS3.5 7.1.1).

        Finds it out much faster than `walk` does. Where a tag comes twice both count. Raises:
        MalformedHeaderError.
        """
        if self._has_odd_values:
            return False
        is_plain = self.is_little_endian and not self.is_implicit_vr
        for tag in self._long_tags:
            found = self.entries.get(tag)
            if found is None:
                continue  # the Body starts with it
            start, value_start, end, encoded = found
            if encoded == b"SQ" and is_plain and start not in self._items:
                if _are_even_items(self.data, value_start, end):
                    continue
            # A Sequence Delimitation Item has 8 bytes: it makes no difference.
            elif encoded in _BYTES or self.vr(tag) != "SQ":
                if (end - value_start) & 1:
                    return False
                continue
            if not all(item.data_set.has_even_lengths() for item in self.items(tag)):
                return False
        return True

    def occurrences(self) -> list[tuple[int, Entry]]:
        """Every Data Element in the order of the bytes, also those whose tag comes again."""
        if self.is_in_order:
            return [(tag, Entry(*found)) for tag, found in self.entries.items()]
        found: list[tuple[int, Entry]] = []
        position = self.start
        while position < self.end:
            single = DataSet(
                self.data,
                position,
                is_implicit_vr=self.is_implicit_vr,
                is_little_endian=self.is_little_endian,
                parent=self.parent,
            )
            position = single.scan_one(self.end)
            found.extend((tag, Entry(*entry)) for tag, entry in single.entries.items())
        return found

    def _has_good_items(self, tag: int) -> bool:
        """True if the value can be walked as a Sequence, all the way down."""
        try:
            return all(item.data_set._is_walkable() for item in self.items(tag))
        except MalformedHeaderError:
            return False

    def _is_walkable(self) -> bool:
        """True if every Sequence in it can be walked. Found out once, or nested guesses would each
        be made again for every level around them.
        """
        if self._walkable is None:
            self._walkable = all(
                self._has_good_items(tag) for tag in self.entries if self.vr(tag) == "SQ"
            )
        return self._walkable

    def _named_character_set(self) -> CharacterSet:
        if SPECIFIC_CHARACTER_SET in self.entries:
            _, value_start, end, _ = self.entries[SPECIFIC_CHARACTER_SET]
            values = decode("CS", self.data[value_start:end], True, DEFAULT)
            return character_set(terms_of(values))
        if self._inherited_set is not None:
            return self._inherited_set
        return self.parent.character_set if self.parent else DEFAULT

    def _private_vr(self, tag: int) -> str | None:
        element = tag & 0xFFFF
        if 0x10 <= element <= 0xFF:
            return "LO"  # Private Creator
        if element < 0x1000:
            return "UL" if element == 0 else None
        creator = self.creator_text(creator_tag(tag))
        return dictionary.private_vr(creator, tag) if creator else None

    def _pixel_representation(self) -> int | None:
        found = self.entries.get(PIXEL_REPRESENTATION)
        if found is not None and found[2] - found[1] == 2:
            return int.from_bytes(
                self.data[found[1] : found[2]], "little" if self.is_little_endian else "big"
            )
        return self.parent._pixel_representation() if self.parent else None

    def rebase(self, data: bytes) -> None:
        """Look into `data`, an equal start of the bytes that were scanned, and let those go."""
        self.data = data
        for items in self._items.values():
            for item in items:
                item.rebase(data)

    def is_one(self, tag: int, chunk: bytes) -> bool:
        """True if the bytes would be read in this data set as one Data Element of this tag."""
        if len(chunk) > MAX_HEADER_VALUE_BYTES:
            return False  # the Body would start there
        if len(chunk) >= 8 and not self.is_implicit_vr:
            head = _EXPLICIT_LE if self.is_little_endian else _EXPLICIT_BE
            group, element, vr, length = head.unpack_from(chunk)
            if vr in _SHORT:  # nearly all
                return bool(group << 16 | element == tag and length == len(chunk) - 8)
        alone = DataSet(
            chunk, 0, is_implicit_vr=self.is_implicit_vr, is_little_endian=self.is_little_endian
        )
        try:
            return alone.scan_one(len(chunk)) == len(chunk) and tag in alone.entries
        except (Overrun, MalformedHeaderError):
            return False

    def respliced(
        self, data: bytes, start: int, tags: Sequence[int], chunks: Sequence[bytes | None]
    ) -> DataSet:
        """As it would be read in `data` from `start` with `chunks`, of each of which `is_one` is
        true, in place of its own Data Elements, all in tag order. Where there is no chunk its own
        is there, whose offsets are known.
        """
        made = DataSet(
            data,
            start,
            is_implicit_vr=self.is_implicit_vr,
            is_little_endian=self.is_little_endian,
            parent=self.parent,
            character_set=self._inherited_set,
        )
        known, entries = self.entries, made.entries
        edited = set()
        position = start
        for tag, chunk in zip(tags, chunks, strict=True):
            if chunk is None:
                was_at, value_start, end, vr = known[tag]
                moved = position - was_at
                position = end + moved
                entries[tag] = (was_at + moved, value_start + moved, position, vr)
            else:
                edited.add(tag)
                made.start = position
                position = made.scan_one(position + len(chunk))
        made.start, made.end = start, position
        made._has_odd_values |= self._has_odd_values
        made._long_tags += [tag for tag in self._long_tags if tag not in edited]
        return made

    # ---- the scan ---------------------------------------------------------------------------

    def scan_top_level(self, end: int) -> int:
        """Index up to the Body or `end`; returns where that is.

        Raises: Overrun, MalformedHeaderError.
        """
        # Group 0000 after others is no Data Element but padding with zeros.
        self.end = self._scan(end, stop=_FIRST_PIXEL_DATA_TAG, lowest_group=0x0001)
        return self.end

    def scan_elements(self, end: int) -> None:
        """Index all up to `end`, whatever they are. Raises: Overrun, MalformedHeaderError."""
        self.end = self._scan(end)

    def scan_one(self, end: int) -> int:
        """Index one Data Element; returns where it ends. Raises: Overrun, MalformedHeaderError."""
        self.end = self._scan(end, is_single=True)
        return self.end

    def scan_group(self, group: int, end: int) -> int:
        """Index while the group is this one (File Meta: PS3.10 7.1). Raises: Overrun."""
        self.end = self._scan(end, stop=(group + 1) << 16, lowest_group=group)
        return self.end

    def scan_item(self, end: int, is_delimited: bool) -> int:
        """Index an Item's data set; returns where it ends (a delimiter's start if it has one).

        Raises: Overrun, MalformedHeaderError.
        """
        if self.depth > MAX_DEPTH:
            raise MalformedHeaderError(
                f"Sequences are nested deeper than {MAX_DEPTH} levels", self.start
            )
        self.end = self._scan(end, stop=_DELIMITER_GROUP)
        if is_delimited and self.end >= end:
            raise Overrun(None, self.end, end + 8)
        if not is_delimited and self.end < end:
            raise MalformedHeaderError("a delimiter inside an Item of defined length", self.end)
        return self.end

    def _scan(
        self,
        end: int,
        *,
        stop: int = 1 << 32,
        lowest_group: int = 0,
        is_single: bool = False,
    ) -> int:
        """Index until `end`, a tag from `stop` on that ends the data set, or a group that is too
        low to follow another.
        """
        data, entries = self.data, self.entries
        position: int = self.start
        is_implicit = self.is_implicit_vr
        is_top_level = stop == _FIRST_PIXEL_DATA_TAG
        largest = MAX_HEADER_VALUE_BYTES if is_top_level else UNDEFINED
        little = self.is_little_endian
        explicit_head = (_EXPLICIT_LE if little else _EXPLICIT_BE).unpack_from
        implicit_head = (_IMPLICIT_LE if little else _IMPLICIT_BE).unpack_from
        long_length = (_LENGTH_LE if little else _LENGTH_BE).unpack_from
        short, long, long_tags = _SHORT, _LONG, self._long_tags
        vr: bytes | None
        length: int
        odd = 0
        last = -1
        try:
            while position < end:
                if is_implicit:
                    group, element, length = implicit_head(data, position)
                    vr, value_start = None, position + 8
                else:
                    group, element, vr, length = explicit_head(data, position)
                    value_start = position + 8
                tag = group << 16 | element
                if tag >= stop and (not is_top_level or tag in PIXEL_DATA_TAGS):
                    return position
                if vr in short:
                    next_position = value_start + length
                    odd |= length
                else:
                    long_tags.append(tag)
                    if vr in long:
                        (length,) = long_length(data, value_start)
                        value_start += 4
                    elif vr is not None and vr != b"  " and not (vr.isalpha() and vr.isupper()):
                        # Some writers fall back to Implicit VR for single Data Elements; others
                        # write two spaces and a 16-bit length for a VR that they do not know.
                        group, element, length = implicit_head(data, position)
                        vr = None
                    if length == UNDEFINED:
                        next_position = self._scan_undefined(position, value_start, tag, vr, end)
                    elif length > largest and vr != b"SQ":
                        return position
                    else:
                        next_position = value_start + length
                if next_position > end:
                    raise Overrun(tag, position, next_position)
                if tag <= last:
                    if group < lowest_group:
                        return position
                    self.is_in_order = False
                last = tag
                entries[tag] = (position, value_start, next_position, vr)
                position = next_position
                if is_single:
                    return position
        except struct.error:
            raise Overrun(None, position, position + 12) from None
        finally:
            self._has_odd_values |= bool(odd & 1)
        return position

    def _scan_undefined(
        self, start: int, value_start: int, tag: int, vr: bytes | None, end: int
    ) -> int:
        """Walk a value of undefined length; returns the offset after its delimiter."""
        if vr == b"SQ" or vr == b"UN" or (vr is None and tag not in PIXEL_DATA_TAGS):
            self._items[start], position = self._scan_items(value_start, end, vr, True)
            return position
        return self._skip_fragments(value_start, end)

    def _scan_items(
        self, position: int, end: int, vr: bytes | None, is_delimited: bool
    ) -> tuple[tuple[Item, ...], int]:
        data = self.data
        items: list[Item] = []
        little = self.is_little_endian
        if vr == b"UN":  # Implicit VR Little Endian by PS3.5 6.2.2, whatever is around it
            little = data[position : position + 2] == b"\xfe\xff"
        head = (_IMPLICIT_LE if little else _IMPLICIT_BE).unpack_from
        while position < end:
            if position + 8 > end:
                raise Overrun(None, position, position + 8)
            group, element, length = head(data, position)
            tag = group << 16 | element
            value_start = position + 8
            if tag == _SEQUENCE_DELIMITER:
                return tuple(items), value_start
            if tag != _ITEM:
                raise MalformedHeaderError("no Item where a Sequence must have one", position)
            data_set = DataSet(
                data,
                value_start,
                is_implicit_vr=self._is_item_implicit(value_start, vr, length),
                is_little_endian=little,
                parent=self,
            )
            if length == UNDEFINED:
                value_end = data_set.scan_item(end, True)
                group, element, _ = head(data, value_end)
                if group << 16 | element != _ITEM_DELIMITER:
                    raise MalformedHeaderError("an Item has no end", value_end)
                item_end = value_end + 8
            else:
                item_end = value_end = value_start + length
                if item_end > end:
                    raise Overrun(None, position, item_end)
            items.append(Item(position, value_end, item_end, data_set))
            position = item_end
        if is_delimited:
            raise Overrun(None, position, position + 8)
        return tuple(items), position

    def _is_item_implicit(self, start: int, vr: bytes | None, length: int) -> bool:
        """An Item's VRs show in its first Data Element: UN and some writers switch to Implicit."""
        if self.is_implicit_vr and vr != b"UN":
            return True
        if length < 8 or self.data[start : start + 2] in (b"\xfe\xff", b"\xff\xfe"):
            return self.is_implicit_vr or vr == b"UN"
        return not looks_like_vr(self.data[start + 4 : start + 6])

    def _skip_fragments(self, position: int, end: int) -> int:
        """Past encapsulated Pixel Data (PS3.5 A.4): an Icon Image has it too."""
        head = (_IMPLICIT_LE if self.is_little_endian else _IMPLICIT_BE).unpack_from
        while position + 8 <= end:
            group, element, length = head(self.data, position)
            tag = group << 16 | element
            position += 8
            if tag == _SEQUENCE_DELIMITER:
                return position
            if tag != _ITEM or length == UNDEFINED:
                raise MalformedHeaderError("no fragment where one must be", position - 8)
            position += length
        raise Overrun(None, position, position + 8)


def _are_even_items(data: bytes, position: int, end: int, depth: int = 0) -> bool:
    """True if the range is Items of defined length, in Explicit VR Little Endian, in which every
    value has an even length. False says nothing: it takes a closer look.
    """
    head, length_at = _EXPLICIT_LE.unpack_from, _LENGTH_LE.unpack_from
    short, long = _SHORT, _LONG
    if depth > MAX_DEPTH // 2:
        return False
    try:
        while position < end:
            if data[position : position + 4] != b"\xfe\xff\x00\xe0":
                return False
            item_end = position + 8 + length_at(data, position + 4)[0]
            position += 8
            while position < item_end <= end:
                _, _, vr, length = head(data, position)
                position += 8
                if vr not in short:
                    if vr not in long or vr == b"UN":
                        return False
                    length = length_at(data, position)[0]
                    position += 4
                    if vr == b"SQ" and (
                        position + length > item_end
                        or not _are_even_items(data, position, position + length, depth + 1)
                    ):
                        return False
                if length & 1:
                    return False
                position += length
            if position != item_end:
                return False
    except struct.error:
        return False
    return position == end


def private_tag(tag: int, block: int) -> int:
    """The tag of a private Data Element in this block."""
    return tag & 0xFFFF0000 | block << 8 | tag & 0xFF


def creator_tag(tag: int) -> int:
    """The tag of the Private Creator of the block that a private Data Element is in."""
    return tag & 0xFFFF0000 | tag >> 8 & 0xFF


def free_private_block(tags: Iterable[int], group: int) -> int | None:
    """The first block (10..FF) of which no tag is there; None if all are taken (PS3.5 7.8.1)."""
    elements = [tag & 0xFFFF for tag in tags if tag >> 16 == group]
    used = {element >> 8 or element for element in elements}
    return next((block for block in range(0x10, 0x100) if block not in used), None)


def looks_like_vr(code: bytes) -> bool:
    """True for two capital letters, which a length or a tag in their place hardly ever is."""
    return len(code) == 2 and code.isalpha() and code.isupper()


_FIRST_PIXEL_DATA_TAG: Final = min(PIXEL_DATA_TAGS)
_DELIMITER_GROUP: Final = 0xFFFE0000
_ITEM: Final = 0xFFFEE000
_ITEM_DELIMITER: Final = 0xFFFEE00D
_SEQUENCE_DELIMITER: Final = 0xFFFEE0DD
_LONG: Final = frozenset(vr.encode() for vr in LONG_VRS)
_SHORT: Final = frozenset(vr.encode() for vr in KNOWN_VRS - LONG_VRS)
# UN and what no edition knows mean what the dictionary says.
_MEANT: Final[dict[bytes | None, str]] = {vr: vr.decode() for vr in (_LONG | _SHORT) - {b"UN"}}
_BYTES: Final = _LONG - {b"SQ", b"UN"}
_SHORT_NAMES: Final[dict[bytes | None, str]] = {vr: vr.decode() for vr in _SHORT}
_EXPLICIT_LE: Final = struct.Struct("<HH2sH")
_EXPLICIT_BE: Final = struct.Struct(">HH2sH")
_IMPLICIT_LE: Final = struct.Struct("<HHL")
_IMPLICIT_BE: Final = struct.Struct(">HHL")
_LENGTH_LE: Final = struct.Struct("<L")
_LENGTH_BE: Final = struct.Struct(">L")
