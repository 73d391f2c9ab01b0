"""Terms of any other vocabulary: exactly, by a synonym, or by the words that a text shares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.standardize.attributes import DESCRIPTIONS
from shared.standardize.body_part import Finding
from shared.standardize.lexicon import Lexicon, Match
from shared.standardize.proposals import Evidence, Question
from shared.standardize.ranking import Candidate, Ranking
from shared.standardize.text import words
from shared.standardize.vocabulary import Vocabulary

_SURENESS: Final = {Match.EXACT: 0.95, Match.STEM: 0.9, Match.MISSPELT: 0.6}
_SAME_WORDS: Final = 0.92
_SAME_BUT_MISSPELT: Final = 0.8
# The text has the whole term, and words that no term has: CTA, BIOPSY. For people to decide.
_AND_MORE: Final = 0.65
_PERHAPS: Final = 0.5
_LEAST_LIKENESS: Final = 0.6
_CLEAR_LEAD: Final = 0.1
# What another text says is that much less sure; and for people to decide, where the raw value says
# something else, or the text is of another level: Series of one Study are not to name it twice.
_OF_ANOTHER_TEXT: Final = 0.9
_FOR_PEOPLE: Final = 0.6
# By Attribute, the texts that may stand for it, best first.
_INSTEAD: Final = {
    "StudyDescription": ("RequestedProcedureDescription",),
    "RequestedProcedureDescription": ("StudyDescription",),
    "SeriesDescription": ("ProtocolName",),
    "ProtocolName": ("SeriesDescription",),
    "PerformedProcedureStepDescription": ("ProtocolName", "StudyDescription"),
}
_ORDER: Final = ("SeriesDescription", "ProtocolName", "StudyDescription")


class TermFinder:
    """Finds the term of a vocabulary that a raw value is, or that the descriptions tell: exactly,
    but for case and accents, by a synonym, or (less surely) by the words that they share.
    """

    def __init__(self, vocabulary: Vocabulary, *, looks_around: bool = False) -> None:
        """Without `looks_around` the raw value alone decides, and as a whole."""
        self._vocabulary = vocabulary
        own = [(term, term) for term in vocabulary.terms if words(term)]
        self._lexicon = Lexicon([*vocabulary.phrases, *own])
        self._ranking = Ranking(vocabulary) if looks_around else None

    def find(self, question: Question) -> Finding:
        raw = question.raw_value.strip()
        if raw in self._vocabulary:
            return Finding(raw, 1.0, (Evidence(question.attribute, raw, "already a term"),))
        best = self._in_text(question.attribute, raw, question)
        if best is not None and best.confidence > _FOR_PEOPLE:
            return best
        if self._ranking is not None:
            for source, most in _other_texts(question):
                found = self._in_text(source, question.context.get(source, ""), question)
                if found is None or found.confidence <= _PERHAPS:
                    continue  # people are to see what may be meant, and not all that is alike
                sureness = min(found.confidence * _OF_ANOTHER_TEXT, most)
                if best is None or sureness > best.confidence:
                    best = Finding(found.term, sureness, found.evidence)
        return best or Finding(None, 0, (Evidence("", "", "no term or synonym"),))

    def _in_text(self, source: str, text: str, question: Question) -> Finding | None:
        said = words(text)
        mentions = self._lexicon.find(text)
        if len(mentions) == 1 and (mentions[0].start, mentions[0].end) == (0, len(said)):
            one = mentions[0]
            sureness = _SURENESS.get(one.match, 0)
            if sureness and self._vocabulary.may_propose(one.meaning):
                evidence = Evidence(source, one.phrase, one.match.value)
                return Finding(one.meaning, sureness, (evidence,))
        if self._ranking is None or not said:
            return None
        modality = question.context.get("Modality", "").strip().upper()
        return _likest(source, self._ranking.candidates(text, modality))


def _likest(source: str, candidates: list[Candidate]) -> Finding | None:
    if not candidates or candidates[0].likeness < _LEAST_LIKENESS:
        return None
    best = candidates[0]
    evidence = (Evidence(source, best.phrase, "shared words"),)
    leads = len(candidates) == 1 or best.likeness - candidates[1].likeness >= _CLEAR_LEAD
    if not leads or not best.is_whole or best.has_more:
        return Finding(best.value, _PERHAPS, evidence)
    if best.likeness > 1 - 1e-9:
        return Finding(best.value, _SAME_BUT_MISSPELT if best.is_guess else _SAME_WORDS, evidence)
    return Finding(best.value, _PERHAPS if best.is_guess else _AND_MORE, evidence)


def _other_texts(question: Question) -> Iterator[tuple[str, float]]:
    """Where else to look, and how sure that may make."""
    attribute = question.attribute
    others = _INSTEAD.get(attribute, _ORDER)
    is_empty = not words(question.raw_value)
    yield from ((source, 1.0 if is_empty else _FOR_PEOPLE) for source in others)
    if attribute in DESCRIPTIONS:
        rest = (one for one in _ORDER if one != attribute and one not in others)
        yield from ((source, _FOR_PEOPLE) for source in rest)
