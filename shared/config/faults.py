"""What is wrong with a field, in our words."""

from __future__ import annotations

import difflib
from functools import cache
from typing import TYPE_CHECKING

from shared.config.entities import Configuration
from shared.errors import Fault

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def field_fault(path: str, found: ErrorDetails) -> Fault:
    """What pydantic found at `path`; what it knows no better words for than its own keeps them.

    Nothing of the document is repeated but names of fields and types: a Value may be a secret.
    """
    kind, context = found["type"], found.get("ctx", {})
    if kind == "missing":
        return Fault(path, "is missing")
    if kind == "extra_forbidden":
        return Fault(path, "is no field here", _nearest(path.rpartition(".")[2], _fields()))
    if kind == "union_tag_not_found":
        return Fault(f"{path}.type", "is missing")
    if kind == "union_tag_invalid":
        expected = context["expected_tags"]
        near = _nearest(str(context["tag"]), [tag.strip("'") for tag in expected.split(", ")])
        return Fault(f"{path}.type", f"must be one of {expected}", near)
    return Fault(path, found["msg"].removeprefix("Value error, "))


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else ""


@cache
def _fields() -> list[str]:
    """The names of all fields that some part of the configuration has."""
    schema = Configuration.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    return sorted({name for part in parts for name in part.get("properties", {})})
