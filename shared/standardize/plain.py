"""Terms of any other vocabulary, from the raw value alone."""

from __future__ import annotations

from shared.standardize.body_part import Finding
from shared.standardize.lexicon import Lexicon, Match
from shared.standardize.proposals import Evidence, Question
from shared.standardize.text import words
from shared.standardize.vocabulary import Vocabulary

_SURENESS = {Match.EXACT: 0.95, Match.STEM: 0.9, Match.MISSPELT: 0.6}


class TermFinder:
    """Finds the term of a vocabulary that a raw value is: exactly, but for case and accents, by a
    synonym, or (less surely) misspelt.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        own = [(term, term) for term in vocabulary.terms if words(term)]
        self._lexicon = Lexicon([*vocabulary.phrases, *own])

    def find(self, question: Question) -> Finding:
        raw = question.raw_value.strip()
        if raw in self._vocabulary:
            return Finding(raw, 1.0, (Evidence(question.attribute, raw, "already a term"),))
        said = words(raw)
        mentions = self._lexicon.find(raw)
        if len(mentions) == 1 and (mentions[0].start, mentions[0].end) == (0, len(said)):
            one = mentions[0]
            sureness = _SURENESS.get(one.match, 0)
            if sureness and self._vocabulary.may_propose(one.meaning):
                evidence = Evidence(question.attribute, one.phrase, one.match.value)
                return Finding(one.meaning, sureness, (evidence,))
        return Finding(None, 0, (Evidence("", "", "no term or synonym"),))
