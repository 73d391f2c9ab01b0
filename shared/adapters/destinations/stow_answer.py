"""What a DICOMweb server answers to STOW-RS: the Store Instances Response Module (PS3.18 10.5.3,
PS3.3 CC.1.1), as DICOM JSON (PS3.18 Annex F) or Native DICOM Model XML (PS3.19 A.1).

The answer comes from a stranger: whatever it is, reading it gives a value and never an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from msgspec import Struct, field

from shared.adapters.destinations.outcomes import printable

_REFERENCED_SOP_SEQUENCE = "00081199"
_FAILED_SOP_SEQUENCE = "00081198"
_REFERENCED_SOP_INSTANCE_UID = "00081155"
_WARNING_REASON = "00081196"
_FAILURE_REASON = "00081197"
# FailureDetail, a private Attribute of the Google Cloud Healthcare API.
_FAILURE_DETAIL = "00090097"
# Error Comment, which Axiom Flow puts there, and what a server could not tell the UID of.
_ERROR_COMMENT = "00000902"
_OTHER_FAILURES_SEQUENCE = "0008119A"

# Where servers put a sentence for a person if they answer with JSON that is not DICOM's.
_SENTENCES = ("errorMessage", "Message", "message", "Details", "detail", "title", "error")

_Item = Mapping[str, list[Any]]  # Values, or Items of a Sequence, by tag


class Failed(Struct, frozen=True):
    """An Item of Failed SOP Sequence. `reason` is None if the server gives none."""

    reason: int | None
    words: str


class StowAnswer(Struct, frozen=True):
    """`stored` maps the SOP Instance UIDs that were stored to a Warning Reason or None."""

    is_dicom: bool = False
    stored: Mapping[str, int | None] = field(default_factory=dict)
    failed: Mapping[str, Failed] = field(default_factory=dict)
    words: str = ""  # what the server says of no Instance by name


def parse(body: bytes) -> StowAnswer:
    """Read an answer, by what it is rather than by what its Content-Type claims."""
    text = body.decode("utf-8-sig", "replace").strip()
    if text.startswith(("{", "[")):
        return _parse_json(text)
    if text.startswith("<"):
        item = _item_of_xml(text)
        return StowAnswer() if item is None else _of_module(item)
    return StowAnswer(words=printable(text))


def _parse_json(text: str) -> StowAnswer:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return StowAnswer()
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if document == []:
        return StowAnswer(is_dicom=True)
    if not isinstance(document, dict):
        return StowAnswer()
    if all(re.fullmatch("[0-9A-Fa-f]{8}", key) for key in document):
        return _of_module(_item_of_json(document))
    return StowAnswer(words=_sentence(document))


def _of_module(module: _Item) -> StowAnswer:
    stored = {
        _uid(item): _number(item, _WARNING_REASON)
        for item in _items(module, _REFERENCED_SOP_SEQUENCE)
    }
    failed = {
        _uid(item): Failed(_number(item, _FAILURE_REASON), _words(item))
        for item in _items(module, _FAILED_SOP_SEQUENCE)
    }
    others = "; ".join(filter(None, map(_words, _items(module, _OTHER_FAILURES_SEQUENCE))))
    return StowAnswer(True, stored, failed, others)


def _words(item: _Item) -> str:
    return printable(_first(item, _FAILURE_DETAIL) or _first(item, _ERROR_COMMENT))


def _items(item: _Item, tag: str) -> list[_Item]:
    return [value for value in item.get(tag, ()) if isinstance(value, Mapping)]


def _uid(item: _Item) -> str:
    return _first(item, _REFERENCED_SOP_INSTANCE_UID).strip("\0 ")


def _number(item: _Item, tag: str) -> int | None:
    text = _first(item, tag)
    return int(text) if re.fullmatch("[0-9]{1,5}", text) else None


def _first(item: _Item, tag: str) -> str:
    values = item.get(tag, [])
    return str(values[0]) if values else ""


def _item_of_json(attributes: Mapping[str, Any]) -> _Item:
    item: dict[str, list[Any]] = {}
    for tag, attribute in attributes.items():
        values = attribute.get("Value") if isinstance(attribute, dict) else None
        if isinstance(values, list):
            item[tag.upper()] = [_item_of_json(v) if isinstance(v, dict) else v for v in values]
    return item


def _item_of_xml(text: str) -> _Item | None:
    # No DICOM answer declares entities, so nothing that expands is ever parsed.
    if "<!" in text:
        return None
    try:
        root = ElementTree.fromstring(text)  # noqa: S314
    except (ElementTree.ParseError, RecursionError, ValueError):
        return None
    return _item_of_element(root) if _name(root) == "NativeDicomModel" else None


def _item_of_element(element: ElementTree.Element) -> _Item:
    item: dict[str, list[Any]] = {}
    for attribute in element:
        if _name(attribute) == "DicomAttribute":
            item[attribute.get("tag", "").upper()] = [
                _item_of_element(value) if _name(value) == "Item" else (value.text or "").strip()
                for value in attribute
            ]
    return item


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _sentence(document: Mapping[str, Any]) -> str:
    for key in _SENTENCES:
        said = document.get(key)
        if isinstance(said, str) and said:
            return printable(said)
        if isinstance(said, dict):
            return _sentence(said)
    return ""
