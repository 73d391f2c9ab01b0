"""Conditions as text: `(0x0008,0x0060) == "CT" and not (SliceThickness > 5.0 or PatientID empty)`.

    condition = claim | "not" condition | condition "and" condition | condition "or" condition
              | "(" condition ")"
    claim     = "returned" | "always" | "never"
              | subject operator [operand] ["ignoring case"] ["for every value"]
    operand   = "text" | 'text' | number | [operand, ...] | Attribute | low "and" high

`and` binds tighter than `or`. The pattern after `matches` may stand without quotes; it then goes
to the end of the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from shared.dicom.paths import AttributePath
from shared.rules.claims import (
    FACT_NAMES,
    OPERATORS,
    WITH_LIST,
    WITHOUT_OPERAND,
    Options,
    make_claim,
)
from shared.rules.comparisons import COMPONENT_GROUPS, COMPONENTS
from shared.rules.conditions import (
    MAX_DEPTH,
    AllOf,
    AnyOf,
    Condition,
    Fact,
    Not,
    Returned,
    Subject,
)
from shared.rules.reading import MAX_FAULTS, MAX_TEXT_LENGTH, Faults, nearest


def parse_text(text: str, path: str, faults: Faults) -> Condition:
    """The condition that `text` says; what is wrong is noted at `path`."""
    if len(faults) >= MAX_FAULTS:
        return AllOf(())
    if len(text) > MAX_TEXT_LENGTH:
        faults.add(path, f"is longer than {MAX_TEXT_LENGTH} characters")
        return AllOf(())
    try:
        return _Parser(text, path, faults).condition()
    except _TextError as error:
        faults.add(path, f"{error.message} at character {error.position + 1}", error.hint)
        return AllOf(())


class _TextError(Exception):
    def __init__(self, message: str, position: int, hint: str = "") -> None:
        super().__init__(message, position, hint)
        self.message, self.position, self.hint = message, position, hint


class _Token(Struct, frozen=True):
    kind: str  # text, number, name, symbol, end
    value: Any
    start: int
    end: int


_TAG: Final = r"""\((?:0[xX])?[0-9a-fA-F]{4},\s*(?:0[xX])?[0-9a-fA-F]{4}\)
         | \((?:0[xX])?[0-9a-fA-F]{4},\s*"[^"\\]{1,64}",\s*(?:0[xX])?[0-9a-fA-F]{2}\)
         | [0-9a-fA-F]{8}(?![\w.])
         | [A-Za-z_][A-Za-z0-9_]*"""
_TOKEN: Final = re.compile(
    rf"""\s*(?:
      (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<name>(?:{_TAG})(?:\[(?:\d+|\*)\](?:\.(?:{_TAG}))?)*)
    | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<symbol><=|>=|==|!=|[<>=≤≥()\[\],])
    | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\([\"'\\])")
_MAX_OPERATOR_WORDS: Final = 3
WHOLE_CLAIMS: Final[Mapping[str, Condition]] = {
    "returned": Returned(),
    "always": AllOf(()),
    "never": AnyOf(()),
}


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, text: str, path: str, faults: Faults) -> None:
        self._text, self._path, self._faults = text, path, faults
        self._token = self._token_at(0)
        self._operator_end = 0
        self._depth = 0

    def condition(self) -> Condition:
        found = self._alternatives()
        if self._token.kind != "end":
            raise self._unexpected("`and`, `or` or the end")
        return found

    def _alternatives(self) -> Condition:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _TextError(f"nested deeper than {MAX_DEPTH} levels", self._token.start)
        found = [self._conjunction()]
        while self._accept("or"):
            found.append(self._conjunction())
        self._depth -= 1
        return found[0] if len(found) == 1 else AnyOf(tuple(found))

    def _conjunction(self) -> Condition:
        found = [self._negation()]
        while self._accept("and"):
            found.append(self._negation())
        return found[0] if len(found) == 1 else AllOf(tuple(found))

    def _negation(self) -> Condition:
        turned = False
        while self._accept("not"):
            turned = not turned
        found = self._bracket() if self._accept("(") else self._claim()
        return Not(found) if turned else found

    def _bracket(self) -> Condition:
        found = self._alternatives()
        if not self._accept(")"):
            raise self._unexpected("`)`")
        return found

    def _claim(self) -> Condition:
        if self._token.kind == "name" and self._token.value in WHOLE_CLAIMS:
            whole = WHOLE_CLAIMS[self._token.value]
            self._advance()
            return whole
        subject = self._subject()
        word = self._operator()
        operator, _ = OPERATORS[word]
        operand: Any = None
        if operator not in WITHOUT_OPERAND:
            operand = self._operand(operator, word)
        options = self._options()
        return make_claim(subject, word, operand, options, self._path, self._faults)

    def _subject(self) -> Subject:
        token = self._token
        if token.kind != "name":
            raise self._unexpected("an Attribute, a fact, `not` or `(`")
        self._advance()
        if token.value in FACT_NAMES:
            return Fact(FACT_NAMES[token.value])
        return self._attribute(token)

    def _attribute(self, token: _Token) -> AttributePath:
        try:
            return AttributePath.parse(token.value)
        except ValueError as error:
            hint = nearest(token.value, FACT_NAMES) if token.value.islower() else ""
            raise _TextError(str(error), token.start, hint) from None

    def _operator(self) -> str:
        """The longest run of words, or the symbol, that is an operator."""
        token = self._token
        if token.kind == "symbol" and token.value in OPERATORS:
            self._advance()
            return str(token.value)
        words: list[str] = []
        best, after = "", token
        while token.kind == "name" and len(words) < _MAX_OPERATOR_WORDS:
            words.append(token.value.lower())
            if " ".join(words) in OPERATORS:
                best, after = " ".join(words), token
            token = self._token_at(token.end)
        if not best:
            wanted = self._token.value if self._token.kind == "name" else ""
            hint = nearest(str(wanted), [name for name in OPERATORS if name[0].isalpha()])
            raise self._unexpected("an operator", hint)
        self._operator_end = after.end
        self._token = self._token_at(after.end)
        return best

    def _operand(self, operator: str, word: str) -> Any:
        if operator == "regex" and self._token.kind != "text":
            return self._rest()
        if operator == "between":
            low = self._scalar()
            if not self._accept("and"):
                raise self._unexpected("`and` and the highest value")
            return (low, self._scalar())
        if operator in WITH_LIST:
            if self._token.kind == "text" and word in ("in", "not in"):
                return (self._scalar(),)
            return self._list()
        return self._scalar(attributes=True)

    def _rest(self) -> str:
        pattern = self._text[self._operator_end :].strip()
        if not pattern:
            raise self._unexpected("a pattern")
        self._token = _Token("end", "", len(self._text), len(self._text))
        return pattern

    def _list(self) -> tuple[Any, ...]:
        if not self._accept("["):
            raise self._unexpected('a list such as ["CT", "MR"]')
        values: list[Any] = []
        while not self._accept("]"):
            if values and not self._accept(","):
                raise self._unexpected("`,` or `]`")
            values.append(self._scalar())
        return tuple(values)

    def _scalar(self, *, attributes: bool = False) -> Any:
        token = self._token
        if token.kind == "name" and token.value.isdigit():  # 20240203 is also a tag's form
            self._advance()
            return token.value
        if token.kind == "name" and attributes:
            try:
                operand = AttributePath.parse(token.value)
            except ValueError:
                raise _TextError(
                    f"{token.value!r} names no Attribute", token.start, "put text in quotes"
                ) from None
            self._advance()
            return operand
        if token.kind not in ("text", "number"):
            raise self._unexpected("a value", "put text in quotes")
        self._advance()
        return token.value

    def _options(self) -> Options:
        options = Options()
        while self._token.kind == "name":
            if self._accept_words("ignoring", "case"):
                options = replace(options, ignore_case=True)
            elif self._accept_words("for", "every", "value"):
                options = replace(options, every=True)
            elif part := self._accept_part("group", tuple(COMPONENT_GROUPS)):
                options = replace(options, group=part)
            elif part := self._accept_part("name", tuple(COMPONENTS)):
                options = replace(options, component=part)
            else:
                break
        return options

    def _accept_part(self, noun: str, names: tuple[str, ...]) -> str:
        return next((name for name in names if self._accept_words("in", name, noun)), "")

    def _accept_words(self, *words: str) -> bool:
        token = self._token
        for word in words:
            if token.kind != "name" or token.value != word:
                return False
            token = self._token_at(token.end)
        self._token = token
        return True

    def _accept(self, value: str) -> bool:
        token = self._token
        if token.kind in ("name", "symbol") and token.value.lower() == value:
            self._advance()
            return True
        return False

    def _advance(self) -> None:
        self._token = self._token_at(self._token.end)

    def _token_at(self, position: int) -> _Token:
        found = _TOKEN.match(self._text, position)
        if found is None:
            start = len(self._text) - len(self._text[position:].lstrip())
            return _Token("unreadable", self._text[start], start, start)
        kind = str(found.lastgroup)
        value: Any = found[kind]
        if kind == "text":
            value = _ESCAPE.sub(r"\1", value[1:-1])
        elif kind == "number":
            value = _number(value)
        return _Token(kind, value, found.start(kind), found.end(kind))

    def _unexpected(self, wanted: str, hint: str = "") -> _TextError:
        if self._token.kind == "unreadable" and self._token.value in "\"'":
            hint = "the quote is not closed"
        return _TextError(f"expected {wanted}", self._token.start, hint)


def _number(text: str) -> str | int | float:
    """A number; one with a leading zero stays text, for it is a time such as 0830."""
    if set(text) & set(".eE"):
        return float(text)
    return text if text.startswith("0") and len(text) > 1 else int(text)
