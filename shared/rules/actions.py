"""Actions as frozen values: those that edit Attributes, and those that decide where to send.

An action works through a Work, which holds one Instance while one rule acts on it. An
ActionError says why an action cannot be carried out; its text holds no patient's Values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from msgspec import Struct, field

from shared.dicom.changes import Transcoding
from shared.dicom.data_set import MAX_HEADER_VALUE_BYTES, PIXEL_DATA_TAGS, SPECIFIC_CHARACTER_SET
from shared.dicom.edit import HeaderEdit, InvalidEditError
from shared.dicom.header import Header, Value
from shared.dicom.paths import ANY_ITEM, AttributePath, Step
from shared.dicom.values import SINGLE_TEXT_VRS, as_text
from shared.rules.crosswalk import CrosswalkLookup, Miss
from shared.rules.decision import Facts, Refusal
from shared.rules.selection import Selection
from shared.rules.templates import Template, TemplateError

WHY_INDISPENSABLE: Final = "no Instance can be without it"
MAX_EXPANDED: Final = 100_000  # Attributes that one action with `[*]` or a pattern may touch


class ActionError(ValueError):
    """The action cannot be carried out on this Instance. The text holds no Values."""


class Effects(Struct):
    """What one rule, or all of them together, decided beside the edits."""

    destinations: dict[str, list[PerDestination]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    hold: str | None = None  # the reason
    discard: str | None = None  # the reason
    refusal: Refusal | None = None
    stops: str = ""  # "ruleset" or "all"
    high_priority: bool | None = None
    transcoding: Transcoding | None = None

    def send(self, destination: str, own: PerDestination | None = None) -> None:
        """Send to the destination, with what is done for it alone."""
        self.destinations.setdefault(destination, []).extend([own] if own else [])

    def add(self, other: Effects) -> None:
        """Take over what a rule decided after all that was decided before."""
        for name in other.removed:
            self.destinations.pop(name, None)
        for name, own in other.destinations.items():
            self.destinations.setdefault(name, []).extend(own)
        self.hold = other.hold if self.hold is None else self.hold
        self.discard = other.discard if self.discard is None else self.discard
        self.refusal = self.refusal or other.refusal
        if other.high_priority is not None:
            self.high_priority = other.high_priority
        self.transcoding = other.transcoding or self.transcoding


class Work(Struct):
    """One Instance while one rule acts on it. `by` names the action that is at work."""

    received: Header
    edit: HeaderEdit
    facts: Facts
    effects: Effects
    key: bytes
    crosswalk: CrosswalkLookup | None
    by: str = ""

    def values(self, path: AttributePath) -> tuple[Value, ...] | None:
        """The present Values; a Sequence has none to work on."""
        self._check_readable(path)
        try:
            return self.edit.values(path)
        except ValueError:
            raise ActionError(f"{path} is a Sequence") from None

    def set(self, path: AttributePath, values: Sequence[Value], vr: str | None = None) -> None:
        if is_indispensable(path) and not any(values):
            raise ActionError(f"{path}: {WHY_INDISPENSABLE}")
        self._check_readable(path)
        first, beside = path.steps[0], self.facts.beside_pixels
        # A creator's block is anywhere in its group.
        if beside and (first.tag | 0xFFFF if first.creator else first.tag) > min(beside):
            raise ActionError(f"{path} would stand in the Body, which is not edited")
        try:
            self.edit.set(path, values, vr=vr, by=self.by)
        except InvalidEditError as error:
            raise ActionError(str(error)) from None

    def delete(self, paths: Iterable[AttributePath]) -> None:
        """Delete them all at once; absent ones are no error."""
        paths = list(paths)
        if self.facts.beside_pixels:
            for path in paths:
                self._leave_out(path)
        for path in paths:
            if is_indispensable(path) and self.values(path):
                raise ActionError(f"{path}: {WHY_INDISPENSABLE}")
        try:
            self.edit.delete_all(paths, by=self.by)
        except InvalidEditError as error:
            raise ActionError(str(error)) from None

    def _leave_out(self, path: AttributePath) -> None:
        """Delete an Attribute of the Body; others are no error."""
        if len(path.steps) > 1:
            self._check_readable(path)
        tag, beside = path.steps[0].tag, self.facts.beside_pixels
        if not path.steps[0].creator:
            if tag in beside:
                self.edit.leave_out(tag, by=self.by)
        elif path not in self.edit and any(other >> 16 == tag >> 16 for other in beside):
            # Which block is the creator's stands in the Body, too.
            raise ActionError(f"{path} may belong to the Body: name it by its tag")

    def _check_readable(self, path: AttributePath) -> None:
        first = path.steps[0]
        if first.tag in self.facts.beside_pixels and not first.creator:
            raise ActionError(f"{path} belongs to the Body: it can only be deleted, and as a whole")

    def render(self, template: Template) -> str:
        try:
            return template.render(self.edit, self.facts)
        except TemplateError as error:
            raise ActionError(str(error)) from None
        except ValueError:
            raise ActionError("the template names a Sequence") from None

    def places(self, path: AttributePath) -> list[AttributePath]:
        """The path, or with `[*]` one for each Item that is there."""
        if not path.has_any_item:
            return [path]
        header = self.edit.header()
        found: list[tuple[Step, ...]] = [()]
        for step in path.steps:
            longer = []
            for steps in found:
                if step.item != ANY_ITEM:
                    longer.append((*steps, step))
                    continue
                sequence = AttributePath((*steps, Step(step.tag, step.creator)))
                element = header.element(sequence)
                items = len(element.items or ()) if element else 0
                longer += [(*steps, Step(step.tag, step.creator, n)) for n in range(items)]
            if len(longer) > MAX_EXPANDED:
                raise ActionError(f"{path} leads to more than {MAX_EXPANDED} Items")
            found = longer
        return [AttributePath(steps) for steps in found]

    def selected_beside_pixels(self, selection: Selection) -> list[AttributePath]:
        """Those of the Body. Raises: ActionError if there is a Sequence whose Items may hold some:
        they are not seen. Signatures, behind Pixel Data, hold nothing of the patient.
        """
        found = []
        for path in map(AttributePath.of_tag, sorted(self.facts.beside_pixels)):
            vr = path.dictionary_vr or "UN"
            if selection.includes(path, vr):
                found.append(path)
            elif vr == "SQ" and path.last.tag < min(PIXEL_DATA_TAGS):
                raise ActionError(f"{path} belongs to the Body: its Items are not seen")
        return found

    def selected(self, selection: Selection) -> list[AttributePath]:
        """Every Data Element that the selection names, one inside a selected one left out."""
        found: list[AttributePath] = []
        for path, element in self.edit.header().walk():
            if selection.includes(path, element.vr):
                inside = found and path.steps[: len(found[-1].steps)]
                if not inside or not _is_within(path, found[-1]):
                    found.append(path)
        if len(found) > MAX_EXPANDED:
            raise ActionError(f"more than {MAX_EXPANDED} Attributes are selected")
        return found


class Action(Protocol):
    """One thing that a rule does."""

    def apply(self, work: Work) -> None:
        """Raises: ActionError; TransientError if a crosswalk cannot answer now."""


class PerDestination(Struct, frozen=True):
    """What a rule does for one destination alone, after all rules were evaluated."""

    rule: str
    actions: tuple[Action, ...]


# ---- edits ----------------------------------------------------------------------------------


class Set(Struct, frozen=True):
    """Give the Attribute these Values; with `if_missing`, only if it is absent or empty.

    Text of an Attribute that can have several Values is split at backslashes.
    """

    path: AttributePath
    values: tuple[Template | int | float, ...]
    vr: str | None = None
    if_missing: bool = False

    def apply(self, work: Work) -> None:
        for path in work.places(self.path):
            if self.if_missing and any(value != "" for value in work.values(path) or ()):
                continue
            values: list[Value] = []
            for value in self.values:
                if isinstance(value, Template):
                    values += split_text(work.render(value), path, self.vr)
                else:
                    values.append(value)
            work.set(path, values, self.vr)


class Delete(Struct, frozen=True):
    """Delete the Attributes; absent ones are no error."""

    paths: tuple[AttributePath, ...]

    def apply(self, work: Work) -> None:
        work.delete(self.paths)


class DeleteSelected(Struct, frozen=True):
    """Delete every Attribute that the selection names, in Items too."""

    selection: Selection

    def apply(self, work: Work) -> None:
        in_body = work.selected_beside_pixels(self.selection)
        work.delete([*work.selected(self.selection), *in_body])


class KeepOnly(Struct, frozen=True):
    """Delete all top-level Attributes but these and those that an Instance cannot be without:
    character set, SOP Class and Instance UID, Study and Series UID, and group 0028 (how the
    pixels are laid out).
    """

    tags: frozenset[int]

    def apply(self, work: Work) -> None:
        beside = map(AttributePath.of_tag, sorted(work.facts.beside_pixels))
        work.delete(
            path
            for path in (*work.edit.paths(), *beside)
            if len(path.steps) == 1 and not self._keeps(path.last.tag)
        )

    def _keeps(self, tag: int) -> bool:
        return (
            tag in self.tags
            or tag in _UIDS
            or tag == SPECIFIC_CHARACTER_SET
            or tag >> 16 == _IMAGE_PIXEL_GROUP
        )


class Copy(Struct, frozen=True):
    """Copy the Values of one Attribute to another; with `moves`, then delete the first.

    An absent source changes nothing; an empty one empties the target.
    """

    source: AttributePath
    target: AttributePath
    moves: bool

    def apply(self, work: Work) -> None:
        values = work.values(self.source)
        if values is None:
            return
        for place in work.places(self.target):
            work.set(place, values)
        if self.moves:
            work.delete([self.source])


class Affix(Struct, frozen=True):
    """Put text before and after every Value; an absent or empty Attribute stays as it is."""

    path: AttributePath
    before: Template | None = None
    after: Template | None = None

    def apply(self, work: Work) -> None:
        before = work.render(self.before) if self.before else ""
        after = work.render(self.after) if self.after else ""
        transform(work, self.path, lambda text: f"{before}{text}{after}")


class Transform(Struct, frozen=True):
    """Make of every Value that is not empty what `change` makes of its text."""

    paths: tuple[AttributePath, ...]
    change: ValueChange

    def apply(self, work: Work) -> None:
        for path in self.paths:
            transform(work, path, self.change.of_values(work, path))


class TransformSelected(Struct, frozen=True):
    """The same for every Attribute that the selection names, in Items too."""

    selection: Selection
    change: ValueChange

    def apply(self, work: Work) -> None:
        in_body = work.selected_beside_pixels(self.selection)
        for path in (*work.selected(self.selection), *in_body):
            transform(work, path, self.change.of_values(work, path))


class ValueChange(Protocol):
    """What is done to one Value."""

    def of_values(self, work: Work, path: AttributePath) -> Callable[[str], str]:
        """The change for this Attribute of this Instance. It, and what it returns, raise
        ActionError.
        """


class Crosswalk(Struct, frozen=True):
    """Look the Instance up in a crosswalk map and set Attributes from what it says."""

    map_name: str
    match: tuple[tuple[str, AttributePath], ...]  # column, Attribute
    outputs: tuple[tuple[AttributePath, str], ...]  # Attribute, column
    on_miss: Miss

    def apply(self, work: Work) -> None:
        assert work.crosswalk is not None  # compile_rulesets refuses it otherwise
        keys = {}
        for column, path in self.match:
            keys[column] = "\\".join(map(as_text, work.values(path) or ()))
        row = work.crosswalk.lookup(self.map_name, keys) if all(keys.values()) else None
        missing = [column for _, column in self.outputs if row is None or column not in row]
        if missing and self.on_miss is Miss.FAIL:
            raise ActionError(f"crosswalk {self.map_name} has no row for this Instance")
        if missing and self.on_miss is Miss.HOLD:
            work.effects.hold = f"crosswalk {self.map_name} has no row for this Instance"
        for path, column in self.outputs:
            if row is not None and column in row:
                work.set(path, split_text(row[column], path, None))
            elif self.on_miss is Miss.BLANK:
                work.set(path, ())


# ---- decisions ------------------------------------------------------------------------------


class Route(Struct, frozen=True):
    """Send to these destinations too."""

    destinations: tuple[str, ...]

    def apply(self, work: Work) -> None:
        for name in self.destinations:
            work.effects.send(name)


class RemoveDestination(Struct, frozen=True):
    """Do not send to these destinations, whichever earlier rule or action chose them."""

    destinations: tuple[str, ...]

    def apply(self, work: Work) -> None:
        for name in self.destinations:
            work.effects.destinations.pop(name, None)
            work.effects.removed.append(name)


class Hold(Struct, frozen=True):
    """Keep the Instance until a person releases it; later rules are still evaluated."""

    reason: str

    def apply(self, work: Work) -> None:
        if not work.facts.released:
            work.effects.hold = self.reason


class Discard(Struct, frozen=True):
    """Send the Instance nowhere, whatever was chosen before; no later rule is evaluated."""

    reason: str

    def apply(self, work: Work) -> None:
        work.effects.discard, work.effects.stops = self.reason, "all"


class Reject(Struct, frozen=True):
    """Refuse the Instance, whatever was chosen before; no later rule is evaluated."""

    status: int
    reason: str

    def apply(self, work: Work) -> None:
        work.effects.refusal = Refusal(self.status, self.reason, work.by.rpartition("/")[0])
        work.effects.stops = "all"


class Stop(Struct, frozen=True):
    """Evaluate no later rule: of this ruleset, or of all."""

    scope: str  # "ruleset" or "all"

    def apply(self, work: Work) -> None:
        work.effects.stops = self.scope


class SetPriority(Struct, frozen=True):
    """Deliver before, or with, the others."""

    is_high: bool

    def apply(self, work: Work) -> None:
        work.effects.high_priority = self.is_high


class Transcode(Struct, frozen=True):
    """Have the Instance leave in this Transfer Syntax; of several rules the last one counts."""

    transfer_syntax_uid: str
    sends_as_is: bool = False  # where that is not possible

    def apply(self, work: Work) -> None:
        rule = "/".join(work.by.split("/")[:2])
        work.effects.transcoding = Transcoding(self.transfer_syntax_uid, rule, self.sends_as_is)


EDITS: Final = (Set, Delete, DeleteSelected, KeepOnly, Copy, Affix, Transform, TransformSelected)
FOR_ONE_DESTINATION: Final = (*EDITS, Crosswalk, Transcode)


def transform(work: Work, path: AttributePath, change: Callable[[str], str]) -> None:
    """Change every Value of the Attribute that is not empty; nothing is set if none changes."""
    for place in work.places(path):
        values = work.values(place)
        if not values:
            continue
        if any(isinstance(value, bytes) for value in values):
            raise ActionError(f"{place} holds bytes of an unknown VR, not text")
        texts = [as_text(value) for value in values]
        changed, length = [], 0
        for text in texts:
            changed.append(change(text) if text else text)
            length += len(changed[-1])
            if length > MAX_HEADER_VALUE_BYTES:
                raise ActionError(f"{place} would be larger than {MAX_HEADER_VALUE_BYTES} bytes")
        if changed != texts:
            work.set(place, changed)


def split_text(text: str, path: AttributePath, vr: str | None) -> list[str]:
    """The Values that the text is for this Attribute (PS3.5 6.2: a backslash separates them)."""
    if not text:
        return []
    return [text] if (vr or path.dictionary_vr) in SINGLE_TEXT_VRS else text.split("\\")


def tags_of(paths: Iterable[AttributePath]) -> frozenset[int]:
    """The top-level tags that the paths begin with."""
    return frozenset(path.steps[0].tag for path in paths)


def is_indispensable(path: AttributePath) -> bool:
    """True for the UIDs that no Instance can be without: those of itself, its SOP Class, its
    Series and its Study (type 1 in every IOD, PS3.3 C.12.1, C.7.2.1, C.7.3.1).
    """
    return len(path.steps) == 1 and path.last.tag in _UIDS and not path.last.creator


def _is_within(path: AttributePath, outer: AttributePath) -> bool:
    steps = path.steps[: len(outer.steps)]
    return len(path.steps) > len(outer.steps) and all(
        (one.tag, one.creator) == (other.tag, other.creator) and other.item in (None, one.item)
        for one, other in zip(steps, outer.steps, strict=True)
    )


_UIDS: Final = tags_of(
    map(
        AttributePath.parse,
        ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    )
)
_IMAGE_PIXEL_GROUP: Final = 0x0028
