"""Make a Header from a tag dump that somebody pasted: the text of dcmdump, or JSON.

JSON is that of DICOM JSON (PS3.18 Annex F), or of keywords and plain values. A dump has no Pixel
Data and may have long Values cut short; what could not be taken over is told.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct, field

from shared.dicom import dictionary, values
from shared.dicom.header import Header
from shared.rules.sample import Typed, sample_header
from shared.rules.uids import sop_class_uids, transfer_syntax_uids

MAX_DUMP_LENGTH: Final = 4 << 20
_MAX_DEPTH: Final = 32
_MAX_WARNINGS: Final = 50
_FIRST_OF_BODY: Final = 0x7FE00008  # Float Pixel Data; Pixel Data and what follows are above
_CHARACTER_SET: Final = "(0008,0005)"
_TRANSFER_SYNTAX: Final = "(0002,0010)"

_LINE: Final = re.compile(
    r"\s*\(([0-9a-fA-F]{4}),([0-9a-fA-F]{4})\) ([A-Za-z?]{2}) (.*)", re.DOTALL
)
_COMMENT: Final = re.compile(r"\s*(?:\d+|u/l),\s*\d+(?:-\d+)?(?:\s+[^\]\n]*)?")
_ITEM, _ITEM_END, _SEQUENCE_END = "fffee000", "fffee00d", "fffee0dd"


class DumpError(ValueError):
    """The text is no dump. It names a line or a path, and quotes nothing."""


class Dumped(Struct, frozen=True):
    """What a dump says."""

    header: Header
    transfer_syntax_uid: str  # of the dumped Instance, "" if the dump does not say
    warnings: tuple[str, ...] = ()  # what is not in `header`, or not whole


def read_dump(dump: str | Mapping[str, Any] | list[Any]) -> Dumped:
    """The text of dcmdump, JSON as text, or JSON as values. Raises: DumpError."""
    reader = _Reader()
    if isinstance(dump, str):
        if len(dump) > MAX_DUMP_LENGTH:
            raise DumpError(f"the dump is longer than {MAX_DUMP_LENGTH} characters")
        if dump.lstrip()[:1] not in ("{", "["):
            return reader.finished(reader.from_text(dump))
        try:
            dump = json.loads(dump)
        except (ValueError, RecursionError):
            raise DumpError("the dump begins like JSON, but cannot be read as JSON") from None
    if isinstance(dump, list):
        if len(dump) != 1:
            raise DumpError(f"the JSON has {len(dump)} data sets, one is wanted")
        dump = dump[0]
    if not isinstance(dump, Mapping):
        raise DumpError("the JSON is no object")
    return reader.finished(reader.from_json(dump, "", 0))


class _Reader(Struct):
    warnings: list[str] = field(default_factory=list)
    transfer_syntax_uid: str = ""

    def finished(self, attributes: dict[str, Any]) -> Dumped:
        # The text is decoded already, and the sample is made in UTF-8.
        attributes.pop(_CHARACTER_SET, None)
        attributes.pop("SpecificCharacterSet", None)
        if not attributes:
            raise DumpError("the dump has no Attributes")
        try:
            header = sample_header(attributes)
        except (
            ValueError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
            struct.error,
        ) as error:
            text = str(error) if isinstance(error, ValueError) else "a Value has the wrong form"
            raise DumpError(text) from None
        return Dumped(header, self.transfer_syntax_uid, tuple(self.warnings[:_MAX_WARNINGS]))

    def warn(self, text: str) -> None:
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(text)

    # ---- text of dcmdump

    def from_text(self, text: str) -> dict[str, Any]:
        top: dict[str, Any] = {}
        stack: list[dict[str, Any] | list[Any]] = [top]
        for number, line in _lines(text):
            found = _LINE.match(line)
            if found is None:
                raise DumpError(f"line {number} is none of dcmdump")
            tag = (found[1] + found[2]).lower()
            if tag == _ITEM and isinstance(stack[-1], list):
                item: dict[str, Any] = {}
                stack[-1].append(item)
                stack.append(item)
            elif tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
                # Of encapsulated Pixel Data, or an end: what it ends is open.
                if tag != _ITEM and len(stack) > 1:
                    stack.pop()
            elif isinstance(stack[-1], dict):
                self._element(stack, tag, found[3], found[4], number)
            if len(stack) > 2 * _MAX_DEPTH:
                raise DumpError(f"line {number}: Sequences are nested too deeply")
        return top

    def _element(self, stack: list[Any], tag: str, vr: str, rest: str, number: int) -> None:
        name = f"({tag[:4]},{tag[4:]})"
        if vr == "SQ":
            items: list[Any] = []
            stack[-1][name] = Typed("SQ", items)
            stack.append(items)
            return
        if vr == "pi" or int(tag, 16) >= _FIRST_OF_BODY:
            # Encapsulated Pixel Data is a sequence of Items, which has an end of its own.
            if vr == "pi" or "Sequence" in rest[:20]:
                stack.append({})
            return
        if vr not in values.KNOWN_VRS:
            # dcmdump has names of its own for a VR that is one of several, or none.
            vr = (dictionary.vr_for_tag(int(tag, 16)) or "UN")[:2]
        text = _without_comment(rest)
        text = (rest if text is None else text).strip()
        if tag.startswith("0002"):
            if name == _TRANSFER_SYNTAX:
                self.transfer_syntax_uid = _uid(text)
            return
        if len(tag) == 8 and tag.endswith("0000"):
            return  # a group length
        if text.startswith(("(no", "(Pixel", "(Sequence")) and text.endswith(")"):
            stack[-1][name] = Typed(vr, [])  # (no value available), (not loaded)
            if "not loaded" in text:
                self.warn(f"{name}: its Value is not in the dump")
            return
        try:
            stack[-1][name] = Typed(vr, self._values(name, vr, text))
        except (ValueError, OverflowError):
            self.warn(f"{name}: its Value cannot be read, line {number}")

    def _values(self, name: str, vr: str, text: str) -> list[Any]:
        if text.startswith("="):
            return [_uid(text)]
        if text.startswith("["):
            if not text.endswith("]"):
                self.warn(f"{name}: its Value is cut short; dcmdump +L shows it whole")
                text = text.removesuffix("...") + "]"
            return text[1:-1].split("\\") if vr not in values.SINGLE_TEXT_VRS else [text[1:-1]]
        if text.endswith("..."):
            self.warn(f"{name}: its Value is cut short; dcmdump +L shows it whole")
            text = text.removesuffix("...").rpartition("\\")[0]
        parts = text.split("\\") if text else []
        if vr in values.NUMBER_FORMATS:
            return [float(part) if vr in ("FL", "FD") else int(part) for part in parts]
        if vr == "AT":
            return [bytes.fromhex(p[3:5] + p[1:3] + p[8:10] + p[6:8]) for p in parts]
        width = {"OW": 2, "OL": 4, "OV": 8}.get(vr, 1)
        return [int(part, 16).to_bytes(width, "little") for part in parts]

    # ---- JSON

    def from_json(self, document: Mapping[str, Any], path: str, depth: int) -> dict[str, Any]:
        if depth > _MAX_DEPTH:
            raise DumpError("Sequences are nested too deeply")
        attributes: dict[str, Any] = {}
        for name, value in document.items():
            if not re.fullmatch("[0-9A-Fa-f]{8}", name) or not isinstance(value, Mapping):
                attributes[name] = value  # a keyword, or a tag with plain values
                continue
            at = f"{path}{name}"
            canonical = f"({name[:4]},{name[4:]})".lower()
            if int(name, 16) >= _FIRST_OF_BODY:
                continue
            typed = self._typed(value, at, depth)
            if canonical == _TRANSFER_SYNTAX and typed.values:
                self.transfer_syntax_uid = str(typed.values[0])
            elif not name.startswith("0002") and not name.endswith("0000"):
                attributes[canonical] = typed
        return attributes

    def _typed(self, element: Mapping[str, Any], at: str, depth: int) -> Typed:
        vr = element.get("vr")
        if not isinstance(vr, str) or vr not in values.KNOWN_VRS:
            raise DumpError(f"{at} has no VR that there is")
        found = element.get("Value", [])
        if not isinstance(found, list):
            raise DumpError(f"{at}.Value is no list")
        if vr == "SQ":
            if not all(isinstance(item, Mapping) for item in found):
                raise DumpError(f"{at} has an Item that is no object")
            return Typed("SQ", [self.from_json(item, f"{at}.", depth + 1) for item in found])
        if "InlineBinary" in element:
            try:
                return Typed(vr, [base64.b64decode(element["InlineBinary"], validate=True)])
            except (ValueError, TypeError):
                raise DumpError(f"{at}.InlineBinary is not base64") from None
        if "BulkDataURI" in element:
            self.warn(f"{at}: its Value is elsewhere")
            return Typed(vr, [])
        if vr == "PN":
            found = [_person_name(name) for name in found]
        if vr == "AT":
            found = [bytes.fromhex(f"{t[2:4]}{t[0:2]}{t[6:8]}{t[4:6]}") for t in map(str, found)]
        if vr in values.NUMBER_FORMATS:
            found = [_number(number, vr) for number in found]
        return Typed(vr, found)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that hold an element, each with its number; text may run over several."""
    held, first = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not _LINE.match(line) and held:
            held += "\n" + line
            if len(held) > MAX_DUMP_LENGTH:
                return
            if _without_comment(line) is not None:
                yield first, held
                held = ""
            continue
        if held:
            yield first, held
            held = ""
        if not line.strip() or line.startswith("#"):
            continue
        if _without_comment(line) is not None or "[" not in line:
            yield number, line
        else:
            held, first = line, number
    if held:
        yield first, held.rstrip()


