"""Find known phrases in descriptions, and forgive how they are written.

A phrase is words; `brzuszn*` stands for every word that starts so, `=main` counts only if it is
all there is. Exact phrases come first and the longest wins; then words written together, words
with a lost letter, words cut short at the end of a text, and single misspelt words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rapidfuzz import fuzz, process

from shared.standardize.text import fold, is_unspaced, spelled_without_umlauts, words

# Ratio, not a partial ratio, which would take CAP for SCAPULA.
_LEAST_RATIO = 84
_CLEAR_LEAD = 4
_LEAST_MISSPELT = 5
_LEAST_CUT = 5
_LEAST_SHARE_LEFT = 0.6
_LEAST_PIECE = 3
_LONGEST_COMPOUND = 40


class Match(StrEnum):
    """How a phrase was found, surest first."""

    EXACT = "exact"
    STEM = "stem"
    COMPOUND = "compound"
    LOST_LETTER = "lost letter"
    CUT_SHORT = "cut short"
    MISSPELT = "misspelt"


@dataclass(frozen=True, slots=True)
class Mention:
    """The phrase that words[start:end] are, and what it means."""

    meaning: str
    phrase: str
    match: Match
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Phrase:
    text: str
    meaning: str
    words: tuple[str, ...]
    stems: tuple[bool, ...]
    is_whole_text: bool

    def fits(self, found: Sequence[str], start: int) -> bool:
        end = start + len(self.words)
        if end > len(found) or (self.is_whole_text and (start or end != len(found))):
            return False
        return all(
            one.startswith(wanted) if is_stem else one == wanted
            for one, wanted, is_stem in zip(found[start:end], self.words, self.stems, strict=True)
        )


class Lexicon:
    """Phrases and what they mean. `ignored` means a known phrase that says nothing."""

    def __init__(
        self,
        phrases: Iterable[tuple[str, str]],
        *,
        codes: Iterable[tuple[str, str]] = (),
        ignored: str = "-",
        prefixes: Iterable[str] = (),
        suffixes: Iterable[str] = (),
    ) -> None:
        """`phrases` are (text, meaning); `codes` too, but they are found only as they are spelt.
        Prefixes and suffixes are words that say nothing but may be written together with a phrase,
        as CT is in CTABDPEL.
        """
        self._ignored = ignored
        self._prefixes = tuple(sorted(prefixes, key=len, reverse=True))
        self._suffixes = frozenset(suffixes)
        self._by_word: dict[str, list[_Phrase]] = {}
        self._by_stem: dict[str, list[_Phrase]] = {}
        self._unspaced: dict[str, str] = {}
        self._single: dict[str, str] = {}
        for text, meaning in phrases:
            for spelling in {text, spelled_without_umlauts(text)}:
                self._add(spelling, meaning)
        guessable = dict(self._single)
        for text, meaning in codes:
            self._add(text, meaning)
        self._single = guessable
        for found in (*self._by_word.values(), *self._by_stem.values()):
            found.sort(key=lambda one: (-len(one.words), -sum(map(len, one.words))))
        self._cut = sorted(self._single)
        self._spelt = [word for word in self._cut if len(word) >= _LEAST_MISSPELT]

    def _add(self, text: str, meaning: str) -> None:
        parts = fold(text.removeprefix("=")).split()
        if not parts:
            raise ValueError("a phrase needs a word")
        stems = tuple(part.endswith("*") for part in parts)
        plain = tuple(part.rstrip("*") for part in parts)
        phrase = _Phrase(text, meaning, plain, stems, text.startswith("="))
        if len(plain) == 1 and is_unspaced(plain[0]):
            self._unspaced.setdefault(plain[0], meaning)
            return
        index = self._by_stem if stems[0] else self._by_word
        key = plain[0][:_LEAST_PIECE] if stems[0] else plain[0]
        if len(plain) > 1 and not any(stems[:2]):
            key = _pair(plain, 0)
        index.setdefault(key, []).append(phrase)
        if len(plain) == 1 and not phrase.is_whole_text:
            self._single.setdefault(plain[0], meaning)

    def find(self, text: str, *, forgives: bool = True) -> tuple[Mention, ...]:
        """What is mentioned in `text`, in its order; phrases that say nothing are left out. Unless
        it `forgives`, only what is spelt rightly is found.
        """
        found = words(text)
        mentions: list[Mention] = []
        at = 0
        while at < len(found):
            here = self._at(found, at, forgives)
            mentions += (one for one in here if one.meaning != self._ignored)
            at = here[-1].end if here else at + 1
        return tuple(mentions)

    def _at(self, found: Sequence[str], at: int, forgives: bool) -> list[Mention]:
        phrase = self._phrase_at(found, at)
        if phrase is not None:
            match = Match.STEM if any(phrase.stems) else Match.EXACT
            end = at + len(phrase.words)
            return [Mention(phrase.meaning, phrase.text, match, at, end)]
        word = found[at]
        if word.isdigit():
            return []
        if is_unspaced(word):
            return self._unspaced_at(word, at)
        pieces = self.pieces(word)
        if pieces:
            return [Mention(self._single[one], one, Match.COMPOUND, at, at + 1) for one in pieces]
        if not forgives:
            return []
        for match, spelt in (
            (Match.LOST_LETTER, self._with_lost_letter(word)),
            (Match.CUT_SHORT, self._cut_short(word) if at == len(found) - 1 else None),
            (Match.MISSPELT, self._misspelt(word)),
        ):
            if spelt is not None:
                return [Mention(self._single[spelt], spelt, match, at, at + 1)]
        return []

    def _phrase_at(self, found: Sequence[str], at: int) -> _Phrase | None:
        best: _Phrase | None = None
        candidates = (
            *self._by_word.get(_pair(found, at), ()),
            *self._by_word.get(found[at], ()),
            *self._by_stem.get(found[at][:_LEAST_PIECE], ()),
        )
        for phrase in candidates:
            longer = best is None or _reach(phrase) > _reach(best)
            if longer and phrase.fits(found, at):
                best = phrase
        return best

    def _unspaced_at(self, word: str, at: int) -> list[Mention]:
        mentions: list[Mention] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                meaning = self._unspaced.get(word[start:end])
                if meaning is not None:
                    mentions.append(Mention(meaning, word[start:end], Match.EXACT, at, at + 1))
                    start = end - 1
                    break
            start += 1
        return mentions

    def pieces(self, word: str) -> list[str]:
        """The known words that `word` is written together from; [] unless that explains it all."""
        if not _LEAST_PIECE < len(word) <= _LONGEST_COMPOUND or not word.isalpha():
            return []
        starts = [word[len(one) :] for one in self._prefixes if word.startswith(one)]
        for rest in (word, *starts):
            pieces = self._split(rest, {})
            is_telling = any(self._single[one] != self._ignored for one in pieces or ())
            if pieces and is_telling and len(set(pieces)) == len(pieces):
                return pieces
        return []

    def _split(self, rest: str, known: dict[str, list[str] | None]) -> list[str] | None:
        """The longest words first; an end that says nothing is dropped."""
        if not rest or rest in self._suffixes:
            return []
        if rest not in known:
            known[rest] = None
            for end in range(len(rest), _LEAST_PIECE - 1, -1):
                if rest[:end] in self._single:
                    tail = self._split(rest[end:], known)
                    if tail is not None:
                        known[rest] = [rest[:end], *tail]
                        break
        return known[rest]

    def _with_lost_letter(self, word: str) -> str | None:
        if "?" not in word and "\ufffd" not in word:
            return None
        pattern = re.compile(re.sub(r"[?\ufffd]+", ".{1,2}", word))
        return self._only(one for one in self._cut if pattern.fullmatch(one))

    def _cut_short(self, word: str) -> str | None:
        if len(word) < _LEAST_CUT:
            return None
        least = len(word) / _LEAST_SHARE_LEFT
        return self._only(one for one in self._cut if len(one) <= least and one.startswith(word))

    def _misspelt(self, word: str) -> str | None:
        if len(word) < _LEAST_MISSPELT:
            return None
        swapped = self._with_swapped_letters(word)
        if swapped is not None:
            return swapped
        near = process.extract(
            word, self._spelt, scorer=fuzz.ratio, score_cutoff=_LEAST_RATIO, limit=4
        )
        near = [one for one in near if one[0][0] == word[0]]
        if not near:
            return None
        best, score, _ = near[0]
        rivals = {self._single[one] for one, other, _ in near if score - other < _CLEAR_LEAD}
        return best if len(rivals) == 1 else None

    def _with_swapped_letters(self, word: str) -> str | None:
        """The known word that `word` is but for two neighbours that changed places."""
        swaps = (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(len(word) - 1)
        )
        known = [one for one in swaps if one in self._single]
        return self._only(known) if known else None

    def _only(self, candidates: Iterable[str]) -> str | None:
        found = list(candidates)
        return found[0] if len({self._single[one] for one in found}) == 1 else None


def _pair(found: Sequence[str], at: int) -> str:
    """The key of phrases by their first two words: many of a site's begin with CT."""
    return " ".join(found[at : at + 2])


def _reach(phrase: _Phrase) -> tuple[int, int, int]:
    return len(phrase.words), sum(map(len, phrase.words)), not any(phrase.stems)
