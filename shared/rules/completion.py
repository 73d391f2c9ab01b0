"""When a Study or Series is complete, as a study rule says it.

{"quiet_period_s": 60, "expected_series": [[...], ...], "expected_instances": 120 or an Attribute
that says how many, "timeout_s": 3600, "on_timeout": "process" | "discard" | "hold" | "wait"}.
All that is given must be fulfilled.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from shared.dicom.paths import AttributePath
from shared.rules.claims import kind_of_attribute
from shared.rules.comparisons import Kind
from shared.rules.condition_documents import read_conditions
from shared.rules.conditions import Condition
from shared.rules.reading import Faults, Fields

MAX_EXPECTED_SERIES: Final = 50
_LONGEST_S: Final = 30 * 86_400


class OnTimeout(StrEnum):
    """What becomes of what came, if the Study is not complete in time."""

    PROCESS = "process"
    DISCARD = "discard"
    HOLD = "hold"
    WAIT = "wait"


class Completion(Struct, frozen=True):
    """What a Study or Series needs to be complete; `timeout_s` counts from its first Instance."""

    quiet_period_s: int | None
    expected_series: tuple[Condition, ...]  # each needs a Series of its own
    expected_instances: int | AttributePath | None
    timeout_s: int | None
    on_timeout: OnTimeout


def read_completion(fields: Fields, faults: Faults) -> Completion:
    """The field `completion` of a study or series rule."""
    if not fields.has("completion"):
        fields.fault("completion", "is missing: say when the Study is complete")
        document: object = {"quiet_period_s": 60}
    else:
        document = fields.raw("completion")
    inner = Fields(document, fields.at("completion"), faults)
    quiet = inner.integer("quiet_period_s", 0, 1, _LONGEST_S)
    timeout = inner.integer("timeout_s", 0, 1, _LONGEST_S)
    expected = tuple(
        read_conditions(item, path, faults)
        for path, item in inner.items("expected_series", MAX_EXPECTED_SERIES)
    )
    instances = _read_instances(inner)
    choices = {choice.value: choice for choice in OnTimeout}
    on_timeout = inner.choice("on_timeout", choices, "wait" if not timeout else None)
    inner.close()
    if not (quiet or expected or instances):
        faults.add(inner.path, "needs quiet_period_s, expected_series or expected_instances")
    if on_timeout is not OnTimeout.WAIT and not timeout:
        inner.fault("timeout_s", "is missing")
    return Completion(quiet or None, expected, instances, timeout or None, on_timeout)


def _read_instances(fields: Fields) -> int | AttributePath | None:
    if not fields.has("expected_instances"):
        return None
    if isinstance(fields.raw("expected_instances"), str):
        path = fields.attribute("expected_instances")
        if kind_of_attribute(path) is not Kind.NUMBER:
            fields.fault("expected_instances", f"{path} is no number")
        return path
    return fields.integer("expected_instances", None, 1, 1_000_000)


def each_has_its_own(fulfilled_by: Sequence[Sequence[int]]) -> bool:
    """True if every wish can get a Series that fulfils it and that no other wish gets.

    `fulfilled_by` lists for each wish the numbers of the Series that fulfil it.
    """
    taken: dict[int, int] = {}

    def find(wish: int, tried: set[int]) -> bool:
        for series in fulfilled_by[wish]:
            if series in tried:
                continue
            tried.add(series)
            if series not in taken or find(taken[series], tried):
                taken[series] = wish
                return True
        return False

    return all(find(wish, set()) for wish in range(len(fulfilled_by)))