def _without_comment(line: str) -> str | None:
    """What stands before the comment at the end of a line; None if there is no comment."""
    text, _, comment = line.rpartition("#")  # the last one: a Value may look like it too
    return text if _COMMENT.fullmatch(comment) else None


def _uid(text: str) -> str:
    if not text.startswith("="):
        return text.strip("[]")
    for find in (sop_class_uids, transfer_syntax_uids):
        try:
            found = find(text[1:])
        except ValueError:
            continue
        if len(found) == 1:
            return found[0]
    return _DCMTK_NAMES.get(text[1:], text[1:])


# What dcmtk calls otherwise than PS3.6.
_DCMTK_NAMES: Final = {
    "LittleEndianImplicit": "1.2.840.10008.1.2",
    "LittleEndianExplicit": "1.2.840.10008.1.2.1",
    "BigEndianExplicit": "1.2.840.10008.1.2.2",
    "DeflatedLittleEndianExplicit": "1.2.840.10008.1.2.1.99",
    "JPEGBaseline": "1.2.840.10008.1.2.4.50",
    "JPEGExtended:Process2+4": "1.2.840.10008.1.2.4.51",
    "JPEGLossless:Non-hierarchical-1stOrderPrediction": "1.2.840.10008.1.2.4.70",
    "JPEGLSLossless": "1.2.840.10008.1.2.4.80",
    "JPEG2000LosslessOnly": "1.2.840.10008.1.2.4.90",
    "RLELossless": "1.2.840.10008.1.2.5",
}


def _person_name(name: Any) -> str:
    if not isinstance(name, Mapping):
        return "" if name is None else str(name)
    groups = [str(name.get(group) or "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
    return "=".join(groups).rstrip("=")


def _number(value: Any, vr: str) -> int | float:
    try:
        return float(value) if vr in ("FL", "FD") else int(value)
    except (TypeError, ValueError, OverflowError):
        raise DumpError(f"a Value of VR {vr} is no number") from None
