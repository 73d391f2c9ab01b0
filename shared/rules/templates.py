"""Templates such as `{PatientID}-{StudyDate:%Y}`: text with Values of Attributes and Facts in it.

    template = (text | "{{" | "}}" | "{" subject [":" format] ["|" default] "}")*
    format   = strftime codes for a date or time, or some of FORMATS and a length, with commas

Nothing in a template is looked up by name in the program: subjects are Attributes or Facts,
formats are the ones in this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from typing import Final

from msgspec import Struct

from shared.dicom.paths import AttributePath
from shared.dicom.values import as_text
from shared.rules.claims import FACT_NAMES, kind_of_attribute
from shared.rules.comparisons import COMPONENT_GROUPS, COMPONENTS, Kind, name_parts, number_of
from shared.rules.conditions import FACTS, Attributes, Fact, Subject
from shared.rules.decision import Facts
from shared.rules.moments import Moment, read_date, read_datetime, read_time
from shared.rules.reading import nearest

MAX_OUTPUT_LENGTH: Final = 10_240
MAX_LENGTH: Final = 5_000
MAX_PARTS: Final = 100
RECEIVED_AT: Final = "received_at"  # a Fact that only templates know; UTC


class TemplateError(ValueError):
    """The template cannot be filled for this Instance. The text holds no Values."""


class Placeholder(Struct, frozen=True):
    """One Value to fill in."""

    subject: Subject
    formats: tuple[str, ...]
    default: str | None

    def fill(self, attributes: Attributes, facts: Facts) -> str:
        """Raises: TemplateError if there is no Value and no default, or the format does not fit."""
        text = self._text(attributes, facts)
        if not text:
            if self.default is None:
                raise TemplateError(f"{self.subject} has no Value and the template no default")
            return self.default
        for name in self.formats:
            text = self._formatted(text, name)
        return text

    def _text(self, attributes: Attributes, facts: Facts) -> str:
        if isinstance(self.subject, AttributePath):
            values = attributes.values(self.subject) or ()
            if sum(len(value) for value in values if isinstance(value, (str, bytes))) > 1 << 16:
                raise TemplateError(f"{self.subject} is too long for a template")
            return "\\".join(map(as_text, values))
        if self.subject.name == RECEIVED_AT:
            return facts.received_at.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f")
        return str(FACTS[self.subject.name][1](facts))

    def _formatted(self, text: str, name: str) -> str:
        if "%" in name:
            return _with_codes(text, name, self.subject)
        if name in FORMATS:
            return FORMATS[name](text)
        digits = _ZEROS.fullmatch(name)
        if digits:
            return text.zfill(int(digits[1]))
        decimals = _DECIMALS.fullmatch(name)
        if decimals:
            number = number_of(text)
            if not abs(number) < 1e30:
                raise TemplateError(f"{self.subject} is no number")
            return f"{number:.{int(decimals[1])}f}"
        return text[: int(name)]


class Template(Struct, frozen=True):
    """A template that was read; `text` is how it was written."""

    text: str
    parts: tuple[str | Placeholder, ...]

    @property
    def literal(self) -> str | None:
        """The text that comes out whatever the Instance is; None if it has placeholders."""
        if any(isinstance(part, Placeholder) for part in self.parts):
            return None
        return "".join(part for part in self.parts if isinstance(part, str))

    def render(self, attributes: Attributes, facts: Facts) -> str:
        """The text for one Instance, at most MAX_OUTPUT_LENGTH characters.

        Raises: TemplateError.
        """
        filled = "".join(
            part if isinstance(part, str) else part.fill(attributes, facts) for part in self.parts
        )
        if len(filled) > MAX_OUTPUT_LENGTH:
            raise TemplateError(f"the template gives more than {MAX_OUTPUT_LENGTH} characters")
        return filled


def parse_template(text: str) -> Template:
    """Raises: ValueError that says what is wrong and at which character."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a template may have {MAX_LENGTH} characters")
    parts = tuple(_parts(text))
    if len(parts) > MAX_PARTS:
        raise ValueError(f"a template may have {MAX_PARTS} parts")
    return Template(text, parts)


