"""The data dictionary (PS3.6) and the known private ones, without importing pydicom.

The tables are the ones pydicom ships (its requirement pins their edition): two modules of plain
data, loaded by their place, because `import pydicom` costs a stage 0.3 s and 50 MB.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Final

from msgspec import Struct


class Entry(Struct, frozen=True):
    """What PS3.6 says of one Attribute. `vr` may be a choice: "US or SS"."""

    tag: int
    vr: str
    vm: str
    name: str
    keyword: str
    is_retired: bool


@lru_cache(maxsize=4096)
def entry_for_tag(tag: int) -> Entry | None:
    """The Attribute with this tag; a repeating group (50xx, 60xx, ...) has one entry for all."""
    row = _standard().get(tag)
    if row is None:
        row = next((row for mask, bits, row in _repeaters() if tag & mask == bits), None)
    if row is None:
        return None
    vr, vm, name, retired, keyword = row
    return Entry(tag, vr, vm, name, keyword, bool(retired))


@lru_cache(maxsize=8192)
def vr_for_tag(tag: int) -> str | None:
    """The VR by PS3.6, possibly a choice such as "OB or OW"; None for a tag it does not have."""
    row = _standard().get(tag)
    if row is not None:
        return row[0]
    if tag & 0xFFFF == 0:
        return "UL"  # group length (PS3.5 7.2)
    entry = entry_for_tag(tag)
    return entry.vr if entry else None


def keyword_for_tag(tag: int) -> str | None:
    """The keyword that names this tag and no other, so none for a repeating group."""
    row = _standard().get(tag)
    return (row[4] or None) if row else None


def tag_for_keyword(keyword: str) -> int | None:
    """The tag with this PS3.6 keyword."""
    return _tags_by_keyword().get(keyword)


def nearest_keyword(text: str) -> str | None:
    """The keyword that is most like `text`, for a hint; None if none is near."""
    wanted = text.lower()
    by_lower = _keywords_by_lower()
    near = difflib.get_close_matches(wanted, by_lower, n=1, cutoff=0.75)
    return by_lower[near[0]] if near else None


@lru_cache(maxsize=4096)
def private_vr(creator: str, tag: int) -> str | None:
    """The VR of a private Data Element by its creator and tag, in whichever block it stands."""
    table = _private().get(creator)
    if table is None:
        return None
    text = f"{tag:08X}"
    row = table.get(f"{text[:4]}xx{text[6:]}") or table.get(text)
    return row[0] if row else None


StandardRow = tuple[str, str, str, str, str]
PrivateRow = tuple[str, str, str, str]


_KEYWORD: Final = 4


@lru_cache(maxsize=1)
def _standard() -> dict[int, StandardRow]:
    rows: dict[int, StandardRow] = _pydicom_module("_dicom_dict").DicomDictionary
    return rows


@lru_cache(maxsize=1)
def _private() -> dict[str, dict[str, PrivateRow]]:
    rows: dict[str, dict[str, PrivateRow]] = _pydicom_module("_private_dict").private_dictionaries
    return rows


@lru_cache(maxsize=2)
def _pydicom_module(name: str) -> ModuleType:
    full_name = f"pydicom.{name}"
    if full_name in sys.modules:
        return sys.modules[full_name]
    package = importlib.util.find_spec("pydicom")  # finds the package, does not run it
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("pydicom is not installed", name="pydicom")
    path = Path(package.submodule_search_locations[0]) / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{__name__}.{name}", path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{full_name} is missing", name=full_name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=1)
def _tags_by_keyword() -> dict[str, int]:
    return {row[_KEYWORD]: tag for tag, row in _standard().items() if row[_KEYWORD]}


@lru_cache(maxsize=1)
def _keywords_by_lower() -> dict[str, str]:
    return {keyword.lower(): keyword for keyword in _tags_by_keyword()}


@lru_cache(maxsize=1)
def _repeaters() -> tuple[tuple[int, int, StandardRow], ...]:
    """(mask, bits, row): the pattern "60xx3000" fits where `tag & mask == bits`."""
    return tuple(
        (
            int("".join("0" if c == "x" else "f" for c in pattern), 16),
            int(pattern.replace("x", "0"), 16),
            row,
        )
        for pattern, row in _pydicom_module("_dicom_dict").RepeatersDictionary.items()
    )
