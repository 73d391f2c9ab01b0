"""Media types as HTTP header fields name them (RFC 9110 8.3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
MULTIPART_RELATED = "multipart/related"
JSON = "application/json"
PROBLEM_JSON = "application/problem+json"


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
