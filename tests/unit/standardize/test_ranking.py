"""Names of procedures and series of a site: what is the same in other words, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.standardize.embedded import EmbeddedStandardizer
from shared.standardize.proposals import Proposal, Question
from shared.standardize.ranking import Ranking
from shared.standardize.vocabulary import read_site_vocabulary

PROCEDURES = read_site_vocabulary(
    "procedures",
    "1",
    """term,synonyms
MR KNEE LEFT,
MR KNEE RIGHT,
MR LUMBAR SPINE WITHOUT CONTRAST,
MR LUMBAR SPINE WITH AND WITHOUT CONTRAST,
CT CHEST WITHOUT CONTRAST,
CT CHEST WITH CONTRAST,
CT HEAD,
CT ABDOMEN AND PELVIS WITH CONTRAST,
XR CHEST PORTABLE,
US THYROID,Schilddrüsensono
""",
)
PROVIDER = EmbeddedStandardizer({"StudyDescription": PROCEDURES, "SeriesDescription": PROCEDURES})


def ask(raw: str, modality: str = "", attribute: str = "StudyDescription", **more: str) -> Proposal:
    return PROVIDER.propose(Question(attribute, raw, {"Modality": modality, **more}))


def sure(raw: str, modality: str = "", **more: str) -> str | None:
    proposal = ask(raw, modality, **more)
    return proposal.value if proposal.confidence >= 0.7 else None


class TestTheSameInOtherWords:
    @pytest.mark.parametrize(
        ("raw", "modality", "term"),
        [
            ("left knee, MR", "MR", "MR KNEE LEFT"),
            ("Knee (L)", "MR", "MR KNEE LEFT"),
            ("IRM genou gauche", "MR", "MR KNEE LEFT"),
            ("MRT Kniegelenk rechts", "MR", "MR KNEE RIGHT"),
            ("MRI L-SPINE W/O", "MR", "MR LUMBAR SPINE WITHOUT CONTRAST"),
            ("LWS nativ", "MR", "MR LUMBAR SPINE WITHOUT CONTRAST"),
            ("MRI LUMBAR SPINE W/WO CONTRAST", "MR", "MR LUMBAR SPINE WITH AND WITHOUT CONTRAST"),
            ("TAC TORAX SIN CONTRASTE", "CT", "CT CHEST WITHOUT CONTRAST"),
            ("Routine CT Thorax mit KM", "CT", "CT CHEST WITH CONTRAST"),
            ("CT ABD/PELVIS W CONTRAST", "CT", "CT ABDOMEN AND PELVIS WITH CONTRAST"),
            ("portable chest", "DX", "XR CHEST PORTABLE"),
            ("胸部平扫", "CT", "CT CHEST WITHOUT CONTRAST"),
            ("thyriod ultrasound", "US", "US THYROID"),
            ("SCHILDDRUESENSONO", "US", "US THYROID"),
        ],
    )
    def test_is_the_term(self, raw: str, modality: str, term: str) -> None:
        assert sure(raw, modality) == term

    def test_names_the_phrase_as_evidence(self) -> None:
        (evidence,) = ask("knee left", "MR").evidence
        assert (evidence.source, evidence.phrase) == ("StudyDescription", "MR KNEE LEFT")


class TestWhatIsNotTheSame:
    @pytest.mark.parametrize(
        ("raw", "modality"),
        [
            ("MR KNEE", "MR"),  # which?
            ("MR KNEE LEFT AND RIGHT", "MR"),
            ("CT CHEST", "CT"),
            ("CTA HEAD", "CT"),
            ("CT HEAD BIOPSY", "CT"),
            ("CT HEAD WITH CONTRAST", "CT"),
            ("MR KNEE RIGHT ARTHROGRAM", "MR"),
            ("MR ABDOMEN AND PELVIS WITH CONTRAST", "MR"),
            ("HEAD", "MR"),
            ("CT", "CT"),
            ("", "MR"),
            ("TROPONIN", "CT"),
        ],
    )
    def test_is_for_people_to_decide(self, raw: str, modality: str) -> None:
        assert sure(raw, modality) is None

    def test_comes_with_the_likest_term_for_them(self) -> None:
        proposal = ask("MR KNEE RIGHT ARTHROGRAM", "MR")
        assert proposal.value == "MR KNEE RIGHT"
        assert 0 < proposal.confidence < 0.7


class TestOtherTexts:
    def test_of_the_same_level_decide_where_there_is_no_value(self) -> None:
        assert sure("", "MR", RequestedProcedureDescription="knee left") == "MR KNEE LEFT"
        assert sure("", "MR", attribute="SeriesDescription", ProtocolName="knee l") == (
            "MR KNEE LEFT"
        )

    def test_of_a_series_do_not_name_its_study(self) -> None:
        """Two Series would name their Study twice."""
        proposal = ask("", "MR", SeriesDescription="knee left")
        assert (proposal.value, proposal.confidence) == ("MR KNEE LEFT", 0.6)

    def test_that_are_alike_and_no_more_trouble_nobody(self) -> None:
        """A queue of proposals that share one word is read by nobody."""
        assert ask("", "MR", SeriesDescription="shoulder right").value is None
        assert ask("MR SHOULDER RIGHT", "MR").value is None

    def test_are_for_people_where_the_value_says_something_else(self) -> None:
        assert sure("foo", "MR", RequestedProcedureDescription="knee left") is None


def test_a_large_vocabulary_hides_no_term_that_is_the_same() -> None:
    """All of its words are in more terms than are looked at closely."""
    rows = [f"{part} WITH X{number}" for part in ("KNEE", "LEFT") for number in range(600)]
    large = read_site_vocabulary("large", "1", "\n".join(["term", *rows, "WITH LEFT KNEE"]))
    assert Ranking(large).candidates("knee left with")[0].value == "WITH LEFT KNEE"


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80), st.sampled_from(["", "CT", "XX"]))
def test_any_text_has_candidates_of_the_vocabulary(text: str, modality: str) -> None:
    found = Ranking(PROCEDURES).candidates(text, modality)
    assert all(one.value in PROCEDURES and 0 <= one.likeness <= 1 + 1e-9 for one in found)
    assert len({one.value for one in found}) == len(found)
