"""Read documents strictly: every fault is collected with its path, none stops the reading.

`Fields` reads one mapping. Each getter notes a Fault for a missing or wrong field and returns a
harmless stand-in, so that the reader can go on to the next field; what was read counts only if
no fault was noted. `close` refuses the keys that nobody asked for.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from shared.dicom.paths import AttributePath, UnknownAttributeError
from shared.errors import Fault, InvalidConfigurationError

MAX_FAULTS = 200
MAX_TEXT_LENGTH = 10_000
MAX_LIST_LENGTH = 10_000
MAX_VALUES = 500_000  # of a document, all its lists and objects together
MAX_NESTING = 100
MAX_PATTERN_STEPS = 1_000_000  # of all patterns of a document, as RE2 compiles them
_MAX_PATH_LENGTH = 1_000
# Given for what names no Attribute; an object of its own, to be known again by.
NO_ATTRIBUTE = AttributePath.of_tag(0x00100020)

C = TypeVar("C")


class Faults:
    """The faults found so far, at most MAX_FAULTS of them."""

    def __init__(self) -> None:
        self._found: list[Fault] = []
        self._pattern_steps = 0

    @property
    def can_take_patterns(self) -> bool:
        """False once the patterns of the document are too large, all together, or nobody would see
        what is wrong with one: finding out takes time.
        """
        return self._pattern_steps <= MAX_PATTERN_STEPS and len(self._found) < MAX_FAULTS

    def count_pattern(self, path: str, steps: int) -> None:
        """Count what a pattern at `path` takes; note it if it is too much with those before."""
        self._pattern_steps += steps
        if self._pattern_steps > MAX_PATTERN_STEPS:
            self.add(path, "is one pattern too many: all together they are too large")

    def add(self, path: str, message: str, hint: str = "") -> None:
        if len(self._found) < MAX_FAULTS:
            self._found.append(Fault(path, message, hint))

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._found)

    def raise_if_any(self) -> None:
        """Raises: InvalidConfigurationError with every fault."""
        if self._found:
            raise InvalidConfigurationError(*self._found)


def check_size(document: object, faults: Faults) -> bool:
    """Note a fault if the document holds more, or is nested deeper, than any that is meant.

    An alias in YAML can make much of little text: what is used again counts again.
    """
    left = [(document, 0)]
    count = 0
    while left:
        value, depth = left.pop()
        inner: Iterable[object] = ()
        if isinstance(value, Mapping):
            inner = value.values()
        elif isinstance(value, (list, tuple)):
            inner = value
        if depth == MAX_NESTING and (isinstance(value, (Mapping, list, tuple)) and value):
            faults.add("document", f"is nested deeper than {MAX_NESTING} levels")
            return False
        left += [(one, depth + 1) for one in inner]
        count += 1
        if count + len(left) > MAX_VALUES:
            faults.add("document", f"holds more than {MAX_VALUES} values")
            return False
    return True


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean X?` for the known word most like `word`, or nothing if none is alike."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(word.lower()[:200], by_lower, n=1, cutoff=0.6)
    return f"did you mean {by_lower[found[0]]}?" if found else ""


def kind_of(value: object) -> str:
    """What a person calls the JSON value."""
    names = {str: "text", bool: "true/false", int: "a number", float: "a number", list: "a list"}
    if value is None:
        return "nothing"
    return "an object" if isinstance(value, Mapping) else names.get(type(value), "another type")


def read_attribute(value: object, path: str, faults: Faults) -> AttributePath:
    """An Attribute by keyword, tag, or path through Sequences."""
    if not isinstance(value, str):
        faults.add(path, f"must name an Attribute, not {kind_of(value)}")
        return NO_ATTRIBUTE
    if len(faults) >= MAX_FAULTS:
        return NO_ATTRIBUTE  # looking for the nearest keyword takes time, and nobody would see it
    if len(value) > _MAX_PATH_LENGTH:
        faults.add(path, f"is longer than {_MAX_PATH_LENGTH} characters")
        return NO_ATTRIBUTE
    try:
        return AttributePath.parse(value)
    except UnknownAttributeError as error:
        faults.add(path, str(error))
    except ValueError as error:
        faults.add(path, f"is no Attribute: {error}")
    return NO_ATTRIBUTE


class Fields:
    """The fields of one mapping at `path` ("" for the document itself)."""

    def __init__(self, document: object, path: str, faults: Faults) -> None:
        if isinstance(document, Mapping):
            self._document: Mapping[Any, Any] = document
        else:
            faults.add(path or "document", f"must be an object, not {kind_of(document)}")
            self._document = {}
        self.path = path
        self.faults = faults
        self._asked: set[str] = set()

    def at(self, key: str) -> str:
        """The path of the field."""
        return f"{self.path}.{key}" if self.path else key

    def fault(self, key: str, message: str, hint: str = "") -> None:
        self.faults.add(self.at(key), message, hint)

    def has(self, key: str) -> bool:
        self._asked.add(key)
        return key in self._document

    def raw(self, key: str, default: Any = None) -> Any:
        self._asked.add(key)
        return self._document.get(key, default)

    def required(self, key: str) -> Any:
        """Whatever is there; a fault and None if nothing is."""
        if not self.has(key):
            self.fault(key, "is missing")
        return self.raw(key)

    def text(self, key: str, default: str | None = None, *, empty: bool = False) -> str:
        """Text of up to MAX_TEXT_LENGTH characters; required if `default` is None."""
        if not self.has(key):
            if default is None:
                self.fault(key, "is missing")
            return default or ""
        return self._as_text(self.raw(key), self.at(key), empty=empty)

    def texts(self, key: str, *, required: bool = True) -> tuple[str, ...]:
        """One text or a list of texts."""
        if not self.has(key):
            if required:
                self.fault(key, "is missing")
            return ()
        value = self.raw(key)
        if isinstance(value, str):
            return (self._as_text(value, self.at(key)),)
        return tuple(self._as_text(item, path) for path, item in self.items(key))

    def flag(self, key: str, default: bool) -> bool:
        value = self.raw(key, default)
        if not isinstance(value, bool):
            self.fault(key, f"must be true or false, not {kind_of(value)}")
            return default
        return value

    def integer(self, key: str, default: int | None, low: int, high: int) -> int:
        """A whole number from `low` to `high`; required if `default` is None."""
        if not self.has(key):
            if default is None:
                self.fault(key, "is missing")
            return low if default is None else default
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fault(key, f"must be a whole number, not {kind_of(value)}")
            return low
        if not low <= value <= high:
            self.fault(key, f"must be from {low} to {high}")
        return value

    def choice(self, key: str, choices: Mapping[str, C], default: str | None = None) -> C:
        """One of the words in `choices`, required if `default` is None."""
        value = self.text(key, default)
        if value in choices:
            return choices[value]
        if isinstance(self.raw(key, ""), str) and value:
            words = ", ".join(list(choices)[:12])
            self.fault(key, f"must be one of {words}", nearest(value, choices))
        return next(iter(choices.values()))

    def attribute(self, key: str) -> AttributePath:
        value = self.required(key)
        return read_attribute(value, self.at(key), self.faults) if self.has(key) else NO_ATTRIBUTE

    def attributes(self, key: str) -> tuple[AttributePath, ...]:
        """One Attribute or a list of them."""
        if not self.has(key):
            self.fault(key, "is missing")
            return ()
        value = self.raw(key)
        if isinstance(value, str):
            return (self.attribute(key),)
        return tuple(read_attribute(item, path, self.faults) for path, item in self.items(key))

    def items(self, key: str, limit: int = MAX_LIST_LENGTH) -> list[tuple[str, Any]]:
        """The items of a list, each with its path; nothing if the field is absent."""
        value = self.raw(key, [])
        if not isinstance(value, (list, tuple)):
            self.fault(key, f"must be a list, not {kind_of(value)}")
            return []
        if len(value) > limit:
            self.fault(key, f"has {len(value)} items, at most {limit} are allowed")
            return []
        return [(f"{self.at(key)}[{number}]", item) for number, item in enumerate(value)]

    def pairs(self, key: str) -> list[tuple[str, str, Any]]:
        """The entries of an object as (path, key, value); nothing if the field is absent."""
        value = self.raw(key, {})
        if not isinstance(value, Mapping):
            self.fault(key, f"must be an object, not {kind_of(value)}")
            return []
        if len(value) > MAX_LIST_LENGTH:
            self.fault(key, f"has {len(value)} entries, at most {MAX_LIST_LENGTH} are allowed")
            return []
        return [(f"{self.at(key)}.{name}", str(name), item) for name, item in value.items()]

    def close(self, also_known: Collection[str] = ()) -> None:
        """Note a fault for every key that was not asked for."""
        known = self._asked | set(also_known)
        for key in self._document:
            if key not in known:
                self.faults.add(
                    self.at(str(key)[:100]), "is no field here", nearest(str(key), known)
                )

    def _as_text(self, value: object, path: str, *, empty: bool = False) -> str:
        if not isinstance(value, str):
            hint = "put it in quotes" if kind_of(value) != "a list" else ""
            self.faults.add(path, f"must be text, not {kind_of(value)}", hint)
            return ""
        if not value and not empty:
            self.faults.add(path, "must not be empty")
        if len(value) > MAX_TEXT_LENGTH:
            self.faults.add(path, f"is longer than {MAX_TEXT_LENGTH} characters")
        return value[:MAX_TEXT_LENGTH]
