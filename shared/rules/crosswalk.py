"""What the rules need of crosswalk maps: one question, answered from wherever the map is kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Protocol

from msgspec import Struct


class CrosswalkLookup(Protocol):
    """Crosswalk maps by name."""

    def lookup(self, map_name: str, keys: Mapping[str, str]) -> Mapping[str, str] | None:
        """The outputs by name of the row whose columns have these values; None if there is none.

        `keys` has a value for each column that the map matches. An output that is NULL is left out.

        Raises: TransientError if the map cannot answer now; PermanentError if there is no such map,
        or if more than one row fits.
        """


class CrosswalkOutline(Struct, frozen=True):
    """What a rule may ask of one map."""

    # By column, the Attribute that a rule matches if it does not say which.
    keys: Mapping[str, str | None]
    outputs: Collection[str]


class Miss(StrEnum):
    """What to do where the map has no answer."""

    KEEP = "keep"
    BLANK = "blank"
    HOLD = "hold"
    FAIL = "fail"