FORMATS: Final[Mapping[str, Callable[[str], str]]] = {
    "upper": str.upper,
    "lower": str.lower,
    "title": str.title,
    "trim": str.strip,
    **{
        name: lambda text, name=name: "".join(name_parts(text, name, "")[:1])  # type: ignore[misc]
        for name in COMPONENT_GROUPS
    },
    **{
        name: lambda text, name=name: "".join(name_parts(text, "", name)[:1])  # type: ignore[misc]
        for name in COMPONENTS
    },
}
# Where the fields of a Moment stand in its digits, by strftime code.
_CODES: Final[Mapping[str, slice]] = {
    "Y": slice(0, 4),
    "y": slice(2, 4),
    "m": slice(4, 6),
    "d": slice(6, 8),
    "H": slice(8, 10),
    "M": slice(10, 12),
    "S": slice(12, 14),
    "f": slice(14, 20),
}
_CODE: Final = re.compile(r"%(.)")
_ZEROS: Final = re.compile(r"0(\d{1,2})", re.ASCII)
_DECIMALS: Final = re.compile(r"\.(\d)f", re.ASCII)
_LENGTH: Final = re.compile(r"[1-9]\d{0,3}", re.ASCII)
# The subject ends at `:`, `|` or `}` that do not stand in the quotes of a private creator.
_PLACEHOLDER: Final = re.compile(
    r"\{(?P<subject>(?:[^\":|{}]|\"[^\"]*\")+)(?::(?P<format>[^|{}]*))?(?:\|(?P<default>[^{}]*))?\}"
)
_PIECE: Final = re.compile(r"\{\{|\}\}|[{}]|[^{}]+")


def _parts(text: str) -> Iterator[str | Placeholder]:
    position = 0
    while position < len(text):
        piece = _PIECE.match(text, position)
        assert piece is not None  # every character is one of its alternatives
        if piece[0] in ("{{", "}}"):
            yield piece[0][0]
        elif piece[0] == "{":
            piece = _PLACEHOLDER.match(text, position)
            if piece is None:
                raise ValueError(f"the brace at character {position + 1} opens no placeholder")
            yield _placeholder(piece)
        elif piece[0] == "}":
            raise ValueError(f"write }}}} for the brace at character {position + 1}")
        else:
            yield piece[0]
        position = piece.end()


def _placeholder(found: re.Match[str]) -> Placeholder:
    name = found["subject"].strip()
    subject: Subject
    if name in FACT_NAMES:
        subject = Fact(FACT_NAMES[name])
    elif name == RECEIVED_AT:
        subject = Fact(name)
    else:
        subject = AttributePath.parse(name)
        if kind_of_attribute(subject) is Kind.SEQUENCE:
            raise ValueError(f"{name} is a Sequence, which has no text")
    written = found["format"] or ""
    formats = (written,) if "%" in written else tuple(written.split(",")) if written else ()
    for one in formats:
        _check_format(one)
    return Placeholder(subject, formats, found["default"])


def _check_format(name: str) -> None:
    if "%" in name:
        for code in _CODE.findall(name):
            if code not in _CODES and code != "%":
                raise ValueError(f"%{code} is none of {', '.join('%' + one for one in _CODES)}")
        return
    fits = (_ZEROS, _DECIMALS, _LENGTH)
    if name not in FORMATS and not any(pattern.fullmatch(name) for pattern in fits):
        hint = nearest(name, FORMATS)
        raise ValueError(f"{name!r} is no format" + (f"; {hint}" if hint else ""))


def _with_codes(text: str, codes: str, subject: Subject) -> str:
    kind = kind_of_attribute(subject) if isinstance(subject, AttributePath) else Kind.DATETIME
    read = {Kind.DATE: read_date, Kind.TIME: read_time, Kind.DATETIME: read_datetime}.get(
        kind or Kind.TEXT
    )
    moment: Moment | None = read(text) if read else read_date(text) or read_datetime(text)
    if moment is None:
        raise TemplateError(f"{subject} is no date or time")
    # A TM has no date before its digits.
    digits = moment.low.rjust(20) if kind is Kind.TIME else moment.low.ljust(20, "0")
    return _CODE.sub(lambda code: "%" if code[1] == "%" else digits[_CODES[code[1]]], codes)
