"""Carry out the transformations that a map names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from shared.config.crosswalks import Transformation
from shared.rules.comparisons import linear_regex


def transformed(text: str, transformations: Sequence[Transformation]) -> str | None:
    """The text after all of them, in order; None once nothing is left of it."""
    for transformation in transformations:
        text = _one(text, transformation)
    return text or None


def _one(text: str, transformation: Transformation) -> str:
    if transformation.pattern is not None:
        found = _compiled(transformation.pattern).search(text)
        if found is None:
            return ""
        return (found[1] if found.re.groups else found[0]) or ""
    match transformation.type:
        case "strip":
            return text.strip()
        case "upper":
            return text.upper()
        case "lower":
            return text.lower()
        case _:
            return text.lstrip("0") or text[-1:]


@lru_cache(maxsize=1_000)
def _compiled(pattern: str) -> Any:
    return linear_regex(pattern)
