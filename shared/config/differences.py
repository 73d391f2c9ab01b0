"""What differs between two configurations, place by place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct


class Difference(Struct, frozen=True):
    """One place that differs. `before` or `after` is None where there is nothing."""

    path: str  # rulesets[main].rules[ct].destinations
    before: Any
    after: Any

    def as_json(self) -> dict[str, Any]:
        """As the API and the command line show it."""
        return {"path": self.path, "before": self.before, "after": self.after}


def differences(before: Any, after: Any) -> list[Difference]:
    """What differs between two plain values; entities and rules are told apart by their names."""
    return list(_differences("", before, after))


def _differences(path: str, before: Any, after: Any) -> Iterator[Difference]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys([*before, *after]):
            below = f"{path}.{name}" if path else str(name)
            yield from _differences(below, before.get(name), after.get(name))
        return
    named_before, named_after = _by_name(before), _by_name(after)
    if named_before is None or named_after is None:
        yield Difference(path, before, after)
        return
    for name in dict.fromkeys([*named_before, *named_after]):
        yield from _differences(f"{path}[{name}]", named_before.get(name), named_after.get(name))
    if named_before.keys() == named_after.keys() and list(named_before) != list(named_after):
        yield Difference(f"{path} (order)", list(named_before), list(named_after))


def _by_name(value: Any) -> dict[str, Any] | None:
    """A list of things with different names, by name; None for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    names = [one.get("name") if isinstance(one, Mapping) else None for one in value]
    if None in names or len(set(names)) != len(names):
        return None
    return dict(zip(map(str, names), value, strict=True))
