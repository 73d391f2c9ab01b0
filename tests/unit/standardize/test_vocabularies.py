"""The vocabularies are whole, and those of a site are checked before they are used."""

from __future__ import annotations

import csv

import pytest

from shared.errors import InvalidConfigurationError
from shared.standardize.anatomy import anatomy
from shared.standardize.body_part import QUALITY_ASSURANCE
from shared.standardize.vocabulary import (
    BUILT_IN,
    DATA,
    built_in,
    read_phrases,
    read_site_vocabulary,
)


@pytest.mark.parametrize("attribute", BUILT_IN)
class TestEveryVocabulary:
    def test_names_its_edition_and_source(self, attribute: str) -> None:
        vocabulary = built_in(attribute)
        assert vocabulary.edition
        assert "PS3." in vocabulary.source

    def test_has_synonyms_for_its_own_terms_alone(self, attribute: str) -> None:
        vocabulary = built_in(attribute)
        strange = {term for _, term in vocabulary.phrases if term not in vocabulary.terms}
        assert strange <= {"-", "?", QUALITY_ASSURANCE}

    def test_gives_no_phrase_two_meanings(self, attribute: str) -> None:
        meanings: dict[str, set[str]] = {}
        for phrase, term in built_in(attribute).phrases:
            meanings.setdefault(phrase, set()).add(term)
        several = {phrase for phrase, terms in meanings.items() if len(terms) > 1}
        assert not several

    def test_writes_a_star_at_the_end_of_a_word_only(self, attribute: str) -> None:
        for phrase, _ in built_in(attribute).phrases:
            assert phrase == phrase.strip()
            assert all("*" not in word.rstrip("*") for word in phrase.split()), phrase

    def test_fits_the_value_representation_cs(self, attribute: str) -> None:
        for term in built_in(attribute).terms:
            assert len(term) <= 16
            assert term == term.upper()


def test_body_parts_have_snomed_codes_and_say_whether_they_are_paired() -> None:
    terms = built_in("BodyPartExamined").terms
    assert (terms["KNEE"].scheme, terms["KNEE"].code) == ("SCT", "72696002")
    assert terms["KNEE"].is_paired
    assert not terms["CHEST"].is_paired
    assert len([one for one in terms.values() if not one.is_retired]) > 300


def test_what_earlier_editions_named_is_legal_but_never_proposed() -> None:
    vocabulary = built_in("BodyPartExamined")
    assert "LEG" in vocabulary
    assert not vocabulary.may_propose("LEG")


@pytest.mark.parametrize("name", ["parts", "unions"])
def test_the_anatomy_names_terms_alone(name: str) -> None:
    terms = built_in("BodyPartExamined").terms
    with (DATA / f"body_part_examined_{name}.csv").open(encoding="utf-8") as file:
        for row in csv.reader(file):
            for term in "|".join(row).split("|"):
                assert term in terms or term in ("part_of", "terms", "term", "parts"), term


class TestAnatomy:
    def test_knows_what_lies_in_what(self) -> None:
        body = anatomy()
        assert body.lies_in("LIVER", "CHESTABDPELVIS")
        assert body.lies_in("TIBIA", "EXTREMITY")
        assert not body.lies_in("TSPINE", "CHEST")

    def test_finds_the_term_for_several_and_fills_the_gap_between_zones(self) -> None:
        body = anatomy()
        assert body.union({"CHEST", "PELVIS"}) == "CHESTABDPELVIS"
        assert body.union({"HEAD", "NECK"}) == "HEADNECK"
        assert body.union({"TSPINE", "LSPINE"}) == "TLSPINE"
        assert body.union({"HEAD", "KNEE"}) is None

    def test_overlapping_regions_are_related_and_neighbours_are_not(self) -> None:
        body = anatomy()
        assert body.are_related("CHESTABDOMEN", "ABDOMENPELVIS")
        assert not body.are_related("CHEST", "ABDOMEN")


class TestSiteVocabulary:
    def test_is_read_with_synonyms(self) -> None:
        text = "term,meaning,synonyms\nCT-HEAD,CT of the head,Kopf-CT|CCT\n"
        vocabulary = read_site_vocabulary("procedures", "2026-11", text)
        assert vocabulary.terms["CT-HEAD"].meaning == "CT of the head"
        assert ("Kopf-CT", "CT-HEAD") in vocabulary.phrases

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("", "line 1"),
            ("name\nX\n", "line 1"),
            ("term\n", "line 1"),
            ("term,meaning\nA,one\nB,two\nA,again\n", "line 4"),
            ("term,meaning\nA,one\n,two\n", "line 3"),
            ("term,synonyms\nA,same\nB,Same\n", "line 3"),
            ("term,synonyms\nA,B\nB,\n", "line 3"),
            ("term,synonyms\nA,!!!\n", "line 2"),
            ("term\nA,too,many\n", "line 2"),
            ('term,meaning\nA,"open\n', "line"),
        ],
    )
    def test_is_refused_with_the_line_at_fault(self, text: str, line: str) -> None:
        with pytest.raises(InvalidConfigurationError) as refused:
            read_site_vocabulary("procedures", "2026-11", text)
        assert refused.value.faults[0].path.startswith(line)

    def test_every_fault_is_named_at_once(self) -> None:
        text = "term,meaning\nA,one\n,two\nA,three\n"
        with pytest.raises(InvalidConfigurationError) as refused:
            read_site_vocabulary("procedures", "2026-11", text)
        assert [one.path for one in refused.value.faults] == ["line 3", "line 4"]


def test_phrases_of_a_file_are_pairs_of_text_and_term() -> None:
    pairs = list(read_phrases(DATA / "body_part_examined_synonyms.csv"))
    assert ("brzuch*", "ABDOMEN") in pairs
