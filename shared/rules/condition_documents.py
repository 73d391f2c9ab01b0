"""Read conditions from documents: the long form, the short form, and text.

Long form: {"type": "tag_equals", "tag": "Modality", "value": "CT"}. Short form:
{"Modality": "CT"}, {"SliceThickness": {">=": 1, "<": 2}}, {"any": [...]}. Text:
'Modality == "CT"'. A list means all of its conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shared.dicom.paths import AttributePath
from shared.rules.claims import (
    FACT_NAMES,
    OPERATORS,
    OPTION_NAMES,
    WITH_LIST,
    WITHOUT_OPERAND,
    Options,
    make_claim,
    operator_fault,
    read_options,
)
from shared.rules.condition_text import parse_text
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
from shared.rules.reading import Faults, Fields, kind_of, nearest, read_attribute

MAX_CONDITIONS = 1_000  # in one list

_STAND_IN: Final = AllOf(())
_COMBINATIONS: Final = ("all", "any", "not")


def read_conditions(document: Any, path: str, faults: Faults, depth: int = 0) -> Condition:
    """One condition, or a list of which all must hold."""
    if depth > MAX_DEPTH:
        faults.add(path, f"is nested deeper than {MAX_DEPTH} levels")
        return _STAND_IN
    if isinstance(document, str):
        return parse_text(document, path, faults)
    if isinstance(document, (list, tuple)):
        return AllOf(_read_list(document, path, faults, depth))
    if not isinstance(document, Mapping):
        faults.add(path, f"must be a condition, not {kind_of(document)}")
        return _STAND_IN
    if "type" in document:
        return _read_long(Fields(document, path, faults), depth)
    return _read_short(document, path, faults, depth)


def _read_list(document: Any, path: str, faults: Faults, depth: int) -> tuple[Condition, ...]:
    if not isinstance(document, (list, tuple)):
        faults.add(path, f"must be a list of conditions, not {kind_of(document)}")
        return ()
    if len(document) > MAX_CONDITIONS:
        faults.add(path, f"has {len(document)} conditions, at most {MAX_CONDITIONS} are allowed")
        return ()
    return tuple(
        read_conditions(one, f"{path}[{number}]", faults, depth + 1)
        for number, one in enumerate(document)
    )


# ---- the long form --------------------------------------------------------------------------


def _read_long(fields: Fields, depth: int) -> Condition:
    kind = fields.text("type")
    condition: Condition = _STAND_IN
    if kind in _COMBINATIONS:
        condition = _read_combination(kind, fields, depth)
    elif kind == "returned":
        condition = Returned()
    elif kind.startswith("tag_") and kind[4:] in OPERATORS:
        subject = fields.attribute("tag")
        condition = _read_claim(subject, kind[4:], fields)
    elif kind in FACT_NAMES:
        word = _read_operator(fields)
        condition = _read_claim(Fact(FACT_NAMES[kind]), word, fields)
    elif kind:
        known = [f"tag_{word}" for word in OPERATORS if word.replace("_", "").isalpha()]
        known += [*_COMBINATIONS, "returned", *FACT_NAMES]
        fields.fault("type", f"{kind[:100]!r} is no type of condition", nearest(kind, known))
        return condition
    fields.close()
    return condition


def _read_combination(kind: str, fields: Fields, depth: int) -> Condition:
    key = "condition" if kind == "not" and not fields.has("conditions") else "conditions"
    if not fields.has(key):
        fields.fault(key, "is missing")
        return _STAND_IN
    inner = fields.raw(key)
    if kind == "not":
        return Not(read_conditions(inner, fields.at(key), fields.faults, depth + 1))
    combine = AllOf if kind == "all" else AnyOf
    return combine(_read_list(inner, fields.at(key), fields.faults, depth + 1))


def _read_operator(fields: Fields) -> str:
    """The operator of a Fact's condition; without one, equality or `in` by the value."""
    if not fields.has("operator"):
        return "in" if isinstance(fields.raw("value"), (list, tuple)) else "equals"
    word = fields.text("operator")
    if word and word not in OPERATORS:
        operator_fault(word, fields.at("operator"), fields.faults)
    return word if word in OPERATORS else "equals"


