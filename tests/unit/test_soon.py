"""What a process counts is written soon after, and when it ends."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.errors import StorageUnavailableError
from shared.pipeline import soon
from shared.pipeline.shadow import COLLECTION
from shared.pipeline.soon import WrittenSoon
from shared.pipeline.standardization_counts import StandardizationCounts
from tests.fakes import FakeClock
from tests.running import ROOT

_COUNT_AND_END = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.messages import ReceivedFile, Receipt, Source
from shared.pipeline.rulebook import Shadow
from shared.pipeline.shadow import ShadowLog
from shared.pipeline.standardization_counts import StandardizationCounts
from tests.fakes import FakeClock

documents = SqliteDocumentStore(Path(sys.argv[1]))
counts = StandardizationCounts(documents, FakeClock(), write_after_s=600)
counts.count("a", "b")
counts.hit("decision")
shadow = Shadow("next", "edition", None)
at = datetime(2026, 11, 21, tzinfo=UTC)
file = ReceivedFile("received/r.dcm", 1, 0, 0)
receipt = Receipt("r", "t", at, Source("stow", "main"), file, *["1.2"] * 5, None)
ShadowLog(documents, FakeClock(), write_after_s=600).count(shadow, receipt, {}, {})
"""


def test_a_process_that_ends_has_written_what_it_counted(tmp_path: Path) -> None:
    """A function of the cloud counts, answers, and may not run again before it is taken away."""
    file = tmp_path / "documents.db"
    subprocess.run([sys.executable, "-c", _COUNT_AND_END, str(file)], check=True, cwd=ROOT)
    documents = SqliteDocumentStore(file)
    counts = StandardizationCounts(documents, FakeClock())
    assert counts.totals() == {("a", "b"): 1}
    assert counts.hits("decision") == 1
    [seen] = documents.query(COLLECTION, limit=10).documents
    assert seen.data["instances"] == 1


def test_what_cannot_be_written_waits_for_the_next_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = iter((StorageUnavailableError("locked"), None))
    wrote = []

    def write() -> None:
        wrote.append(next(answers))
        if wrote[-1] is not None:
            raise wrote[-1]

    written = WrittenSoon("counts", write, after_s=3600)
    for _ in range(2):
        written.has_changed()
        written.close()
    assert len(wrote) == 2
    assert "counts wait to be written" in caplog.text
    written.close()  # nothing has changed: nothing is written


def test_many_changes_are_one_write() -> None:
    wrote: list[None] = []
    written = WrittenSoon("counts", lambda: wrote.append(None), after_s=3600)
    for _ in range(1000):
        written.has_changed()
    written.close()
    assert len(wrote) == 1


def test_a_store_that_is_away_holds_no_process_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Firestore's client gives up after a minute; who stops a process kills it before that."""
    monkeypatch.setattr(soon, "_LONGEST_END_S", 0.01)
    may_end = threading.Event()

    def write() -> None:
        may_end.wait(60)

    written = WrittenSoon("counts", write, after_s=0)
    written.has_changed()
    written.close()
    assert not may_end.is_set()
    may_end.set()


def test_nobody_has_to_ask_for_it() -> None:
    wrote = threading.Event()
    WrittenSoon("counts", wrote.set, after_s=0.01).has_changed()
    assert wrote.wait(60)
