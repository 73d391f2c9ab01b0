"""Whether a Value that a rule always sets fits its Attribute, found out when the rule is read."""

from __future__ import annotations

from collections.abc import Sequence

from shared.dicom.edit import HeaderEdit
from shared.dicom.paths import ANY_ITEM, AttributePath, Step
from shared.rules.actions import split_text
from shared.rules.sample import empty_header


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
        HeaderEdit(empty_header()).set(place, texts, vr=vr, by="check")
    except ValueError as error:
        return str(error)
    return ""
