"""Who polls a source, whatever its process and the clock do."""

from __future__ import annotations

from pathlib import Path

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.config.sources import FolderSource
from shared.pipeline.source_states import LEASE_S, SourceStates
from tests.fakes import FakeClock

ENTITY = FolderSource(name="inbox", type="folder", path="inbox")


def test_a_source_is_one_poller_s_until_it_ends_or_the_clock_is_set_back(tmp_path: Path) -> None:
    """Else nobody would ask it for as long as the clock was wrong."""
    clock = FakeClock()
    states = SourceStates(SqliteDocumentStore(tmp_path / "documents.db"), clock)
    assert states.take(ENTITY)
    assert states.take(ENTITY) is None
    clock.advance(LEASE_S + 1)
    assert states.take(ENTITY)
    clock.set_wall_clock(-6 * 3600)
    assert states.take(ENTITY)
