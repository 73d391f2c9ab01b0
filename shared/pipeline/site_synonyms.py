"""What people of the site said once and for all: this phrase means that term, from now on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shared.ports import DocumentStore, Page
from shared.standardize.chain import Decision, Verdict
from shared.standardize.kept import fingerprint
from shared.standardize.proposals import Evidence, Proposal, Question
from shared.standardize.text import words
from shared.standardize.vocabulary import Vocabulary

COLLECTION: Final = "standardization-synonyms"
PROVIDER: Final = "site"
# Where the phrase may stand: in the Attribute itself, else in the text that says most.
SOURCES: Final = ("SeriesDescription", "ProtocolName", "StudyDescription")


class SiteSynonyms:
    """The documents: few, each for one phrase in one Attribute."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    def decision(self, question: Question, vocabulary: Vocabulary) -> Decision | None:
        """What was said about the question's phrase, if it is a term still. A phrase in another
        Attribute counts only where there is no raw value.
        """
        for source, text in _phrases(question):
            found = self._documents.get(COLLECTION, _key(question.attribute, source, text))
            if found is None or found.data["value"] not in vocabulary:
                continue
            value = found.data["value"]
            proposal = Proposal(
                value,
                1.0,
                (Evidence(source, found.data["phrase"], f"site synonym by {found.data['by']}"),),
                PROVIDER,
                "",
                vocabulary.name,
                vocabulary.edition,
            )
            is_there = value == question.raw_value.strip()
            verdict = Verdict.KEEP if is_there else Verdict.SET
            return Decision(verdict, proposal, is_certain=True)
        return None

    def add(self, question: Question, value: str, *, by: str, at: str) -> Mapping[str, Any] | None:
        """Say that the question's phrase means `value`; None if the question has none."""
        phrases = _phrases(question)
        if not phrases:
            return None
        source, text = phrases[0]
        key = _key(question.attribute, source, text)
        data = {
            "key": key,
            "attribute": question.attribute,
            "source": source,
            "phrase": " ".join(words(text)),
            "value": value,
            "by": by,
            "at": at,
        }
        return self._documents.put(COLLECTION, key, data).data

    def page(self, limit: int, cursor: str | None) -> Page:
        """The synonyms, newest first. Raises: ValueError for a foreign cursor."""
        return self._documents.query(
            COLLECTION, order_by="at", descending=True, limit=limit, cursor=cursor
        )

    def delete(self, key: str) -> Mapping[str, Any] | None:
        """Take one back; what was decided by it stays. None if there is none."""
        found = self._documents.get(COLLECTION, key)
        if found is None:
            return None
        self._documents.delete(COLLECTION, key)
        return found.data


def _phrases(question: Question) -> list[tuple[str, str]]:
    """Where the question's phrase may stand, the text that counts most first."""
    if words(question.raw_value):
        return [(question.attribute, question.raw_value)]
    found = [(source, question.context.get(source, "")) for source in SOURCES]
    return [(source, text) for source, text in found if words(text)][:1]


def _key(attribute: str, source: str, text: str) -> str:
    return fingerprint(attribute, source, words(text))[:32]
