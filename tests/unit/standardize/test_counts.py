"""What standardizers counted, as other processes see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.pipeline.standardization_counts import StandardizationCounts
from tests.fakes import FakeClock
from tests.running import ROOT

_COUNT_AND_END = """
import sys
from pathlib import Path
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.pipeline.standardization_counts import StandardizationCounts
from tests.fakes import FakeClock

documents = SqliteDocumentStore(Path(sys.argv[1]))
counts = StandardizationCounts(documents, FakeClock(), write_after_s=600)
counts.count("a", "b")
counts.hit("decision")
"""


def test_a_process_that_ends_has_written_what_it_counted(tmp_path: Path) -> None:
    """A function of the cloud counts, answers, and may not run again before it is taken away."""
    file = tmp_path / "documents.db"
    subprocess.run([sys.executable, "-c", _COUNT_AND_END, str(file)], check=True, cwd=ROOT)
    counts = StandardizationCounts(SqliteDocumentStore(file), FakeClock())
    assert counts.totals() == {("a", "b"): 1}
    assert counts.hits("decision") == 1
