"""Nothing that real senders were told Success for is lost, over every file of the corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.corpus_run import CorpusRun, page
from tests.running import ROOT

pytestmark = [
    pytest.mark.peer("dcmtk"),
    pytest.mark.peer("orthanc"),
    pytest.mark.timeout(480),
]


def test_everything_acknowledged_arrives_or_is_in_the_exception_log(
    corpus: Path, tmp_path: Path
) -> None:
    run = CorpusRun(corpus, tmp_path)
    run.run()
    assert run.faults == []
    # Some must get through each way, or nothing was shown.
    for sender in ("storescu", "dcmsend", "stow"):
        assert sum(s.sender == sender and s.outcome == "delivered" for s in run.sent) > 200
    assert (ROOT / "docs" / "corpus.md").read_text() == page(run), (
        "docs/corpus.md is out of date: python -m tests.end_to_end.corpus_run CORPUS writes it"
    )
