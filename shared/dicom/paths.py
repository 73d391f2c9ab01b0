"""Names of Attributes: `PatientID`, `(0010,0020)`, `RequestAttributesSequence[0].StudyDate`.

A path leads from the top of the data set through Items of Sequences to one Attribute. Items count
from 0; `[*]` is any Item. A private Attribute is named by its creator, because the block it stands
in differs from file to file (PS3.5 7.8.1): `(0031,"CREATOR",20)`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from msgspec import Struct

from shared.dicom import dictionary

ANY_ITEM: Final = -1


class UnknownAttributeError(ValueError):
    """The text names no Attribute. `nearest` is the keyword most like it, "" if none is near."""

    def __init__(self, text: str, nearest: str = "") -> None:
        super().__init__(text, nearest)
        self.text, self.nearest = text, nearest

    def __str__(self) -> str:
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.text!r} names no Attribute{hint}"


class Step(Struct, frozen=True):
    """One Attribute on the way. `item` is the Item to go on into, None on the last step.

    With a `creator`, `tag` has only the low byte of its element number: the block is looked up.
    """

    tag: int
    creator: str = ""
    item: int | None = None

    def __str__(self) -> str:
        if self.creator:
            name = f'({self.tag >> 16:04X},"{self.creator}",{self.tag & 0xFF:02X})'
        else:
            name = dictionary.keyword_for_tag(self.tag) or format_tag(self.tag)
        if self.item is None:
            return name
        return f"{name}[*]" if self.item == ANY_ITEM else f"{name}[{self.item}]"


class AttributePath(Struct, frozen=True):
    """Where an Attribute stands. `str(path)` is canonical: equal paths have equal text."""

    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> AttributePath:
        """Read a path as people write it.

        Raises: UnknownAttributeError.
        """
        return _parse(text)

    @classmethod
    def of_tag(cls, tag: int) -> AttributePath:
        """The path of a top-level Attribute."""
        return cls((Step(tag),))

    @property
    def last(self) -> Step:
        """The step that names the Attribute itself."""
        return self.steps[-1]

    @property
    def dictionary_vr(self) -> str | None:
        """The VR by the dictionary, also `US or SS` and the like; None if it does not know it."""
        step = self.steps[-1]
        if step.creator:
            return dictionary.private_vr(step.creator, step.tag)
        return dictionary.vr_for_tag(step.tag)

    @property
    def has_any_item(self) -> bool:
        """True if a step says `[*]`, so that the path may lead to several Attributes."""
        return any(step.item == ANY_ITEM for step in self.steps)

    def child(self, item: int, step: Step) -> AttributePath:
        """The path of `step` in an Item of the Sequence that this path names."""
        last = self.steps[-1]
        return AttributePath((*self.steps[:-1], Step(last.tag, last.creator, item), step))

    def __str__(self) -> str:
        return ".".join(map(str, self.steps))


def as_path(path: AttributePath | str) -> AttributePath:
    """The path itself, or the one that the text names. Raises: UnknownAttributeError."""
    return _parse(path) if isinstance(path, str) else path


def format_tag(tag: int) -> str:
    """`(gggg,eeee)` with capital hexadecimal digits."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


_STEP: Final = re.compile(
    r"""
    (?: \(? (?:0[xX])? (?P<group>[0-9a-fA-F]{4}) ,\s* (?:0[xX])? (?P<element>[0-9a-fA-F]{4}) \)?
      | \( (?:0[xX])? (?P<private_group>[0-9a-fA-F]{4}) ,\s* "(?P<creator>[^"\\]{1,64})"
        ,\s* (?:0[xX])? (?P<private_element>[0-9a-fA-F]{2}) \)
      | (?P<digits>[0-9a-fA-F]{8})
      | (?P<keyword>[A-Za-z][A-Za-z0-9_]*)
    )
    (?: \[ (?P<item>\d{1,9}|\*) \] )?
    (?P<end>\.|\Z)
    """,
    re.VERBOSE,
)


@lru_cache(maxsize=16384)
def _parse(text: str) -> AttributePath:
    steps = []
    position = 0
    source = text.strip()
    while True:
        match = _STEP.match(source, position)
        if match is None:
            raise UnknownAttributeError(text)
        is_last = match["end"] == ""
        if is_last != (match["item"] is None):  # an Item is on the way to an Attribute, not one
            raise UnknownAttributeError(text)
        steps.append(_step(match, text))
        position = match.end()
        if is_last:
            return AttributePath(tuple(steps))


def _step(match: re.Match[str], text: str) -> Step:
    item = match["item"]
    index = None if item is None else ANY_ITEM if item == "*" else int(item)
    if match["creator"] is not None:
        group, creator = int(match["private_group"], 16), match["creator"].strip()
        if not group & 1 or not creator:
            raise UnknownAttributeError(text)
        return Step(group << 16 | int(match["private_element"], 16), creator, index)
    if match["keyword"] is not None and match["digits"] is None:
        tag = dictionary.tag_for_keyword(match["keyword"])
        if tag is None:
            raise UnknownAttributeError(text, dictionary.nearest_keyword(match["keyword"]) or "")
        return Step(tag, "", index)
    digits = match["digits"] or match["group"] + match["element"]
    return Step(int(digits, 16), "", index)
