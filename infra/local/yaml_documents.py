"""YAML as people mean it in configuration: an unquoted date is text, a key given twice is a fault.

Values are made from the parser's events, so that neither time nor depth runs away: PyYAML's own
constructor takes half a minute for twenty thousand rules, and its C loader crashes where nesting
does not end.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import yaml

_MAX_DEPTH: Final = 200
_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NO_TAG: Final = (None, "!")
_COLLECTIONS: Final = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Scalars(yaml.SafeLoader):
    """Only resolves and makes single values."""


_Scalars.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


_RESOLVER: Final[Any] = _Scalars("")


def parse_yaml(text: str) -> Any:
    """The one document of the text; None if it is empty.

    Raises: ValueError or YAMLError in words; RecursionError for what is nested deeper than 200
    levels, or within itself.
    """
    builder = _Builder()
    for event in yaml.parse(text, Loader=_Loader):
        builder.take(event)
    return builder.result


class _Open:
    """A list or an object that has not ended yet."""

    __slots__ = ("anchor", "key", "merged", "value", "wants_key")

    def __init__(self, value: list[Any] | dict[Any, Any], anchor: str | None) -> None:
        self.value, self.anchor = value, anchor
        self.wants_key = True
        self.key: Any = None
        self.merged: list[dict[Any, Any]] = []


class _Builder:
    def __init__(self) -> None:
        self.result: Any = None
        self._stack: list[_Open] = []
        self._anchors: dict[str, Any] = {}
        self._documents = 0

    def take(self, event: Any) -> None:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._add(_scalar_of(event), event, event.anchor)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            if event.tag not in (*_NO_TAG, *_COLLECTIONS):
                raise _fault(f"no value can be made of {event.tag!r}", event)
            if len(self._stack) >= _MAX_DEPTH:
                raise RecursionError
            value: Any = {} if kind is yaml.MappingStartEvent else []
            self._stack.append(_Open(value, event.anchor))
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._close(event)
        elif kind is yaml.AliasEvent:
            if any(part.anchor == event.anchor for part in self._stack):
                raise RecursionError
            if event.anchor not in self._anchors:
                raise _fault(f"there is no anchor {event.anchor!r} before", event)
            self._add(self._anchors[event.anchor], event, None)
        elif kind is yaml.DocumentStartEvent:
            self._documents += 1
            if self._documents > 1:
                raise _fault("a second document begins", event)

    def _close(self, event: Any) -> None:
        part = self._stack.pop()
        for merged in part.merged:
            assert isinstance(part.value, dict)
            part.value = {**merged, **part.value}
        self._add(part.value, event, part.anchor)

    def _add(self, value: Any, event: Any, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = value
        if not self._stack:
            self.result = value
            return
        part = self._stack[-1]
        if isinstance(part.value, list):
            part.value.append(value)
        elif part.wants_key:
            self._take_key(part, value, event)
        else:
            part.wants_key = True
            if part.key == "<<":
                part.merged += self._merged(value, event)
            else:
                part.value[part.key] = value

    def _take_key(self, part: _Open, value: Any, event: Any) -> None:
        if isinstance(value, list | dict):
            raise _fault("a list or an object cannot be a key", event)
        if value in part.value:
            raise _fault(f"{value!r} is there twice", event)
        part.key, part.wants_key = value, False

    def _merged(self, value: Any, event: Any) -> list[dict[Any, Any]]:
        """What `<<` brings; of several the first counts."""
        several = value if isinstance(value, list) else [value]
        if not all(isinstance(one, dict) for one in several):
            raise _fault("`<<` takes an object, or a list of them", event)
        return several


def _scalar_of(event: Any) -> Any:
    if event.tag not in _NO_TAG:
        return _made(event.tag, event.value)
    return _plain(event.value) if event.implicit[0] else event.value


@lru_cache(maxsize=4096)
def _plain(text: str) -> Any:
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    return text if tag.endswith((":str", ":merge", ":value")) else _made(tag, text)


def _made(tag: str, text: str) -> Any:
    return _Scalars("").construct_object(yaml.ScalarNode(tag, text))


def _fault(words: str, event: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, words, event.start_mark)
