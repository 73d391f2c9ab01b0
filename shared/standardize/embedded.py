"""The provider that needs no network and no key: words, rules and an order of evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shared.errors import UnknownVocabularyError
from shared.standardize import body_part, side, view
from shared.standardize.body_part import Finding, find_body_part
from shared.standardize.plain import TermFinder
from shared.standardize.proposals import Proposal, Question
from shared.standardize.side import find_side
from shared.standardize.view import find_view
from shared.standardize.vocabulary import BUILT_IN, Vocabulary, built_in

# Rises with every change that may alter an answer, so that kept decisions are made anew.
MODEL = "lexicon-3"

_FINDERS: Mapping[str, Callable[[Question], Finding]] = {
    body_part.ATTRIBUTE: find_body_part,
    side.ATTRIBUTE: find_side,
    "ImageLaterality": find_side,
    view.ATTRIBUTE: find_view,
}


class EmbeddedStandardizer:
    """A Standardizer over the built-in vocabularies, and over a site's own by Attribute."""

    name = "embedded"
    model = MODEL

    def __init__(self, site: Mapping[str, Vocabulary] | None = None) -> None:
        """A site's vocabulary takes the place of the built-in one for its Attribute."""
        self._vocabularies = dict(site or {})
        self._finders = {
            name: TermFinder(one, looks_around=True).find
            for name, one in self._vocabularies.items()
        }

    def propose(self, question: Question) -> Proposal:
        attribute = question.attribute
        vocabulary = self._vocabularies.get(attribute)
        if vocabulary is None:
            if attribute not in BUILT_IN:
                raise UnknownVocabularyError(attribute)
            vocabulary = self._vocabularies[attribute] = built_in(attribute)
        finder = self._finders.get(attribute) or _FINDERS.get(attribute)
        if finder is None:
            finder = self._finders[attribute] = TermFinder(vocabulary).find
        found = finder(question)
        return Proposal(
            found.term,
            round(found.confidence, 3),
            found.evidence,
            self.name,
            MODEL,
            vocabulary.name,
            vocabulary.edition,
        )
