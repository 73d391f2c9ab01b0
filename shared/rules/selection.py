"""Which Attributes an action means that names them by pattern rather than one by one."""

from __future__ import annotations

import fnmatch
import re
from typing import Final

from msgspec import Struct

from shared.dicom import dictionary
from shared.dicom.paths import AttributePath

_MASK: Final = re.compile(r"\(?([0-9a-fx]{4}),\s*([0-9a-fx]{4})\)?", re.IGNORECASE)
_GROUP: Final = re.compile(r"group\s+(?:0x)?([0-9a-fx]{4})", re.IGNORECASE)
_KEYWORD: Final = re.compile(r"(?=.*[A-Za-z]{3})[A-Za-z0-9*?]+")
_ALL: Final = "xxxx"
_NAMED: Final = {"curves": ("50xx", _ALL), "overlays": ("60xx", _ALL)}


class Selection(Struct, frozen=True):
    """Attributes by masks of their tag, patterns of their keyword, VR, or being private."""

    masks: tuple[tuple[int, int], ...] = ()  # (mask, bits): selected if tag & mask == bits
    keywords: tuple[str, ...] = ()
    vrs: frozenset[str] = frozenset()
    private: bool = False

    def includes(self, path: AttributePath, vr: str) -> bool:
        tag = path.last.tag
        if self.private and tag >> 16 & 1:
            return True
        if vr in self.vrs or any(tag & mask == bits for mask, bits in self.masks):
            return True
        if not self.keywords:
            return False
        keyword = dictionary.keyword_for_tag(tag)
        return keyword is not None and any(
            fnmatch.fnmatchcase(keyword, pattern) for pattern in self.keywords
        )


def parse_selection(patterns: tuple[str, ...]) -> Selection:
    """`private`, `curves`, `overlays`, `group 0032`, `(60xx,3000)`, `Patient*`.

    Raises: ValueError that names the pattern which is none of these.
    """
    masks: list[tuple[int, int]] = []
    keywords: list[str] = []
    for pattern in patterns:
        mask = _MASK.fullmatch(pattern)
        group = _GROUP.fullmatch(pattern)
        if pattern in _NAMED:
            masks.append(_bits(*_NAMED[pattern]))
        elif mask:
            masks.append(_bits(mask[1], mask[2]))
        elif group:
            masks.append(_bits(group[1], _ALL))
        elif pattern != "private":
            if not _KEYWORD.fullmatch(pattern) or pattern.count("*") > 3:
                raise ValueError(
                    f"{pattern[:100]!r} is none of: private, curves, overlays, group 0032,"
                    " (60xx,3000), Patient*"
                )
            keywords.append(pattern)
    return Selection(tuple(masks), tuple(keywords), private="private" in patterns)


def _bits(group: str, element: str) -> tuple[int, int]:
    digits = (group + element).lower()
    mask = int("".join("0" if digit == "x" else "f" for digit in digits), 16)
    return mask, int(digits.replace("x", "0"), 16)
