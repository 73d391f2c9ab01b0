"""What a standardizer says of one Instance, as a value that rules take and messages carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class Standardized(Struct, frozen=True):
    """The answer to a `standardize` action.

    `edits` are Attributes by path with their new Values. `hold` is why a person has to decide
    first, "" if nobody has to. `details` are JSON values for whoever records the decision.
    """

    standardizer: str
    edits: tuple[tuple[str, tuple[str, ...]], ...] = ()
    hold: str = ""
    details: tuple[Mapping[str, Any], ...] = ()
