"""One decision for a Series: who is at it, who takes over, and whose word holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.config.standardizers import Standardizer
from shared.errors import ProviderFailedError, SeriesUnderDecisionError
from shared.messages import Receipt, ReceivedFile, Source
from shared.pipeline.series_decisions import ASKING, COLLECTION, SeriesDecisions
from shared.standardize.chain import Decision, Verdict
from shared.standardize.proposals import Proposal, Question
from tests.fakes import FakeClock

ENTITY = Standardizer(name="body-parts", attributes=("BodyPartExamined",))
QUESTION = Question("BodyPartExamined", "BWS")
CLOCK_START = FakeClock().now()
RECEIPT = Receipt(
    receipt_id="r1",
    trace_id="t1",
    received_at=CLOCK_START,
    source=Source("dimse", "main"),
    file=ReceivedFile("f", 1, 1, 1),
    sop_class_uid="1",
    sop_instance_uid="2",
    study_instance_uid="3",
    series_instance_uid="4",
    transfer_syntax_uid="5",
    header=None,
)


def saying(value: str) -> Decision:
    proposal = Proposal(value, 0.9, (), "p", "m", "v", "e")
    return Decision(Verdict.SET, proposal, is_certain=True)


class TestAClaim:
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def series(self, tmp_path: Path, clock: FakeClock) -> SeriesDecisions:
        return SeriesDecisions(SqliteDocumentStore(tmp_path / "documents.db"), clock)

    def decide(self, series: SeriesDecisions, decision: Any) -> str:
        """Ask with a claim of 30 seconds; the value decided."""
        decide = decision if callable(decision) else lambda: decision
        ((data, _),) = series.of_all(
            ENTITY, [QUESTION], RECEIPT, lambda questions: [decide()], claim_s=30
        )
        return str(data["value"])

    def test_lets_nobody_else_ask(self, series: SeriesDecisions) -> None:
        def meanwhile() -> Decision:
            with pytest.raises(SeriesUnderDecisionError):
                self.decide(series, saying("HAND"))
            return saying("KNEE")

        assert self.decide(series, meanwhile) == "KNEE"
        assert self.decide(series, saying("HAND")) == "KNEE"

    def test_ends_by_itself_for_its_holder_may_have_died(
        self, series: SeriesDecisions, clock: FakeClock
    ) -> None:
        def too_late() -> Decision:
            clock.advance(31)
            assert self.decide(series, saying("HAND")) == "HAND"
            return saying("KNEE")

        assert self.decide(series, too_late) == "HAND"

    def test_of_several_questions_is_of_those_that_are_not_decided(
        self, series: SeriesDecisions
    ) -> None:
        side = Question("Laterality", "left")
        self.decide(series, saying("KNEE"))
        asked: list[Question] = []

        def decide(questions: Sequence[Question]) -> list[Decision]:
            asked.extend(questions)
            with pytest.raises(SeriesUnderDecisionError):
                series.of_all(ENTITY, [QUESTION, side], RECEIPT, decide, claim_s=30)
            return [saying("L")]

        made = series.of_all(ENTITY, [QUESTION, side], RECEIPT, decide, claim_s=30)
        assert [(data["value"], is_new) for data, is_new in made] == [("KNEE", False), ("L", True)]
        assert asked == [side]

    def test_that_is_given_up_keeps_what_people_said_before(
        self, series: SeriesDecisions, tmp_path: Path
    ) -> None:
        """Who asked again, and when, is not lost because the store was away for a moment."""
        self.decide(series, saying("KNEE"))
        documents = SqliteDocumentStore(tmp_path / "documents.db")
        (known,) = documents.query(COLLECTION).documents
        step = {"action": "ask-again", "by": "anna"}
        again = {**known.data, "state": ASKING, "asked_until": "", "history": [step]}
        documents.replace(COLLECTION, known.key, again, known.version)

        def fail() -> Decision:
            raise ProviderFailedError("p", "unavailable")

        with pytest.raises(ProviderFailedError):
            self.decide(series, fail)
        assert self.decide(series, saying("HAND")) == "HAND"
        (found,) = documents.query(COLLECTION).documents
        assert found.data["history"] == [step]

    def test_is_given_up_where_asking_went_wrong(self, series: SeriesDecisions) -> None:
        def fail() -> Decision:
            raise ProviderFailedError("p", "unavailable")

        with pytest.raises(ProviderFailedError):
            self.decide(series, fail)
        assert self.decide(series, saying("KNEE")) == "KNEE"
