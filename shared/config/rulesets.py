"""Rulesets as parts of a configuration: what they say of each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shared.config.entity import by_name, entities
from shared.errors import Fault
from shared.rules.reading import nearest


def ruleset_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong between the rulesets of a configuration document: a shadow stands in the place
    of one that there is.
    """
    names = by_name(document, "rulesets")
    for i, entity in enumerate(entities(document, "rulesets")):
        replaced = entity.get("replaces")
        others = [name for name in names if name != entity.get("name")]
        if isinstance(replaced, str) and replaced and replaced not in others:
            hint = nearest(replaced, others)
            message = f"there is no other ruleset {replaced[:100]!r}"
            yield Fault(f"rulesets[{i}].replaces", message, hint)
