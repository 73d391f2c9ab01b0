"""One decision for a Series: who is at it, who takes over, and whose word holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.config.standardizers import Standardizer
from shared.errors import ProviderFailedError, SeriesUnderDecisionError
from shared.messages import Receipt, ReceivedFile, Source
from shared.pipeline.series_decisions import SeriesDecisions
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
        data, _ = series.of(ENTITY, QUESTION, RECEIPT, decide, claim_s=30)
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

    def test_is_given_up_where_asking_went_wrong(self, series: SeriesDecisions) -> None:
        def fail() -> Decision:
            raise ProviderFailedError("p", "unavailable")

        with pytest.raises(ProviderFailedError):
            self.decide(series, fail)
        assert self.decide(series, saying("KNEE")) == "KNEE"
