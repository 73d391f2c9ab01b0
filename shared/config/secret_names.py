"""The secrets that a configuration names: where each is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_SUFFIX: Final = "_secret"


def secret_names(plain: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The place and the name of each, of a configuration as plain values; entities are told apart
    by their names (`sources[pacs].credentials.token_secret`).
    """
    if isinstance(plain, Mapping):
        for field, value in plain.items():
            place = f"{path}.{field}" if path else str(field)
            if isinstance(value, str) and field.endswith(_SUFFIX):
                yield place, value
            else:
                yield from secret_names(value, place)
    elif isinstance(plain, list | tuple):
        for i, one in enumerate(plain):
            name = one.get("name", i) if isinstance(one, Mapping) else i
            yield from secret_names(one, f"{path}[{name}]")
