"""Media types as HTTP header fields name them (RFC 9110 8.3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
MULTIPART_RELATED = "multipart/related"
JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
JSON_LINES = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class MediaType:
    """`type/subtype` and parameter names in lower case, parameter values as they stand."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> MediaType:
        """Read a Content-Type field; whatever cannot be read is left out.

        A parameter's value may be quoted or not. Unquoted it runs up to the next `;`, because
        senders leave the quotes off `type=application/dicom` and off boundaries with `=` in them.
        """
        name, _, rest = text.partition(";")
        parameters: dict[str, str] = {}
        while rest.strip():
            key, equals, rest = rest.lstrip(" \t;").partition("=")
            if not equals:
                break
            rest = rest.lstrip(" \t")
            if rest.startswith('"'):
                value, rest = _quoted(rest)
            else:
                value, _, rest = rest.partition(";")
                value = value.strip()
            parameters.setdefault(key.strip().lower(), value)
        return cls(name.strip().lower(), parameters)


def negotiate(accept: str, offered: Sequence[str]) -> str | None:
    """What of `offered` an Accept field likes best (RFC 9110 12.5.1), the first among equals.

    None if it likes none of them. Parameters but `q` do not count: senders add a charset to JSON.
    """
    if not accept.strip():
        return offered[0]
    qualities: dict[str, float] = {}
    for item in accept.split(","):
        media_range = MediaType.parse(item)
        try:
            quality = float(media_range.parameters.get("q", "1"))
        except ValueError:
            quality = 0.0
        qualities[media_range.name] = max(quality, qualities.get(media_range.name, 0.0))

    def liked(name: str) -> float:
        ranges = (name, name.partition("/")[0] + "/*", "*/*")
        return next((qualities[known] for known in ranges if known in qualities), 0.0)

    best = max(offered, key=liked)
    return best if liked(best) > 0 else None


def _quoted(text: str) -> tuple[str, str]:
    """The quoted-string that `text` starts with, unquoted, and what follows it."""
    value: list[str] = []
    characters = iter(enumerate(text[1:], start=1))
    for index, character in characters:
        if character == "\\":
            value.append(next(characters, (0, ""))[1])
        elif character == '"':
            return "".join(value), text[index + 1 :]
        else:
            value.append(character)
    return "".join(value), ""
