"""Editing a Header, with every edit recorded as a Change that can be replayed and taken back.

Data Elements that no Change names keep their bytes. Lengths around a change follow it (Sequences,
Items, groups), and so does the File Meta Information when the SOP Class or Instance UID changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from shared.dicom import dictionary
from shared.dicom.body_elements import is_of_body, leaving_out
from shared.dicom.changes import Change
from shared.dicom.character_sets import (
    DEFAULT,
    UTF_8,
    CharacterSet,
    character_set,
    is_defined_term,
)
from shared.dicom.data_set import (
    MAX_DEPTH,
    MAX_HEADER_VALUE_BYTES,
    PIXEL_DATA_TAGS,
    SPECIFIC_CHARACTER_SET,
    DataSet,
    creator_tag,
    private_tag,
)
from shared.dicom.header import Header
from shared.dicom.paths import ANY_ITEM, AttributePath, Step, as_path
from shared.dicom.shown_values import shown_encoded, shown_values
from shared.dicom.splicing import (
    EditedDataSet,
    encode_element,
    encode_item,
    replace_at,
    with_item,
    without,
)
from shared.dicom.values import (
    CHARACTER_SET_VRS,
    KNOWN_VRS,
    LONG_VRS,
    Value,
    as_text,
    encode,
)
from shared.errors import MalformedHeaderError


class InvalidEditError(ValueError):
    """An edit that the Standard does not allow. Names the Attribute and the rule, never a Value."""

    def __init__(self, path: str, rule: str) -> None:
        super().__init__(path, rule)
        self.path, self.rule = path, rule

    def __str__(self) -> str:
        return f"{self.path}: {self.rule}"


class HeaderEdit:
    """A Header in the making. Reading sees the edits made so far; a failed edit changes nothing."""

    def __init__(self, header: Header) -> None:
        self._original = header
        self._meta = EditedDataSet(header.meta)
        self._data_set = EditedDataSet(header.data_set)
        self._changes: list[Change] = []
        self._result: Header | None = header

    # ---- reading ----------------------------------------------------------------------------

    def __contains__(self, path: AttributePath | str) -> bool:
        return next(self._find(as_path(path)), None) is not None

    def values(self, path: AttributePath | str) -> tuple[Value, ...] | None:
        """As Header.values."""
        found = [data_set.values(tag) for data_set, tag in self._find(as_path(path))]
        return tuple(value for values in found for value in values) if found else None

    def text(self, path: AttributePath | str) -> str | None:
        """As Header.text."""
        values = self.values(path)
        return None if values is None else "\\".join(map(as_text, values))

    def view(self, tag: int) -> DataSet:
        """A data set in which this top-level tag can be read as it is now, if it is there."""
        return self._data_set.view(tag)

    @property
    def character_set(self) -> CharacterSet:
        """By Specific Character Set as it is now."""
        return self._data_set.character_set

    def paths(self) -> Iterator[AttributePath]:
        """The path of every Data Element as it is now, nested ones after their Sequence.

        By tag and Item number, File Meta Information excluded. Editing while iterating is safe.
        """
        yield from [path for path, _ in self.header().walk()]

    def changes(self) -> tuple[Change, ...]:
        """What was changed, in the order in which it was."""
        return tuple(self._changes)

    def header(self) -> Header:
        """The edited Header.

        Raises: MalformedHeaderError if it would be read as another one than was made, which only a
        data set that is broken in the first place can bring about.
        """
        if self._result is None:
            self._result = self._assembled()
        return self._result

    def _assembled(self) -> Header:
        original = self._original
        start = original.meta.start
        meta = original.data[:start] + self._meta.assemble()
        data = meta + self._data_set.assemble()
        edited = {*self._meta.edited_tags, *self._data_set.edited_tags}
        if (
            self._meta.is_read_as_made
            and self._data_set.is_read_as_made
            and _TRANSFER_SYNTAX_UID not in edited
        ):
            # What was not edited need not be read again.
            return original.respliced(
                data,
                edited,
                self._meta.index_of(data, start),
                self._data_set.index_of(data, len(meta)),
                meta_end=len(meta),
            )
        result = original.with_data(data)
        if result.meta_end != len(meta) or result.body_offset != len(data):
            raise MalformedHeaderError("the data set is too broken to be edited", len(meta))
        return result

    # ---- editing ----------------------------------------------------------------------------

    def set(
        self,
        path: AttributePath | str,
        values: Sequence[Value],
        *,
        vr: str | None = None,
        by: str,
    ) -> None:
        """Give the Attribute these Values; () makes it empty.

        Sequences and Items on the way are made: the next free Item only, and `[*]` means those
        that there are. A private creator gets a block if it has none. The VR is `vr`, else what it
        has, else the dictionary's, else UN. Text that the character set lacks turns the whole data
        set to ISO_IR 192; setting Specific Character Set re-encodes the text it applies to.

        Raises: InvalidEditError (a ValueError), also for File Meta Information, which follows the
        data set, for group lengths, and for what belongs to the Body.
        """
        target = as_path(path)
        if isinstance(values, str | bytes):
            raise TypeError("values is a sequence of Values")
        check_settable(target, vr)
        count = len(self._changes)
        try:
            for concrete in self._expand(target):
                last = concrete.steps[-1]
                if last.tag == SPECIFIC_CHARACTER_SET and not last.creator:
                    self._set_character_set(concrete, values, by)
                else:
                    self._set(concrete, tuple(values), vr, by)
        except BaseException:
            self._take_back(count)
            raise

    def delete(self, path: AttributePath | str, *, by: str) -> bool:
        """Remove the Attribute; False if it is not there. `[*]` means each Item.

        Raises: InvalidEditError for File Meta Information, and for Specific Character Set while
        there is text that needs it.
        """
        target = as_path(path)
        _check_editable(target)
        count = len(self._changes)
        try:
            return self._delete_each(self._expand(target), by) > 0
        except BaseException:
            self._take_back(count)
            raise

    def delete_all(self, paths: Iterable[AttributePath | str], *, by: str) -> int:
        """Remove many Attributes, as patterns over `paths()` ask for; returns how many were there.

        A Sequence that loses several is one Change: time and Changes grow with the Header, not
        with its square. Raises: as `delete`.
        """
        targets = [as_path(path) for path in paths]
        for target in targets:
            _check_editable(target)
        count = len(self._changes)
        try:
            return self._delete_each([c for t in targets for c in self._expand(t)], by)
        except BaseException:
            self._take_back(count)
            raise

    def leave_out(self, tag: int, *, by: str) -> None:
        """Have a Data Element of the Body left out, which is not this Header's to do: whoever sends
        the Body does it (`OutgoingInstance`).
        """
        change = leaving_out(tag, by=by)
        if all(other.path != change.path for other in self._changes):
            self._changes.append(change)

    def append_item(
        self, path: AttributePath | str, elements: Iterable[bytes], *, by: str
    ) -> Change:
        """Add an Item of these encoded Data Elements to a top-level Sequence, which is made if
        there is none. They are in tag order and encoded as `Header.data_set` is. The Change shows
        how many Items there are then.
        """
        tag = as_path(path).last.tag
        item = encode_item(self._data_set.base, b"".join(elements))
        view = self._data_set.view(tag)
        count = 1
        if tag in view.entries and view.vr(tag) == "SQ":
            element = view.element(tag)
            count += len(element.items)
            new = with_item(view, element, item)
        else:
            new = encode_element(view, tag, "SQ", item)
        shown_new = (f"... ({count} Items)",)
        self._replace(AttributePath.of_tag(tag), new, "SQ", by, shown_new=shown_new)
        return self._changes[-1]

    def replay(self, change: Change) -> None:
        """Make a recorded Change again. Raises: ValueError if it was not made from this Header."""
        self._replay(change, change.old_element, change.new_element)

    def revert(self, change: Change) -> None:
        """Take a recorded Change back. Raises: ValueError if it was not the last one made."""
        self._replay(change, change.new_element, change.old_element)

    # ---- finding ----------------------------------------------------------------------------

    def _level(self, path: AttributePath) -> EditedDataSet:
        return self._meta if path.steps[0].tag >> 16 == FILE_META_GROUP else self._data_set

    def _first(self, path: AttributePath) -> tuple[DataSet, int] | None:
        step = path.steps[0]
        if len(path.steps) > 1 or step.creator or step.item is not None:
            return next(self._find(path), None)
        tag = step.tag  # the usual question
        data_set = self._level(path).view(tag)
        return (data_set, tag) if tag in data_set.entries else None

    def _find(self, path: AttributePath) -> Iterator[tuple[DataSet, int]]:
        level = self._level(path)
        first = path.steps[0]
        tag = first.tag
        if first.creator:
            block = level.private_block(tag >> 16, first.creator)
            if block is None:
                return
            tag = private_tag(tag, block)
        yield from level.view(tag).find((Step(tag, "", first.item), *path.steps[1:]))

    def _expand(self, path: AttributePath) -> list[AttributePath]:
        """The path for each Item that its `[*]` steps mean."""
        if len(path.steps) == 1:
            return [path]
        found: list[tuple[Step, ...]] = [()]
        for step in path.steps:
            if step.item != ANY_ITEM:
                found = [(*steps, step) for steps in found]
                continue
            found = [
                (*steps, replace(step, item=position))
                for steps in found
                for position in range(self._item_count((*steps, replace(step, item=None))))
            ]
        return [AttributePath(steps) for steps in found]

    def _item_count(self, steps: tuple[Step, ...]) -> int:
        found = next(self._find(AttributePath(steps)), None)
        if found is None or found[0].vr(found[1]) != "SQ":
            return 0
        return len(found[0].items(found[1]))

    def _resolve(self, path: AttributePath) -> AttributePath | None:
        """The path by tags and not creators; None if it leads nowhere."""
        if len(path.steps) == 1 and not path.steps[0].creator:  # the usual question
            return path if self._first(path) is not None else None
        steps: tuple[Step, ...] = ()
        for step in path.steps:
            found = next(self._find(AttributePath((*steps, replace(step, item=None)))), None)
            if found is None:
                return None
            steps = (*steps, Step(found[1], "", step.item))
        return AttributePath(steps)

    def _data_set_at(self, steps: tuple[Step, ...], tag: int) -> DataSet:
        """Where `tag` stands or would stand: in the Item that these steps lead to."""
        if not steps:
            return self._data_set.view(tag)
        data_set = self._data_set.view(steps[0].tag)
        for step in steps:
            data_set = data_set.items(step.tag)[step.item or 0].data_set
        return data_set

    # ---- deleting ---------------------------------------------------------------------------

    def _delete_each(self, paths: Sequence[AttributePath], by: str) -> int:
        found = [resolved for path in paths if (resolved := self._resolve(path)) is not None]
        for path in found:
            if path.last.tag == SPECIFIC_CHARACTER_SET:
                self._lose_character_set(path, by)
        nested: dict[int, list[AttributePath]] = {}
        count = 0
        for path in dict.fromkeys(found):
            if len(path.steps) > 1:
                nested.setdefault(path.steps[0].tag, []).append(path)
                continue
            while self._replace(path, None, "", by):
                pass
            count += 1
        for tag, inner in nested.items():
            if tag not in self._data_set.view(tag).entries:
                count += len(inner)  # went with its Sequence
            elif len(inner) == 1:
                count += self._delete_nested(inner[0], by)
            else:
                steps = [path.steps for path in inner]
                new = without(self._data_set.view(tag), tag, steps)
                self._replace(AttributePath.of_tag(tag), new, "SQ", by)
                count += len(inner)
        return count

    def _delete_nested(self, path: AttributePath, by: str) -> int:
        while self._replace(path, None, "", by):
            pass
        return 1

    # ---- setting ----------------------------------------------------------------------------

    def _set(self, path: AttributePath, values: tuple[Value, ...], vr: str | None, by: str) -> None:
        try:
            try:
                self._set_in_character_set(path, values, vr, by)
            except UnicodeEncodeError:
                self._recode((), character_set((UTF_8,)), by)
                self._set_in_character_set(path, values, vr, by)
        except UnicodeEncodeError:
            raise InvalidEditError(str(path), "its characters cannot be encoded") from None
        except InvalidEditError:
            raise
        except ValueError as error:
            raise InvalidEditError(str(path), str(error)) from None

    def _set_in_character_set(
        self, path: AttributePath, values: tuple[Value, ...], vr: str | None, by: str
    ) -> None:
        reached: tuple[Step, ...] = ()  # the Items on the way that are there
        for depth, step in enumerate(path.steps):
            tag = self._reserve(reached, step, by) if step.creator else step.tag
            data_set = self._data_set_at(reached, tag)
            target = path
            if len(path.steps) > 1 or step.creator:
                target = AttributePath((*reached, Step(tag)))
            if step.item is None:
                meant = choose_vr(data_set, step, tag, vr)
                raw = _encode_values(data_set, meant, values)
                self._delete_duplicates(target, by)
                element = encode_element(data_set, tag, meant, raw)
                # In Explicit VR it is read as it is written, so there is no need to.
                is_plain = not data_set.is_implicit_vr and meant in _READ_AS_WRITTEN
                shown_new = shown_encoded(data_set, meant, raw) if is_plain else None
                self._replace(target, element, meant, by, shown_new=shown_new)
                self._follow_in_file_meta(target, raw, by)
                return
            items = self._items_to_extend(target, data_set, tag)
            if step.item < items:
                reached = (*reached, Step(tag, "", step.item))
                continue
            if step.item > items:
                raise ValueError(f"there are {items} Items: Item {step.item} cannot be next")
            self._replace(
                target, _with_new_item(data_set, tag, path.steps[depth + 1 :], values, vr), "SQ", by
            )
            return

    def _items_to_extend(self, target: AttributePath, data_set: DataSet, tag: int) -> int:
        if tag not in data_set.entries:
            return 0
        if data_set.vr(tag) != "SQ":
            raise ValueError(f"{AttributePath.of_tag(tag)} is no Sequence")
        if len(target.steps) > MAX_DEPTH:
            raise ValueError(f"deeper than {MAX_DEPTH} levels")
        return len(data_set.items(tag))

    def _reserve(self, reached: tuple[Step, ...], step: Step, by: str) -> int:
        """The tag of a private Attribute, in a block that is now reserved for its creator."""
        group = step.tag >> 16
        data_set = self._data_set_at(reached, step.tag)
        in_item = data_set if reached else self._data_set
        block = in_item.private_block(group, step.creator)
        if block is None:
            block = in_item.free_private_block(group)
            if block is None:
                raise ValueError(f"group {group:04X} has no free private block (PS3.5 7.8.1)")
            tag = group << 16 | block
            raw = encode("LO", (step.creator,), True, DEFAULT)
            element = encode_element(data_set, tag, "LO", raw)
            self._replace(AttributePath((*reached, Step(tag))), element, "LO", by)
        return private_tag(step.tag, block)

    def _delete_duplicates(self, target: AttributePath, by: str) -> None:
        """Of a tag that stands twice at the top, leave one to replace."""
        if len(target.steps) == 1:
            while self._data_set.stands_twice(target.last.tag):
                self._replace(target, None, "", by)

    def _follow_in_file_meta(self, target: AttributePath, raw: bytes, by: str) -> None:
        meta_tag = FILE_META_OF.get(target.steps[0].tag)
        if meta_tag is not None and len(target.steps) == 1:
            element = encode_element(self._meta.base, meta_tag, "UI", raw)
            self._replace(AttributePath.of_tag(meta_tag), element, "UI", by)

    # ---- character sets ---------------------------------------------------------------------

    def _set_character_set(self, path: AttributePath, values: Sequence[Value], by: str) -> None:
        terms = tuple(map(str, values))
        if not all(is_defined_term(term, i, len(terms)) for i, term in enumerate(terms)):
            raise InvalidEditError(str(path), "no defined term (PS3.3 C.12.1.1.2)")
        resolved = self._resolve(path)
        reached = path.steps[:-1]
        if resolved is not None:
            reached = resolved.steps[:-1]
        elif self._item_data_set(reached) is None:
            raise InvalidEditError(str(path), "there is no such Item")
        self._recode(reached, character_set(terms), by, terms)

    def _lose_character_set(self, path: AttributePath, by: str) -> None:
        """Re-encode text to what applies where no Specific Character Set is named."""
        current: DataSet = self.header().data_set
        wanted = DEFAULT
        for step in path.steps[:-1]:
            wanted = current.character_set
            current = current.items(step.tag)[step.item or 0].data_set
        for edited, vr, element, shown in list(_recoded(current, path.steps[:-1], wanted, False)):
            self._replace(edited, element, vr, by, shown)

    def _item_data_set(self, reached: tuple[Step, ...]) -> DataSet | None:
        try:
            return self._data_set_at(reached, SPECIFIC_CHARACTER_SET)
        except (KeyError, IndexError):
            return None

    def _recode(
        self,
        reached: tuple[Step, ...],
        wanted: CharacterSet,
        by: str,
        terms: tuple[str, ...] | None = None,
    ) -> None:
        """Give the data set there another character set, and its text the bytes of that.

        Without `terms` it is for ISO_IR 192, in every Item too; with them, Items that name a
        character set of their own keep it.
        """
        data_set: DataSet = self.header().data_set
        for step in reached:
            data_set = data_set.items(step.tag)[step.item or 0].data_set
        edits = list(_recoded(data_set, reached, wanted, terms is None))
        names = (UTF_8,) if terms is None else terms
        raw = encode("CS", names, True, DEFAULT)
        target = AttributePath((*reached, Step(SPECIFIC_CHARACTER_SET)))
        self._replace(target, encode_element(data_set, SPECIFIC_CHARACTER_SET, "CS", raw), "CS", by)
        for path, vr, element, shown in edits:
            self._replace(path, element, vr, by, shown)

    # ---- recording --------------------------------------------------------------------------

    def _replace(
        self,
        path: AttributePath,
        new: bytes | None,
        vr: str,
        by: str,
        shown: tuple[str, ...] | None = None,
        *,
        shown_new: tuple[str, ...] | None = None,
    ) -> bool:
        """Put one encoded Data Element in place of what is there and record it.

        Returns False if that changes nothing. `shown` are its Values, old and new, if known;
        `shown_new` the new ones.
        """
        old_element, old_vr, old = None, "", None
        found = self._first(path)
        if found is not None:
            data_set, tag = found
            entry = data_set.entries[tag]
            old_element, old_vr = data_set.data[entry[0] : entry[2]], data_set.vr(tag)
            old = shown or shown_values(data_set, tag)
        if old_element == new:
            return False
        position = replace_at(self._level(path), path.steps, old_element, new)
        self._result = None
        if new is not None and shown_new is None:
            after = self._first(path)
            shown_new = None if after is None else shown or shown_values(*after)
        self._changes.append(
            Change(
                path=str(path),
                vr=vr or old_vr,
                old=old,
                new=shown_new,
                old_element=old_element,
                new_element=new,
                by=by,
                position=position,
            )
        )
        return True

    def _replay(self, change: Change, old: bytes | None, new: bytes | None) -> None:
        if is_of_body(change):
            return
        path = AttributePath.parse(change.path)
        replace_at(self._level(path), path.steps, old, new, change.position)
        self._result = None

    def _take_back(self, count: int) -> None:
        """Have only the first `count` Changes: the edit that made the others has failed."""
        for change in reversed(self._changes[count:]):
            self.revert(change)
        del self._changes[count:]


def apply_changes(header: Header, changes: Sequence[Change]) -> Header:
    """The edited Header, byte for byte as HeaderEdit.header() was when it made these Changes.

    Raises: ValueError if they were not made from this Header.
    """
    edit = HeaderEdit(header)
    for change in changes:
        edit.replay(change)
    return edit.header()


def revert_changes(header: Header, changes: Sequence[Change]) -> Header:
    """The Header, byte for byte, that these Changes made this one from.

    Raises: ValueError if they did not.
    """
    edit = HeaderEdit(header)
    for change in reversed(changes):
        edit.revert(change)
    return edit.header()


def choose_vr(data_set: DataSet, step: Step, tag: int, wanted: str | None) -> str:
    """The VR to write: as asked, as it is, as a dictionary says, else UN."""
    if wanted is not None:
        return wanted
    if tag in data_set.entries:
        vr = data_set.vr(tag)
        return vr if vr in KNOWN_VRS else "UN"
    if not tag >> 16 & 1:
        known = dictionary.vr_for_tag(tag)
    elif 0x10 <= tag & 0xFFFF <= 0xFF:
        known = "LO"
    else:
        creator = step.creator or data_set.creator_text(creator_tag(tag))
        if not creator:
            raise ValueError("no private creator has reserved its block (PS3.5 7.8.1)")
        known = dictionary.private_vr(creator, tag)
    if known is None:
        return "UN"
    vr = data_set.choose_vr(known) if " or " in known else known
    return vr if vr in KNOWN_VRS else "UN"


def check_settable(path: AttributePath, vr: str | None = None) -> None:
    """Raises: InvalidEditError if `HeaderEdit.set` refuses the path or the VR in any Header."""
    _check_editable(path)
    if path.steps[0].tag >= _FIRST_OF_THE_BODY:
        raise InvalidEditError(str(path), "it belongs to the Body, which is not edited")
    if path.last.tag & 0xFFFF == 0 and not path.last.creator:
        raise InvalidEditError(str(path), "group lengths follow their group by themselves")
    if vr is not None and vr not in KNOWN_VRS:
        raise InvalidEditError(str(path), "no VR of PS3.5 6.2")


def check_deletable(path: AttributePath) -> None:
    """Raises: InvalidEditError if it is of File Meta Information, or the pixels themselves."""
    _check_editable(path)
    if path.steps[0].tag in PIXEL_DATA_TAGS:
        raise InvalidEditError(str(path), "pixels are not edited")


FILE_META_GROUP: Final = 0x0002
_TRANSFER_SYNTAX_UID: Final = 0x00020010
_FIRST_OF_THE_BODY: Final = min(PIXEL_DATA_TAGS)
# What File Meta Information repeats of the data set (PS3.10 7.1).
FILE_META_OF: Final = {0x00080016: 0x00020002, 0x00080018: 0x00020003}
# UN may mean another VR, and SQ has Items.
_READ_AS_WRITTEN: Final = KNOWN_VRS - {"UN", "SQ"}


def _encode_values(data_set: DataSet, vr: str, values: tuple[Value, ...]) -> bytes:
    if not values:
        return b""
    raw = encode(vr, values, data_set.is_little_endian, data_set.character_set)
    if len(raw) > MAX_HEADER_VALUE_BYTES:
        raise ValueError(f"larger than {MAX_HEADER_VALUE_BYTES} bytes")
    return raw


def _with_new_item(
    data_set: DataSet, tag: int, steps: tuple[Step, ...], values: tuple[Value, ...], vr: str | None
) -> bytes:
    """The Sequence with one more Item, in which these steps lead to the Values."""
    items = data_set.items(tag) if tag in data_set.entries else ()
    context = items[-1].data_set if items else data_set
    item = encode_item(context, _new_content(context, steps, values, vr))
    if items:
        return with_item(data_set, data_set.element(tag), item)
    return encode_element(data_set, tag, "SQ", item)


def _new_content(
    context: DataSet, steps: tuple[Step, ...], values: tuple[Value, ...], vr: str | None
) -> bytes:
    """The data set of a new Item, encoded as `context` is."""
    step = steps[0]
    tag, creator = step.tag, b""
    if step.creator:
        tag = private_tag(step.tag, 0x10)
        raw = encode("LO", (step.creator,), True, DEFAULT)
        creator = encode_element(context, creator_tag(tag), "LO", raw)
    if step.item is not None:
        if step.item:
            raise ValueError(f"there are 0 Items: Item {step.item} cannot be next")
        item = encode_item(context, _new_content(context, steps[1:], values, vr))
        return creator + encode_element(context, tag, "SQ", item)
    empty = DataSet(
        b"",
        0,
        is_implicit_vr=context.is_implicit_vr,
        is_little_endian=context.is_little_endian,
        parent=context,
    )
    meant = choose_vr(empty, step, tag, vr)
    return creator + encode_element(context, tag, meant, _encode_values(context, meant, values))


_Recoding = tuple[AttributePath, str, bytes, tuple[str, ...]]


def _recoded(
    data_set: DataSet, reached: tuple[Step, ...], wanted: CharacterSet, with_own: bool
) -> Iterator[_Recoding]:
    """Path, VR, bytes and shown Values of each text that has other bytes in `wanted`."""
    for tag in data_set.entries:
        path = AttributePath((*reached, Step(tag)))
        vr = data_set.vr(tag)
        if vr == "SQ":
            for position, item in enumerate(data_set.items(tag)):
                if SPECIFIC_CHARACTER_SET not in item.data_set.entries or with_own:
                    steps = (*reached, Step(tag, "", position))
                    yield from _recoded(item.data_set, steps, wanted, with_own)
        elif vr in CHARACTER_SET_VRS:
            yield from _recoded_text(data_set, tag, path, vr, wanted)
        elif tag == SPECIFIC_CHARACTER_SET and reached and with_own:
            raw = encode("CS", (UTF_8,), True, DEFAULT)
            yield path, "CS", encode_element(data_set, tag, "CS", raw), (UTF_8,)


def _recoded_text(
    data_set: DataSet, tag: int, path: AttributePath, vr: str, wanted: CharacterSet
) -> Iterator[_Recoding]:
    _, value_start, end, encoded_vr = data_set.entries[tag]
    raw = data_set.data[value_start:end]
    if raw.isascii() and b"\x1b" not in raw:
        return  # the same in every character set
    try:
        text = data_set.character_set.decode_strictly(raw).rstrip(" \0")
        recoded = wanted.encode(text)
    except UnicodeDecodeError:
        raise InvalidEditError(
            str(path), "its text is not in Specific Character Set, so it cannot be re-encoded"
        ) from None
    except UnicodeEncodeError:
        raise InvalidEditError(
            str(path), "its text cannot be encoded in the Specific Character Set asked for"
        ) from None
    recoded += b" " * (len(recoded) % 2)
    if len(recoded) > 0xFFFE and vr not in LONG_VRS:
        raise InvalidEditError(str(path), "too long in the Specific Character Set asked for")
    written_vr = vr if encoded_vr is None else encoded_vr.decode("latin-1")
    element = encode_element(data_set, tag, written_vr, recoded)
    yield path, vr, element, shown_values(data_set, tag)


def _check_editable(path: AttributePath) -> None:
    group = path.steps[0].tag >> 16
    if group == FILE_META_GROUP:
        raise InvalidEditError(str(path), "File Meta Information follows the data set by itself")
    for step in path.steps:
        if step.tag >> 16 < 0x0008 or step.tag >> 16 >= 0xFFFE:
            raise InvalidEditError(str(path), "its group cannot be edited")
