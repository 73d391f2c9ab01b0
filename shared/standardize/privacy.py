"""What may leave the machine: Attributes that identify nobody, and of their text what names nobody.

A description is free text, and people type names and numbers into it. So of a text that leaves,
words go that stand in an identifying Attribute of the same Instance, what looks like a number, a
date, a name or an address, and what follows a title. Names of body parts, sides, views and
modalities stay. What is left may still hold a name that stands nowhere else in the Instance: who
cannot have that leaves descriptions out of the context.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Final

from shared.standardize.attributes import LOOKED_AT
from shared.standardize.proposals import Question
from shared.standardize.text import fold, is_unspaced, spelled_without_umlauts, words
from shared.standardize.vocabulary import BUILT_IN, built_in

_LEAST_LETTERS: Final = 2
_LEAST_DIGITS: Final = 3
_LEAST_INSIDE: Final = 4  # letters of a name that are looked for inside a longer word
_LEAST_UNSPACED: Final = 2  # the same in a script that has no spaces
_MONTHS: Final = "|".join(
    (
        "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?",
        "sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?",
        "januar|jänner|februar|märz|maerz|mrz|mai|juni|juli|okt(?:ober)?|dez(?:ember)?",
        "enero|ene|febrero|marzo|abril|abr|mayo|junio|julio|agosto|ago|septiembre|octubre",
        "noviembre|diciembre|dic|gennaio|febbraio|aprile|maggio|giugno|giu|luglio|settembre",
        "ottobre|ott|dicembre|janv(?:ier)?|f[eé]v(?:rier)?|mars|avr(?:il)?|juin|juil(?:let)?",
        "ao[uû]t|septembre|octobre|novembre|déc(?:embre)?|decembre|janeiro|fevereiro|março",
        "maio|junho|julho|setembro|outubro|dezembro|stycznia|lutego|marca|kwietnia|maja",
        "czerwca|lipca|sierpnia|września|października|listopada|grudnia",
    )
)
# Dates, times, UIDs, addresses, names as PN has them: whole, before words are looked at.
_SHAPES: Final = re.compile(
    rf"""\S*@\S*                                         # e-mail
      | \b(?:https?|www)\S*
      | \S*\^\S*                                        # Family^Given
      | \d+(?:\.\d+){{3,}}                                # UID, IP address
      | \d{{1,4}}\s?[./\-]\s?\d{{1,2}}\s?[./\-]\s?\d{{1,4}}   # date
      | \b\d{{1,2}}(?:st|nd|rd|th)?[\s.\-]{{0,2}}(?:{_MONTHS})\b(?:[\s.,\-]{{0,2}}\d{{2,4}})?
      | \b(?:{_MONTHS})[\s.\-]{{1,2}}\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?\s\d{{2,4}}\b)?
      | \d{{1,2}}:\d{{2}}(?::\d{{2}})?                        # time
      | \+\d[\d\s/()-]{{5,}}                              # telephone
    """,
    re.VERBOSE | re.IGNORECASE,
)
_TITLES: Final = frozenset(
    {
        *("dr", "dra", "doctor", "doktor", "prof", "professor", "md", "mrs", "miss"),
        *("herr", "frau", "mme", "madame", "monsieur", "sr", "sra", "pan", "pani", "signor"),
        *("patient", "patientin", "pat", "pt", "pac", "paciente", "name", "nom", "nombre", "dob"),
        *("born", "geb", "mrn", "ref", "referring", "tech", "technologist", "operator", "id"),
    }
)
_AFTER_A_TITLE: Final = 3  # words
_TOKEN: Final = re.compile(r"[^\W_]+(?:['\u2019`\-_.?][^\W_]+)*", re.UNICODE)


def without_identifiers(question: Question) -> Question:
    """The question as it may leave: the Attributes of LOOKED_AT alone, their texts cleaned."""
    context = {
        keyword: cleaned
        for keyword, text in question.context.items()
        if keyword in LOOKED_AT and (cleaned := clean(text, question.identifying))
    }
    raw_value = clean(question.raw_value, question.identifying)
    return replace(question, raw_value=raw_value, context=context, identifying=frozenset())


def clean(text: str, identifying: Iterable[str] = ()) -> str:
    """`text` without what may name somebody; `identifying` are folded words that do."""
    names = frozenset(identifying)
    inner = tuple(
        one
        for one in names
        if len(one) >= (_LEAST_UNSPACED if is_unspaced(one) else _LEAST_INSIDE)
        and one not in _known()
        and not one.isdigit()
    )
    text = _SHAPES.sub(" ", text)
    kept, end, after_title = [], 0, 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        separator, end = text[end : found.start()], found.end()
        parts = words(token)
        if set(parts) & _TITLES and not set(parts) & _known():
            after_title = _AFTER_A_TITLE
            continue
        is_suspect = after_title > 0 and not set(parts) <= _known()
        after_title = max(0, after_title - 1) if is_suspect else 0
        if is_suspect or _identifies(token, parts, names, inner):
            continue
        kept += [separator, token]
    return " ".join("".join(kept).split())


def _identifies(
    token: str, parts: tuple[str, ...], names: frozenset[str], inner: tuple[str, ...]
) -> bool:
    digits = sum(character.isdigit() for character in token)
    if digits > _LEAST_DIGITS or (digits == _LEAST_DIGITS and digits < len(token)):
        return True
    whole = fold(token)
    if whole in _known() or all(part in _known() for part in parts):
        return False
    others = words(spelled_without_umlauts(token))  # Müller is Mueller to others
    joined = ("".join(parts), "".join(others))
    for word in (*parts, *others, *joined, whole):
        least = _LEAST_DIGITS if word.isdigit() else _LEAST_LETTERS
        if len(word) >= least and word in names and word not in _known():
            return True
    return any(name in one for name in inner for one in joined)


@cache
def _known() -> frozenset[str]:
    """The words that our vocabularies know: they say what was examined, not who."""
    found: set[str] = set()
    for attribute in BUILT_IN:
        vocabulary = built_in(attribute)
        for phrase, _ in vocabulary.phrases:
            found.update(words(phrase))
        for term in vocabulary.terms.values():
            found.update(words(term.value))
            found.update(words(term.meaning))
    return frozenset(found) - _TITLES
