"""What of an action can be known to be wrong for every Instance, found out when it is read.

Each check returns why, or "" if there are Instances for which it is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from shared.dicom.character_sets import UTF_8, character_set
from shared.dicom.edit import HeaderEdit, InvalidEditError, check_deletable, check_settable
from shared.dicom.paths import AttributePath, Step
from shared.dicom.values import KNOWN_VRS, encode
from shared.rules.actions import WHY_INDISPENSABLE, is_indispensable, split_text
from shared.rules.claims import kind_of_attribute
from shared.rules.comparisons import Kind
from shared.rules.reading import NO_ATTRIBUTE
from shared.rules.sample import empty_header
from shared.rules.selection import Selection

_A_CREATOR: Final = "ANY CREATOR"
_ANY_CHARACTER: Final = character_set((UTF_8,))


def check_literal(path: AttributePath, values: Sequence[str | int | float], vr: str | None) -> str:
    """Whether the Attribute can be set to these Values; text is split as `set` does."""
    texts: list[str | int | float] = []
    for value in values:
        texts += split_text(value, path, vr) if isinstance(value, str) else [value]
    return _check_values(path, texts, vr)


def check_result(path: AttributePath, text: str) -> str:
    """Whether one Value of the Attribute can become this text."""
    if not text:
        return f"{path}: {WHY_INDISPENSABLE}" if is_indispensable(path) else ""
    vr = path.dictionary_vr
    if vr not in KNOWN_VRS:  # the Instance decides
        return ""
    try:
        encode(vr, (text,), True, _ANY_CHARACTER)
    except ValueError as error:
        return f"{path}: {error}"
    return ""


def one_of_each_vr(paths: Iterable[AttributePath]) -> tuple[AttributePath, ...]:
    """Fewer paths, about which `check_result` says no less; none for what names no Attribute."""
    found: dict[tuple[str | None, bool], AttributePath] = {}
    for path in paths:
        if path is not NO_ATTRIBUTE:
            found.setdefault((path.dictionary_vr, is_indispensable(path)), path)
    return tuple(found.values())


def check_target(path: AttributePath) -> str:
    """Whether the Attribute can be set at all."""
    try:
        check_settable(path)
    except InvalidEditError as error:
        return str(error)
    return ""


def check_text(path: AttributePath) -> str:
    """Whether the Attribute has Values that can be taken for text, and be set."""
    if kind_of_attribute(path) in (Kind.SEQUENCE, Kind.BYTES):
        return f"{path} has no Values that could be taken for text"
    return check_target(path)


def check_deletion(path: AttributePath) -> str:
    """Whether the Attribute can be deleted."""
    if is_indispensable(path):
        return f"{path}: {WHY_INDISPENSABLE}"
    try:
        check_deletable(path)
    except InvalidEditError as error:
        return str(error)
    return ""


def check_selection(selection: Selection) -> str:
    """Whether all that the selection names can be deleted."""
    for path, vr in _NEVER_DELETED.items():
        if selection.includes(path, vr):
            return check_deletion(path)
    return ""


def _check_values(path: AttributePath, values: Sequence[str | int | float], vr: str | None) -> str:
    if is_indispensable(path) and not any(values):
        return f"{path}: {WHY_INDISPENSABLE}"
    if (
        vr is None
        and path.dictionary_vr is None
        and _is_private_value(path.last)
        and not all(isinstance(value, str) for value in values)
    ):
        return f"{path}: a number in a private Attribute needs a `vr`"
    place = AttributePath(tuple(map(_placed, path.steps)))
    try:
        HeaderEdit(empty_header()).set(place, values, vr=vr, by="check")
    except InvalidEditError as error:
        return f"{path}: {error.rule}"
    return ""


def _placed(step: Step) -> Step:
    """The step as it can be taken in an empty data set: into a first Item, and with a creator where
    an Instance is asked who has reserved the block.
    """
    item = None if step.item is None else 0
    if _is_private_value(step) and not step.creator:
        return Step(step.tag & 0xFFFF00FF, _A_CREATOR, item)
    return replace(step, item=item)


def _is_private_value(step: Step) -> bool:
    return bool(step.tag >> 16 & 1) and (bool(step.creator) or step.tag & 0xFFFF >= 0x1000)


# What stands for all that a deletion does not reach, with its VR.
_NEVER_DELETED: Final = {
    AttributePath.parse("SOPInstanceUID"): "UI",
    AttributePath.parse("SOPClassUID"): "UI",
    AttributePath.parse("StudyInstanceUID"): "UI",
    AttributePath.parse("SeriesInstanceUID"): "UI",
    AttributePath.parse("PixelData"): "OW",
    AttributePath.parse("TransferSyntaxUID"): "UI",
}
