"""What the rules need of crosswalk maps: one question, answered from wherever the map is kept."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol


class CrosswalkLookup(Protocol):
    """Crosswalk maps by name."""

    def lookup(self, map_name: str, keys: Mapping[str, str]) -> Mapping[str, str] | None:
        """The outputs by column of the row whose columns have these values; None if there is none.

        Raises: TransientError if the map cannot answer now; PermanentError if there is no such map.
        """


class Miss(StrEnum):
    """What to do where the map has no answer."""

    KEEP = "keep"
    BLANK = "blank"
    HOLD = "hold"
    FAIL = "fail"
