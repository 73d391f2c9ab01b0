"""What leaves the machine names nobody: no name, number, date or address of the Instance."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.pipeline.standardization_questions import identifying_words, question_about
from shared.rules.sample import sample_header
from shared.standardize.privacy import clean, without_identifiers
from shared.standardize.proposals import Question

CANARIES = {
    "PatientName": "Canaryfamily^Canarygiven^^Dr.",
    "PatientID": "CANID-998877",
    "PatientBirthDate": "19610203",
    "AccessionNumber": "CANACC4711",
    "ReferringPhysicianName": "Canaryreferrer^Anna",
    "OperatorsName": "Canaryoperator",
    "InstitutionName": "Canaryhospital",
    "InstitutionAddress": "Canarystreet 5",
    "StationName": "CANSTATION",
    "StudyDate": "20260102",
    "StudyTime": "101112",
    "StudyID": "CANSTUDY1",
    "PatientAddress": "Canarytown",
    "PatientComments": "Canarycomment",
    "DeviceSerialNumber": "CANSERIAL1",
    "RequestingPhysician": "Canaryrequester^Zo\u00eb",
    "OtherPatientIDs": "CANOTHER-1",
}
# Free text with all of them, as they are typed: other case, other order, stuck to other words.
SPOKEN = (
    "canaryfamily, CANARYGIVEN CANID998877 can-id-998877 03.02.1961 1961-02-03 CANACC4711 "
    "Canaryreferrer CanaryOperator Canaryhospital canarystreet CANSTATION 10:11 CANSTUDY1 "
    "Canarytown Canarycomment CANSERIAL1 CANARYREQUESTER zoe CANOTHER-1 canaryfamily_canarygiven "
    "KneeCanaryfamily 4711 998877 tel +49 30 1234567 x@canary.example https://canary.example "
    "1.2.840.113619.2.55"
)


class TestWhatLeaves:
    def test_has_no_canary(self) -> None:
        header = sample_header(
            {
                **CANARIES,
                "Modality": "MR",
                "SeriesDescription": f"knee sag T2 {SPOKEN}"[:1000],
                "StudyDescription": f"{SPOKEN} MR kolano",
                "BodyPartExamined": "CANARYFAMILY",
            }
        )
        context = ["Modality", "SeriesDescription", "StudyDescription"]
        question = question_about(header, "BodyPartExamined", context)
        question = Question(
            question.attribute, question.raw_value, question.context, identifying_words(header)
        )
        told = str(without_identifiers(question)).casefold()
        assert "canary" not in told
        for piece in ("zoe", "998877", "4711", "1961", "10:11", "1234567", "113619", "canid"):
            assert piece not in told, piece
        assert "knee sag t2" in told
        assert "mr kolano" in told

    def test_is_of_the_attributes_that_may_be_looked_at(self) -> None:
        """Whatever a caller puts into the context."""
        question = Question(
            "BodyPartExamined", "", {"PatientName": "Miller^Jane", "PatientAge": "045Y"}
        )
        assert without_identifiers(question).context == {}

    @pytest.mark.parametrize(
        ("text", "left"),
        [
            ("CT Thorax Dr. Miller", "CT Thorax"),
            ("MR KNEE pt Jane Doe left", "MR KNEE left"),
            ("Knie links geb. 03.02.1961", "Knie links"),
            ("DOE^JOHN CHEST", "CHEST"),
            ("C5-C7 T2 FLAIR 3mm", "C5-C7 T2 FLAIR 3mm"),
            ("abdomen 12345678", "abdomen"),
            ("HWS/BWS 2 Ebenen", "HWS/BWS 2 Ebenen"),
        ],
    )
    def test_keeps_what_was_examined(self, text: str, left: str) -> None:
        assert clean(text) == left

    @pytest.mark.parametrize(
        "text",
        [
            *("3 Feb 1961", "03FEB61", "Feb 3rd, 1961", "March 3", "3. März 1961", "12 września"),
            *("1961-02-03", "3/2/61"),
        ],
    )
    def test_has_no_date(self, text: str) -> None:
        assert clean(f"knee {text} left") == "knee left"

    @pytest.mark.parametrize("text", ["3 MARKERS", "2 DECUBITUS", "4 SEPTAL", "T2 MAG 3D"])
    def test_keeps_words_that_begin_like_a_month(self, text: str) -> None:
        assert clean(text) == text

    @pytest.mark.parametrize(
        ("name", "typed"),
        [
            ("Müller^Jürgen", "Mueller JUERGEN"),
            ("Mueller^Juergen", "Müller Jürgen"),
            ("Østergård^Bjørn", "Oestergaard Bjoern"),
            ("Strauß^Zoë", "STRAUSS zoe"),
            ("Yamada^Tarou=山田^太郎", "山田太郎 山田様 yamada"),
            ("Li^Xu=李^旭", "李旭 xu"),
        ],
    )
    def test_has_no_name_in_another_spelling(self, name: str, typed: str) -> None:
        header = sample_header({"PatientName": name, "SpecificCharacterSet": "ISO_IR 192"})
        assert clean(f"knee {typed} sag", identifying_words(header)) == "knee sag"

    def test_keeps_a_body_part_that_is_a_name_too(self) -> None:
        """Mr Hand has a hand: the word tells what was examined."""
        assert clean("MR hand", {"hand", "peter"}) == "MR hand"

    @settings(max_examples=150, deadline=None)
    @given(
        st.from_regex(r"[b-df-hj-np-tv-z]{5,12}", fullmatch=True),
        st.text(max_size=40),
        st.sampled_from(["{}", "{} {}", "x{}", "{}1", "({})", "{}-{}", "{}\u00a0knee"]),
    )
    def test_a_name_never_leaves_however_it_is_written(
        self, name: str, text: str, shape: str
    ) -> None:
        header = sample_header({"PatientName": f"{name}^X"})
        typed = shape.format(name.upper(), name.title())
        left = clean(f"{text} {typed}", identifying_words(header))
        assert name not in left.casefold()
