"""What is wrong with a field, in our words."""

from __future__ import annotations

import difflib
from functools import cache
from typing import TYPE_CHECKING, Final

from shared.config.entities import Configuration
from shared.errors import Fault

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def field_fault(path: str, found: ErrorDetails) -> Fault:
    """What pydantic found at `path`; what it knows no better words for than its own keeps them.

    Nothing of the document is repeated but names of fields and types: a Value may be a secret.
    """
    kind, context = found["type"], found.get("ctx", {})
    path = path.removesuffix(".[key]")  # what is wrong with a name in an object, not its value
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
    if kind in _WORDS:
        return Fault(path, _WORDS[kind].format(**context))
    if kind == "string_pattern_mismatch":
        pattern = str(context["pattern"])
        return Fault(path, _PATTERNS.get(pattern, f"must fit the pattern {pattern}"))
    if kind in ("string_too_short", "too_short") and context["min_length"] == 1:
        return Fault(path, "must not be empty")
    return Fault(path, found["msg"].removeprefix("Value error, "))


_OBJECT: Final = "must be an object"
_LIST: Final = "must be a list"
_WORDS: Final = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _OBJECT,
    "mapping_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "string_too_long": "must have {max_length} characters at most",
    "too_long": "must have {max_length} entries at most",
}
_ADDRESS: Final = "must be an address that begins with http:// or https://, without ? and #"
_BUCKET: Final = (
    "must be the name of a bucket: small letters, digits and . _ - within, of 3 to 222 characters"
)
# What the patterns of the entities ask for.
_PATTERNS: Final = {
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$": (
        "must be of letters, digits and, after the first, _ . -, of 1 to 63 characters"
    ),
    r"^https?://[^\s?#]+$": _ADDRESS,
    r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$": _BUCKET,
    r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,255}$": (
        "must be of letters, digits and, after the first, _ . : -, of 1 to 256 characters"
    ),
    r"^[\w$# -]+$": "must be of letters, digits, spaces and _ $ # -",
    r"^[\w$# -]+(\.[\w$# -]+){0,2}$": (
        "must be of letters, digits, spaces and _ $ # -, in up to three parts with dots between"
    ),
    r"^[\w./:@-]{1,200}$": "must be of letters, digits and _ . / : @ -, of 1 to 200 characters",
    r"^[a-z0-9.:-]{1,100}$": "must be of small letters, digits and . : -, of 1 to 100 characters",
    r"^[a-z0-9-]{1,40}$": "must be of small letters, digits and -, of 1 to 40 characters",
}


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else ""


@cache
def _fields() -> list[str]:
    """The names of all fields that some part of the configuration has."""
    schema = Configuration.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    return sorted({name for part in parts for name in part.get("properties", {})})
