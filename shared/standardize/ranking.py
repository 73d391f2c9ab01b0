"""Which terms of a vocabulary a text may mean, by the words that they share.

Words that mean the same place, side, modality or use of contrast are one word here, in whatever
language: `IRM genou gauche` shares all it has with `MR KNEE LEFT`. A word that few terms have says
more than one that many have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

from rapidfuzz import fuzz, process

from shared.standardize.anatomy import anatomy
from shared.standardize.lexicon import Lexicon, Match
from shared.standardize.text import words
from shared.standardize.vocabulary import DATA, Vocabulary, built_in, read_phrases

_LEAST_RATIO: Final = 84
_LEAST_MISSPELT: Final = 5  # letters
_LEAST_SIDE: Final = 4  # letters: shorter words for a side are other words as well
_MOST: Final = 500  # phrases that are looked at closely
_SAYS_NOTHING: Final = frozenset(
    {
        *("and", "of", "the", "und", "et", "y", "e", "der", "des", "de", "i", "oraz"),
        *("routine", "standard", "protocol", "protokoll", "protocolo", "exam", "examination"),
        *("examen", "estudio", "study", "scan", "untersuchung", "badanie", "general"),
    }
)
# What a radiograph is called, and the modalities that people name in descriptions.
_RADIOGRAPH: Final = "xr|x ray|xray|rx|rtg|cr|dx|dr|rontgen|roentgen|radiograph|radiography"
_MODALITIES: Final = {
    **dict.fromkeys(("CR", "DX", "RG", "RF"), "modality XR"),
    **{one: f"modality {one}" for one in ("CT", "MR", "US", "MG", "PT", "NM")},
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A term that a text may mean.

    `likeness` runs from 0 to 1, where text and `phrase` say the same. The phrase `is_whole` if the
    text has all of it. `is_guess`: a word had to be taken for another. `has_more`: the text says
    something besides that other terms have.
    """

    value: str
    phrase: str
    likeness: float
    is_whole: bool
    is_guess: bool
    has_more: bool


@dataclass(frozen=True, slots=True)
class _Said:
    """A text as it is compared; `guessed` are those of its words that had to be guessed."""

    words: frozenset[str]
    guessed: frozenset[str]


