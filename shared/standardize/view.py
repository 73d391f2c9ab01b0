"""View Position from what a series says of itself."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from shared.standardize.body_part import DESCRIPTIONS, Finding
from shared.standardize.lexicon import Lexicon, Match
from shared.standardize.proposals import Evidence, Question
from shared.standardize.vocabulary import built_in

ATTRIBUTE = "ViewPosition"

_OTHER_VIEW = "?"  # a view that has no term
_TOLD = 0.93
# "Lateral" does not say which side is nearest; LL is the convention.
_BY_CONVENTION = 0.75
_LATERAL = frozenset({"LL"})
# "T Femur with knee a.p. Left": the dots would otherwise join a sentence.
_AP = re.compile(r"(?<![^\W_])([aApP])\.\s?([aApP])\.?(?![^\W_])")


def find_view(question: Question) -> Finding:
    """A view that the modality has; a legal Value stays. None if several or none are named."""
    raw = question.raw_value.strip()
    if raw in built_in(ATTRIBUTE):
        return Finding(raw, 1.0, (Evidence(ATTRIBUTE, raw, "already a term"),))
    modality = question.context.get("Modality", "").strip().upper()
    for source in (ATTRIBUTE, *DESCRIPTIONS):
        text = raw if source == ATTRIBUTE else question.context.get(source, "")
        if text.strip():
            found = _view_in(source, text, modality)
            if found is not None:
                return found
    return Finding(None, 0, (Evidence("", "", "no text tells a view"),))


@cache
def _lexicon() -> Lexicon:
    own = [(term, term) for term in built_in(ATTRIBUTE).terms]
    return Lexicon([*built_in(ATTRIBUTE).phrases, *own])


@lru_cache(maxsize=4096)
def _view_in(source: str, text: str, modality: str) -> Finding | None:
    """The view that `text` names; a Finding without a term if it names several; None if none."""
    terms = built_in(ATTRIBUTE).terms
    told = [
        one
        for one in _lexicon().find(_AP.sub(r" \1\2 ", text))
        if one.match in (Match.EXACT, Match.STEM)
        and (one.meaning == _OTHER_VIEW or modality in terms[one.meaning].modalities)
    ]
    views = {one.meaning for one in told}
    if not views:
        return None
    evidence = tuple(Evidence(source, one.phrase, one.match.value) for one in told)
    if len(views) > 1 or _OTHER_VIEW in views:
        return Finding(None, 0, evidence)
    sided = {"left", "right", "l", "r", "lt", "rt", "ll", "rl"} & set(told[0].phrase.split())
    view = views.pop()
    is_convention = view in _LATERAL and not sided
    return Finding(view, _BY_CONVENTION if is_convention else _TOLD, evidence)