def _read_claim(subject: Subject, word: str, fields: Fields) -> Condition:
    options = read_options(fields)
    operator, _ = OPERATORS[word]
    operand: Any = None
    key = "value"
    if operator not in WITHOUT_OPERAND:
        if fields.has("other"):
            key = "other"
            operand = fields.attribute("other")
        elif operator in WITH_LIST and fields.has("values"):
            key = "values"
            operand = fields.raw("values")
        else:
            operand = fields.required("value")
            if operand is None:
                return _STAND_IN
    claim = make_claim(subject, word, operand, options, fields.at(key), fields.faults)
    if operator in WITHOUT_OPERAND and fields.has("value"):
        return _turned(claim, fields.raw("value"), fields.at("value"), fields.faults)
    return claim


# ---- the short form -------------------------------------------------------------------------


def _read_short(document: Mapping[Any, Any], path: str, faults: Faults, depth: int) -> Condition:
    if not document:
        faults.add(path, "is an empty condition")
    found: list[Condition] = []
    for key, value in document.items():
        at = f"{path}.{str(key)[:100]}"
        if key == "not":
            found.append(Not(read_conditions(value, at, faults, depth + 1)))
        elif key in ("all", "any"):
            combine = AllOf if key == "all" else AnyOf
            found.append(combine(_read_list(value, at, faults, depth + 1)))
        elif key == "returned":
            found.append(_turned(Returned(), value, at, faults))
        else:
            found.append(_read_short_claim(key, value, at, faults))
    return found[0] if len(found) == 1 else AllOf(tuple(found))


def _read_short_claim(key: Any, value: Any, path: str, faults: Faults) -> Condition:
    subject = _read_subject(key, path, faults)
    if subject is None:
        return _STAND_IN
    if not isinstance(value, Mapping):
        word = "in" if isinstance(value, (list, tuple)) else "equals"
        return make_claim(subject, word, value, Options(), path, faults)
    fields = Fields(value, path, faults)
    options = read_options(fields)
    claims: list[Condition] = []
    for word, operand in value.items():
        if word in OPTION_NAMES:
            continue
        if word not in OPERATORS:
            operator_fault(str(word)[:100], f"{path}.{str(word)[:100]}", faults)
            continue
        claims.append(_read_short_operand(subject, word, operand, options, path, faults))
    if not claims and not len(faults):
        faults.add(path, "names no operator")
    return claims[0] if len(claims) == 1 else AllOf(tuple(claims))


def _read_short_operand(
    subject: Subject, word: str, operand: Any, options: Options, path: str, faults: Faults
) -> Condition:
    at = f"{path}.{word}"
    if OPERATORS[word][0] in WITHOUT_OPERAND:
        return _turned(make_claim(subject, word, None, options, at, faults), operand, at, faults)
    if isinstance(operand, Mapping):
        fields = Fields(operand, at, faults)
        operand = fields.attribute("attribute")
        fields.close()
    return make_claim(subject, word, operand, options, at, faults)


def _read_subject(key: Any, path: str, faults: Faults) -> Subject | None:
    if key in FACT_NAMES:
        return Fact(FACT_NAMES[key])
    hint = nearest(str(key), (*FACT_NAMES, *_COMBINATIONS, "type", "returned"))
    if hint and str(key)[:1].islower():
        faults.add(path, f"{str(key)[:100]!r} is no Attribute, fact or combination", hint)
        return None
    before = len(faults)
    subject: AttributePath = read_attribute(key, path, faults)
    return subject if len(faults) == before else None


def _turned(claim: Condition, wanted: Any, path: str, faults: Faults) -> Condition:
    if not isinstance(wanted, bool):
        faults.add(path, f"must be true or false, not {kind_of(wanted)}")
    return Not(claim) if wanted is False else claim