class Ranking:
    """The terms of one vocabulary, ready to be asked for."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        own = ((value, value) for value in vocabulary.terms)
        self._phrases: list[tuple[str, str]] = []
        self._words: list[frozenset[str]] = []
        self._by_word: dict[str, list[int]] = {}
        self._by_all_words: dict[frozenset[str], list[int]] = {}
        for phrase, value in dict.fromkeys((*own, *vocabulary.phrases)):
            said = _said(phrase, is_vocabulary=True).words
            if said and vocabulary.may_propose(value):
                for word in said:
                    self._by_word.setdefault(word, []).append(len(self._phrases))
                self._by_all_words.setdefault(said, []).append(len(self._phrases))
                self._phrases.append((phrase, value))
                self._words.append(said)
        number = len(self._phrases)
        self._weights = {
            word: math.log(1 + number / len(phrases)) for word, phrases in self._by_word.items()
        }
        # A word that no term has may say much, or nothing.
        self._weight_of_others = math.log(1 + number) / 2
        self._phrase_weights = [sum(map(self._weight, said)) for said in self._words]
        self._spelt = [word for word in self._by_word if len(word) >= _LEAST_MISSPELT]

    def candidates(self, text: str, modality: str = "") -> list[Candidate]:
        """The terms that share a word with `text` and say nothing else of place, side or modality;
        one phrase of each, the likest first.

        Where the text names no modality, it is taken to name the one of its Series.
        """
        said = self._with_misspelt(_said(text))
        if not said.words:
            return []
        implied = _MODALITIES.get(modality, "")
        if any(one.startswith("modality ") for one in said.words):
            implied = ""
        best: dict[str, Candidate] = {}
        for number in self._near(said, implied):
            if _contradict(self._words[number], said.words):
                continue
            one = self._candidate(number, said, implied)
            if one.value not in best or one.likeness > best[one.value].likeness:
                best[one.value] = one
        return sorted(best.values(), key=lambda one: (-one.likeness, one.value))

    def shortlist(self, texts: Iterable[str], modality: str, number: int) -> list[str]:
        """So many terms, those first that are likest to any of the texts."""
        likeness: dict[str, float] = {}
        for text in texts:
            for one in self.candidates(text, modality):
                likeness[one.value] = max(likeness.get(one.value, 0.0), one.likeness)
        ranked = sorted(likeness, key=lambda value: -likeness[value])
        rest = (value for _, value in self._phrases if value not in likeness)
        return list(dict.fromkeys((*ranked, *rest)))[:number]

    def _near(self, said: _Said, implied: str) -> Iterator[int]:
        """The phrases that share a word with the text: all that are the same, then those with its
        rarest words.
        """
        same = (said.words, said.words | {implied})
        found = {number: None for words in same for number in self._by_all_words.get(words, ())}
        for word in sorted(said.words & self._by_word.keys(), key=self._weight, reverse=True):
            found.update(dict.fromkeys(self._by_word[word][:_MOST]))
            if len(found) >= _MOST:
                break
        return iter(found)

    def _candidate(self, number: int, said: _Said, implied: str) -> Candidate:
        phrase, value = self._phrases[number]
        mine = self._words[number]
        text = said.words | {implied} if implied in mine else said.words
        weight = sum(map(self._weight, text)) + self._phrase_weights[number]
        return Candidate(
            value,
            phrase,
            2 * sum(map(self._weight, mine & text)) / weight,
            mine <= text,
            bool(said.guessed & mine),
            any(word in self._by_word for word in text - mine),
        )

    def _weight(self, word: str) -> float:
        return self._weights.get(word, self._weight_of_others)

    def _with_misspelt(self, said: _Said) -> _Said:
        """Words that no term has, taken for the one that they are nearly spelt as."""
        found: dict[str, str] = {}
        for word in said.words:
            if len(word) >= _LEAST_MISSPELT and word not in self._by_word and " " not in word:
                near = process.extractOne(
                    word, self._spelt, scorer=fuzz.ratio, score_cutoff=_LEAST_RATIO
                )
                if near is not None and near[0][0] == word[0]:
                    found[word] = near[0]
        if not found:
            return said
        spelt = frozenset(found.get(word, word) for word in said.words)
        return _Said(spelt, said.guessed | frozenset(found.values()))


@cache
def _lexicon() -> Lexicon:
    """What is one word here: places, sides, modalities, use of contrast."""
    parts = built_in("BodyPartExamined")
    found: dict[str, str] = {}
    for phrase, meaning in read_phrases(DATA / "contrast_synonyms.csv"):
        found.setdefault(phrase, f"contrast {meaning}")
    for phrase, term in _modality_phrases():
        found.setdefault(phrase, _MODALITIES[term])
    for phrase, side in (*built_in("Laterality").phrases, ("l", "L"), ("r", "R")):
        if side in ("L", "R", "B") and (len(phrase) >= _LEAST_SIDE or phrase in _SHORT_SIDES):
            found.setdefault(phrase, f"side {side}")
    for phrase, term in parts.phrases:
        if term in parts and not phrase.startswith("="):
            found.setdefault(phrase, f"part {term}")
    return Lexicon(found.items(), codes=((term, f"part {term}") for term in parts.terms))


_SHORT_SIDES: Final = frozenset({"l", "r", "lt", "rt"})


def _modality_phrases() -> Iterator[tuple[str, str]]:
    yield from ((phrase, "DX") for phrase in _RADIOGRAPH.split("|"))
    yield from ((term.lower(), term) for term in _MODALITIES)
    for phrase, term in built_in("Modality").phrases:
        # Echo and mammo are more often a method or a place than the machine.
        if term in ("CT", "MR", "PT") or phrase in ("ultrasound", "usg", "ultraschall"):
            yield phrase, term


def _contradict(one: frozenset[str], other: frozenset[str]) -> bool:
    for kind in ("part ", "side ", "modality "):
        mine = {word for word in one if word.startswith(kind)}
        theirs = {word for word in other if word.startswith(kind)}
        if mine and theirs and not mine & theirs:
            return True
    return False


@lru_cache(maxsize=8192)
def _said(text: str, *, is_vocabulary: bool = False) -> _Said:
    found = words(text)
    said: list[str] = []
    guessed: set[str] = set()
    covered: set[int] = set()
    # Terms are spelt as they are meant.
    for one in _lexicon().find(text, forgives=not is_vocabulary):
        kind, _, term = one.meaning.partition(" ")
        meant = anatomy().zones.get(term, ()) if kind == "part" else ()
        said += [f"part {zone}" for zone in meant] or [one.meaning]
        if one.match not in (Match.EXACT, Match.STEM, Match.COMPOUND):
            guessed.update(said[-max(len(meant), 1) :])
        covered.update(range(one.start, one.end))
    said += (
        word for at, word in enumerate(found) if at not in covered and word not in _SAYS_NOTHING
    )
    return _Said(frozenset(said), frozenset(guessed))
