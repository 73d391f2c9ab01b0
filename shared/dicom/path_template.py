"""Where a filesystem destination puts an Instance: a path made of its Attributes' Values.

Values come from senders we do not trust. Whatever they hold, a rendered path stays below the
folder it is used in, and its names are usable on Linux, macOS and Windows.
"""

from __future__ import annotations

import hashlib
import re
import string
import unicodedata
from collections.abc import Sequence
from typing import Self

from msgspec import Struct

from shared.dicom.outgoing import OutgoingInstance
from shared.dicom.paths import AttributePath

DEFAULT_TEMPLATE = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"

# What is known of an Instance besides its Attributes.
_FACTS = frozenset({"calling_ae_title", "receipt_id"})

_UNKNOWN = "unknown"
# 64 holds every UID; file systems take 255 bytes in a name.
_MAX_VALUE_BYTES = 64
_MAX_NAME_BYTES = 200
_MAX_SUFFIX_BYTES = 16
# Separators, wild cards, control characters, invisible and direction-changing ones, half pairs.
_UNSAFE = re.compile(
    r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|'
    r"\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+"
)
_RESERVED_ON_WINDOWS = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?")

_Placeholder = AttributePath | str  # an Attribute, or one of _FACTS


class PathTemplate(Struct, frozen=True):
    """A parsed template: names separated by `/`, with Attributes in braces.

    `{PatientID}/{StudyInstanceUID}/{(0008,0018)}.dcm`; also `{calling_ae_title}` and
    `{receipt_id}`. Several Values are joined with `_`; an absent or empty one is "unknown".
    """

    text: str
    # For each name of the path its pieces: literal text, then a placeholder or None.
    _names: tuple[tuple[tuple[str, _Placeholder | None], ...], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises: ValueError, with a sentence for a person, unless `text` is a usable template."""
        names = tuple(_parse_name(name) for name in _split(text))
        if not any(placeholder for name in names for _, placeholder in name):
            raise ValueError("the template names no Attribute, so all Instances had one path")
        return cls(text, names)

    def render(self, instance: OutgoingInstance) -> tuple[str, ...]:
        """The names of the path, folders first: none is empty, `.`, `..` or has a separator."""
        return tuple(
            safe_name("".join(literal + _value(p, instance) for literal, p in name))
            for name in self._names
        )

    def may_give(self, names: Sequence[str], instance: OutgoingInstance) -> bool:
        """True if `names` are what the Instance got, whoever sent it and whatever its receipt."""
        if len(names) != len(self._names):
            return False
        return all(
            any(placeholder in _FACTS for _, placeholder in pieces) or name == rendered
            for name, pieces, rendered in zip(
                names, self._names, self.render(instance), strict=True
            )
        )


def safe_name(text: str) -> str:
    """`text` as the name of one file or folder.

    Unicode is composed (NFC); what a file system or a terminal might take amiss becomes `_`; a name
    that is too long is shortened and ends with a digest of all of it, its suffix kept.
    """
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", text)).strip(" ")
    # Leading dots hide files on Unix, trailing ones are dropped by Windows.
    name = re.sub(r"^\.+|\.+$", "_", name) or _UNKNOWN
    if _RESERVED_ON_WINDOWS.fullmatch(name):
        name = "_" + name
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix.encode()) > _MAX_SUFFIX_BYTES:
        stem, suffix = name, ""
    return _shorten(stem, _MAX_NAME_BYTES) + (dot + suffix if suffix else "")


def _split(text: str) -> list[str]:
    if "\0" in text or "\\" in text:
        raise ValueError("a template separates names with / and has no backslash")
    names = text.split("/")
    if "" in names:
        raise ValueError("a template is relative, and none of its names is empty")
    return names


def _parse_name(name: str) -> tuple[tuple[str, _Placeholder | None], ...]:
    try:
        pieces = list(string.Formatter().parse(name))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    parsed: list[tuple[str, _Placeholder | None]] = []
    for literal, field, format_spec, conversion in pieces:
        if format_spec or conversion:
            raise ValueError(f"{name}: braces hold the name of an Attribute and no more")
        parsed.append((literal, None if field is None else _placeholder(field)))
    # Without a placeholder the name is what it says, so it must be safe as it stands.
    if all(p is None for _, p in parsed):
        literal = "".join(text for text, _ in parsed)
        if safe_name(literal) != literal:
            raise ValueError(f"{name}: not usable as the name of a folder or file")
    return tuple(parsed)


def _placeholder(field: str) -> _Placeholder:
    return field if field in _FACTS else AttributePath.parse(field)


def _value(placeholder: _Placeholder | None, instance: OutgoingInstance) -> str:
    if placeholder is None:
        return ""
    if isinstance(placeholder, str):
        text = str(getattr(instance, placeholder))
    else:
        text = instance.header.text(placeholder) or ""
    value = _UNSAFE.sub("_", unicodedata.normalize("NFC", text)).strip(" ")
    return _shorten(value, _MAX_VALUE_BYTES) or _UNKNOWN


def _shorten(text: str, max_bytes: int) -> str:
    encoded = text.encode()
    if len(encoded) <= max_bytes:
        return text
    digest = hashlib.sha256(encoded).hexdigest()[:12]
    kept = encoded[: max_bytes - len(digest) - 1].decode(errors="ignore")
    return f"{kept}-{digest}"
