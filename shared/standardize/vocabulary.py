"""Vocabularies: the terms that are allowed for an Attribute, with edition and source."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from shared.errors import Fault, InvalidConfigurationError
from shared.standardize.text import words

DATA = Path(__file__).parent / "data"

# By Attribute, the file that holds its terms.
BUILT_IN: Mapping[str, str] = {
    "BodyPartExamined": "body_part_examined",
    "Laterality": "laterality",
    "ImageLaterality": "image_laterality",
    "ViewPosition": "view_position",
    "Modality": "modality",
    "PatientPosition": "patient_position",
}


@dataclass(frozen=True, slots=True)
class Term:
    """One allowed Value, and the code it stands for where the Standard gives one.

    `is_paired`: a left and a right one exist. `is_retired`: legal where found, never proposed.
    `modalities`: the modalities that it is for; empty means all.
    """

    value: str
    meaning: str = ""
    scheme: str = ""
    code: str = ""
    is_paired: bool = False
    is_retired: bool = False
    modalities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Terms by their Value. Phrases are (text, Value): what people write for a term."""

    name: str
    edition: str
    source: str
    terms: Mapping[str, Term]
    phrases: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __contains__(self, value: object) -> bool:
        return value in self.terms

    def may_propose(self, value: str) -> bool:
        term = self.terms.get(value)
        return term is not None and not term.is_retired


@cache
def built_in(attribute: str) -> Vocabulary:
    """The vocabulary that comes with Axiom Flow. Raises KeyError for an Attribute without one."""
    name = BUILT_IN[attribute]
    document = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    terms = {
        one["term"]: Term(
            one["term"],
            one.get("meaning", ""),
            one.get("scheme", ""),
            one.get("code", ""),
            one.get("paired", False),
            one.get("retired", False),
            frozenset(one.get("modalities", ())),
        )
        for one in document["terms"]
    }
    return Vocabulary(
        document["name"],
        document["edition"],
        document["source"],
        terms,
        tuple(read_phrases(DATA / f"{name}_synonyms.csv")),
    )


def read_phrases(path: Path) -> Iterator[tuple[str, str]]:
    """The (phrase, term) pairs of a file with the columns term, language, phrases."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for phrase in row["phrases"].split("|"):
                yield phrase, row["term"]


def read_site_vocabulary(name: str, edition: str, text: str) -> Vocabulary:
    """A vocabulary of one's own from CSV with the columns term, and optionally meaning, scheme,
    code and synonyms (separated by `|`).

    Raises: InvalidConfigurationError that names every fault with its line.
    """
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    faults: list[Fault] = []
    terms: dict[str, Term] = {}
    phrases: list[tuple[str, str]] = []
    said: dict[tuple[str, ...], tuple[str, int]] = {}
    try:
        if "term" not in (reader.fieldnames or ()):
            raise InvalidConfigurationError(Fault("line 1", "no column named term"))
        _read_rows(reader, terms, phrases, said, faults)
    except csv.Error as error:
        faults.append(Fault(f"line {reader.line_num}", str(error)))
    if not terms and not faults:
        faults.append(Fault("line 1", "no terms"))
    if faults:
        raise InvalidConfigurationError(*faults)
    return Vocabulary(name, edition, "site", terms, tuple(phrases))


def _read_rows(
    reader: csv.DictReader[str],
    terms: dict[str, Term],
    phrases: list[tuple[str, str]],
    said: dict[tuple[str, ...], tuple[str, int]],
    faults: list[Fault],
) -> None:
    for row in reader:
        line = reader.line_num
        value = (row["term"] or "").strip()
        if not value:
            faults.append(Fault(f"line {line}", "no term"))
            continue
        if None in row:
            faults.append(Fault(f"line {line}", "more cells than columns"))
        if value in terms:
            faults.append(Fault(f"line {line}", f"{value!r} is already a term"))
            continue
        terms[value] = Term(
            value,
            (row.get("meaning") or "").strip(),
            (row.get("scheme") or "").strip(),
            (row.get("code") or "").strip(),
        )
        synonyms = [one.strip() for one in (row.get("synonyms") or "").split("|")]
        for phrase in dict.fromkeys([value, *filter(None, synonyms)]):
            key = words(phrase)
            if not key:
                faults.append(Fault(f"line {line}", f"{phrase!r} has no letter or digit"))
                continue
            other, before = said.setdefault(key, (value, line))
            if other != value:
                faults.append(
                    Fault(f"line {line}", f"{phrase!r} already means {other!r} (line {before})")
                )
            else:
                phrases.append((phrase, value))
