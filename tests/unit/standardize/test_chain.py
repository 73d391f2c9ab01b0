"""Who is asked, what happens if nobody is sure, and that a Series is of one mind."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.errors import ProviderFailedError, UnknownVocabularyError
from shared.standardize.chain import Chain, Link, Policy, Verdict
from shared.standardize.embedded import EmbeddedStandardizer
from shared.standardize.kept import COLLECTION, KeptDecisions
from shared.standardize.proposals import Proposal, Question

QUESTION = Question("BodyPartExamined", "", {"StudyDescription": "MR KNEE", "Modality": "MR"})


def now() -> str:
    return "2026-11-21T10:00:00.000000Z"


class Saying:
    """A provider that says the same to everything, and counts."""

    def __init__(self, name: str, value: str | None, confidence: float = 0.9) -> None:
        self.name, self._value, self._confidence = name, value, confidence
        self.asked = 0

    def propose(self, question: Question) -> Proposal:
        self.asked += 1
        return Proposal(self._value, self._confidence, (), self.name, "m", "v", "e")


class Down:
    """A provider that cannot be reached."""

    name = "down"

    def propose(self, question: Question) -> Proposal:
        raise ProviderFailedError(self.name, "unavailable")


class TestChain:
    def test_the_first_that_is_sure_enough_is_heard(self) -> None:
        last = Saying("last", "HAND")
        unsure = Saying("unsure", "FOOT", 0.5)
        decision = Chain([Link(unsure), Link(Saying("sure", "KNEE")), Link(last)]).decide(QUESTION)
        assert decision.verdict is Verdict.SET
        assert decision.proposal is not None
        assert decision.proposal.value == "KNEE"
        assert last.asked == 0

    def test_the_best_unsure_proposal_is_shown_to_people(self) -> None:
        links = [Link(Saying("a", "FOOT", 0.5)), Link(Saying("b", "KNEE", 0.6))]
        decision = Chain(links, when_unsure=Policy.HOLD).decide(QUESTION)
        assert decision.verdict is Verdict.HOLD
        assert decision.proposal is not None
        assert decision.proposal.value == "KNEE"

    def test_an_unsure_proposal_leaves_the_value_unless_told_otherwise(self) -> None:
        assert Chain([Link(Saying("a", "FOOT", 0.5))]).decide(QUESTION).verdict is Verdict.KEEP

    def test_a_value_that_is_right_is_kept(self) -> None:
        question = dataclasses.replace(QUESTION, raw_value="KNEE")
        decision = Chain([Link(EmbeddedStandardizer())]).decide(question)
        assert decision.verdict is Verdict.KEEP

    @pytest.mark.parametrize("answer", ["KOLANO", "LEG", "", "knee"])
    def test_what_is_no_current_term_is_discarded_and_told(self, answer: str) -> None:
        told: list[tuple[str, ...]] = []
        chain = Chain([Link(Saying("a", answer))], tell=lambda *what: told.append(what))
        assert chain.decide(QUESTION).proposal is None
        assert told == [("a", "body-part-examined", "discarded")]

    def test_tells_what_came_of_each_provider(self) -> None:
        """A provider that abstains is asked in vain, and whoever answers for it has to see that."""
        told: list[tuple[str, ...]] = []
        links = [
            Link(Down()),
            Link(Saying("a", None, 0)),
            Link(Saying("b", "FOOT", 0.5)),
            Link(Saying("c", "KNEE")),
        ]
        Chain(links, tell=lambda *what: told.append(what)).decide(QUESTION)
        assert [(provider, outcome) for provider, _, outcome in told] == [
            ("down", "unavailable"),
            ("a", "abstained"),
            ("b", "unsure"),
            ("c", "sure"),
        ]

    def test_a_provider_that_is_down_is_passed_over(self) -> None:
        decision = Chain([Link(Down()), Link(Saying("a", "KNEE"))]).decide(QUESTION)
        assert decision.verdict is Verdict.SET
        assert decision.failed == (("down", "unavailable"),)

    @pytest.mark.parametrize(
        ("policy", "verdict"), [(Policy.HOLD, Verdict.HOLD), (Policy.UNCHANGED, Verdict.KEEP)]
    )
    def test_policy_says_what_happens_while_all_are_down(
        self, policy: Policy, verdict: Verdict
    ) -> None:
        assert Chain([Link(Down())], when_down=policy).decide(QUESTION).verdict is verdict

    def test_an_attribute_without_a_vocabulary_is_an_error(self) -> None:
        with pytest.raises(UnknownVocabularyError):
            Chain([Link(Saying("a", "x"))]).decide(Question("PatientName", ""))

    @pytest.mark.parametrize("threshold", [0, 1.1, -1])
    def test_a_threshold_that_lets_all_or_none_through_is_refused(self, threshold: float) -> None:
        with pytest.raises(ValueError, match="threshold"):
            Link(Saying("a", "KNEE"), threshold)


class TestKeptDecisions:
    @pytest.fixture
    def documents(self, tmp_path: Path) -> SqliteDocumentStore:
        return SqliteDocumentStore(tmp_path / "documents.db")

    def test_equal_questions_are_asked_once(self, documents: SqliteDocumentStore) -> None:
        provider = Saying("a", "KNEE")
        kept = KeptDecisions(Chain([Link(provider)]), documents, now)
        assert kept.decide(QUESTION) == kept.decide(QUESTION)
        assert provider.asked == 1
        assert (kept.hits.made, kept.hits.in_memory) == (1, 1)

    def test_a_process_that_starts_later_knows_them(self, documents: SqliteDocumentStore) -> None:
        first = KeptDecisions(Chain([Link(EmbeddedStandardizer())]), documents, now).decide(
            QUESTION
        )
        later = KeptDecisions(Chain([Link(EmbeddedStandardizer())]), documents, now)
        assert later.decide(QUESTION) == first
        assert later.hits.stored == 1

    def test_another_context_or_chain_is_another_question(
        self, documents: SqliteDocumentStore
    ) -> None:
        provider = Saying("a", "KNEE")
        kept = KeptDecisions(Chain([Link(provider)]), documents, now)
        kept.decide(QUESTION)
        kept.decide(dataclasses.replace(QUESTION, context={"Modality": "CT"}))
        KeptDecisions(Chain([Link(provider, 0.8)]), documents, now).decide(QUESTION)
        assert provider.asked == 3

    def test_another_model_decides_anew(self, documents: SqliteDocumentStore) -> None:
        """A provider that learned, or was exchanged, may know better."""
        for number, model in enumerate(("a", "b", "b")):
            provider = Saying("a", "KNEE")
            provider.model = model  # type: ignore[attr-defined]
            KeptDecisions(Chain([Link(provider)]), documents, now).decide(QUESTION)
            assert provider.asked == (number < 2)

    def test_a_failure_is_not_remembered(self, documents: SqliteDocumentStore) -> None:
        kept = KeptDecisions(Chain([Link(Down())]), documents, now)
        assert kept.decide(QUESTION).failed == (("down", "unavailable"),)
        assert documents.count(COLLECTION) == 0

    def test_no_raw_text_is_stored(self, documents: SqliteDocumentStore) -> None:
        question = Question("BodyPartExamined", "", {"StudyDescription": "KNEE of Mr Miller"})
        KeptDecisions(Chain([Link(EmbeddedStandardizer())]), documents, now).decide(question)
        (stored,) = documents.query(COLLECTION).documents
        assert "miller" not in str(stored).lower()

    def test_a_kept_decision_takes_less_than_a_millisecond(
        self, documents: SqliteDocumentStore
    ) -> None:
        kept = KeptDecisions(Chain([Link(EmbeddedStandardizer())]), documents, now)
        kept.decide(QUESTION)
        took = []
        for _ in range(101):
            start = time.process_time()
            kept.decide(QUESTION)
            took.append(time.process_time() - start)
        assert sorted(took)[50] < 0.001
