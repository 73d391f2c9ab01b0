"""Laterality and Image Laterality from what a series says of itself."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from shared.standardize.anatomy import anatomy
from shared.standardize.body_part import DESCRIPTIONS, Finding, read
from shared.standardize.lexicon import Lexicon, Match, Mention
from shared.standardize.proposals import Evidence, Question
from shared.standardize.text import is_unspaced
from shared.standardize.vocabulary import built_in

ATTRIBUTE = "Laterality"

_TOLD = 0.95
_BY_LETTER = 0.88
_BOTH_NAMED = 0.85
# Abbreviations that are no other word; the rest count beside a paired part alone.
_CLEAR = frozenset({"rt", "lt", "rgt", "lft", "bil", "bds"})
_LONGEST_ABBREVIATION = 3
# A lone L or R is a side only beside a paired part or a mammography view: L SPINE is no left one.
_VIEWS = "CC|MLO|ML|LM|LMO|XCCL|XCCM|XCC|FB|SIO|ISO"
_BEFORE_VIEW = re.compile(rf"(?<![A-Z0-9])([LR])[\s_\-]?(?:{_VIEWS})(?![A-Z0-9])")
_LETTER = re.compile(r"(?<![A-Z0-9+/])([LR])(?![A-Z0-9/+])")


def find_side(question: Question) -> Finding:
    """R, L, B or U; a legal Value stays. None if nothing tells a side, or the part has none."""
    raw = question.raw_value.strip()
    if raw in built_in(ATTRIBUTE):
        return Finding(raw, 1.0, (Evidence(question.attribute, raw, "already a term"),))
    modality = question.context.get("Modality", "").strip().upper()
    texts = [(question.attribute, raw)]
    texts += [
        (source, question.context.get(source, "")) for source in (*DESCRIPTIONS, "BodyPartExamined")
    ]
    for source, text in texts:
        if text.strip():
            found = _side_in(source, text, modality, source == question.attribute)
            if found is not None:
                return found
    return Finding(None, 0, (Evidence("", "", "no text tells a side"),))


@cache
def _lexicon() -> Lexicon:
    return Lexicon(built_in(ATTRIBUTE).phrases)


@lru_cache(maxsize=4096)
def _side_in(source: str, text: str, modality: str, is_own: bool) -> Finding | None:
    """The side that `text` tells; in the Attribute itself (`is_own`) an abbreviation is one."""
    mentions = _lexicon().find(text)
    # A side is a short word: one that had to be guessed is none.
    told = [one for one in mentions if one.match in (Match.EXACT, Match.STEM)]
    if not is_own and not _is_of_a_paired_part(text, modality):
        told = [one for one in told if not _is_abbreviated(one)]
    sides = {one.meaning for one in told}
    if sides:
        return _finding(source, sides, told[0])
    upper = text.upper()
    letters = set(_BEFORE_VIEW.findall(upper)) if modality in ("MG", "CT", "") else set()
    if not letters and _is_of_a_paired_part(text, modality):
        letters = set(_LETTER.findall(upper))
    if not letters:
        return None
    side = letters.pop() if len(letters) == 1 else "B"
    return Finding(side, _BY_LETTER, (Evidence(source, side, "letter beside the part or view"),))


def _finding(source: str, sides: set[str], first: Mention) -> Finding:
    evidence = (Evidence(source, first.phrase, first.match.value),)
    if len(sides) == 1:
        return Finding(first.meaning, _TOLD, evidence)
    return Finding("B", _BOTH_NAMED, evidence)


def _is_abbreviated(mention: Mention) -> bool:
    """True for what may be another word: `sag` is Turkish for right, and sagittal."""
    phrase = mention.phrase
    plain = phrase.isascii() and phrase in _CLEAR
    return not (plain or is_unspaced(phrase) or phrase.startswith("=")) and (
        len(phrase.rstrip("*")) <= _LONGEST_ABBREVIATION
    )


def _is_of_a_paired_part(text: str, modality: str) -> bool:
    terms = built_in("BodyPartExamined").terms
    body = anatomy()
    return any(
        place in terms and terms[place].is_paired and not body.lies_in(place, "SPINE")
        for place in read("SeriesDescription", text, modality).mentioned
    )
