"""What every place that rows come from has in common: keys, outputs, and finding one by the other.

Keys are compared as a person reads them, exactly but for spaces at the end, which a CHAR column
adds by itself; `integer` keys as numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from shared.config.crosswalks import CrosswalkMap
from shared.errors import CrosswalkAmbiguousError

Key = str | int
# Those of one row, in the order of the map's `match` and `outputs`; an absent output is None.
Keys = tuple[Key, ...]
Outputs = tuple[str | None, ...]

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_MAX_KEY_LENGTH: Final = 1_024
_INT64: Final = 2**63


class Rows(Protocol):
    """The rows that one map can find. Used from several threads at once."""

    def find(self, keys: Keys) -> Outputs | None:
        """The outputs of the one row that has these keys; None if there is none.

        Raises: CrosswalkAmbiguousError, CrosswalkUnavailableError, CrosswalkMisconfiguredError.
        """


class Index:
    """Rows in memory."""

    def __init__(self, map_name: str, rows: Iterable[tuple[Keys, Outputs]] = ()) -> None:
        self._map_name = map_name
        self._outputs: dict[Keys, Outputs | None] = {}  # None: more than one row
        self.count = 0
        for keys, outputs in rows:
            self.add(keys, outputs)

    def add(self, keys: Keys, outputs: Outputs) -> None:
        """Take one more row."""
        self.count += 1
        self._outputs[keys] = None if keys in self._outputs else outputs

    def find(self, keys: Keys) -> Outputs | None:
        """As `Rows.find`."""
        if keys not in self._outputs:
            return None
        outputs = self._outputs[keys]
        if outputs is None:
            raise CrosswalkAmbiguousError(self._map_name)
        return outputs


def keys_of(entity: CrosswalkMap, texts: Sequence[str | None]) -> Keys | None:
    """What rows are compared by; None if no row can have it: absent, too long, not a number."""
    keys = tuple(
        _key(text, match.type == "integer") for match, text in zip(entity.match, texts, strict=True)
    )
    return None if None in keys else tuple(key for key in keys if key is not None)


def _key(text: str | None, is_integer: bool) -> Key | None:
    if text is None or len(text) > _MAX_KEY_LENGTH:
        return None
    if is_integer:
        found = _INTEGER.fullmatch(text.strip(" "))
        number = int(text) if found else _INT64
        return number if -_INT64 <= number < _INT64 else None
    text = text.rstrip(" ")
    # No database keeps NUL in text, and what UTF-8 cannot say (lone surrogates) is nobody's text.
    is_text = "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
    return text if text and is_text else None
