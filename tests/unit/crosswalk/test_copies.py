"""Copies of whole tables: they answer for their source, and say how old they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from shared import metrics
from shared.errors import (
    CrosswalkAmbiguousError,
    CrosswalkMisconfiguredError,
    CrosswalkUnavailableError,
)
from shared.pipeline.crosswalks import CrosswalkStatus
from tests.counting import counting
from tests.databases import SqliteFile
from tests.unit.crosswalk.site import Site, SqlDatabase, new_ids

COPIED = new_ids(
    match=[{"column": "old_id"}, {"column": "number", "type": "integer"}],
    sync={"interval_s": 3600},
)


@pytest.fixture(
    params=[
        "sqlite_file",
        pytest.param("postgresql", marks=pytest.mark.peer("postgresql")),
        pytest.param("mariadb", marks=pytest.mark.peer("mariadb")),
    ]
)
def database(request: pytest.FixtureRequest) -> Iterator[SqlDatabase]:
    """Each database in turn, with more rows than are fetched at once."""
    found: SqlDatabase = request.getfixturevalue(request.param)
    found.execute(
        "CREATE TABLE ids (old_id VARCHAR(20), number INTEGER, new_id VARCHAR(20))",
        "INSERT INTO ids VALUES ('P', 1, 'N1'), ('P', 2, NULL), (NULL, 3, 'N3'), ('D', 4, 'N4'),"
        " ('D', 4, 'N5')",
    )
    many = [{"old_id": "M", "number": str(n), "new_id": f"M{n}"} for n in range(2500)]
    found.insert("ids", many)
    yield found
    found.execute("DROP TABLE ids")


def status(site: Site) -> CrosswalkStatus:
    return site.crosswalks.status()[0]


class TestCopies:
    def test_answer_as_the_table_would(self, site: Site, database: SqlDatabase) -> None:
        site.has(database.source(), COPIED)
        assert site.lookup("new-ids", old_id="P", number="01") == {"new_id": "N1"}
        assert site.lookup("new-ids", old_id="P", number="2") == {}
        assert site.lookup("new-ids", old_id="p", number="1") is None
        assert site.lookup("new-ids", old_id="M", number="2499") == {"new_id": "M2499"}
        with pytest.raises(CrosswalkAmbiguousError):
            site.lookup("new-ids", old_id="D", number="4")
        assert status(site).rows == 2504

    def test_outlive_their_source_and_the_process(
        self, site: Site, sqlite_file: SqliteFile
    ) -> None:
        sqlite_file.execute(
            "CREATE TABLE ids (old_id TEXT, number INTEGER, new_id TEXT)",
            "INSERT INTO ids VALUES ('P', 1, 'N1')",
        )
        site.has(sqlite_file.source(), COPIED)
        assert site.lookup("new-ids", old_id="P", number="1") == {"new_id": "N1"}
        synced_at = status(site).synced_at
        sqlite_file.path.unlink()
        site.clock.advance(100_000)
        assert site.crosswalks.sync_due() >= 1
        after = status(site)
        assert after.synced_at == synced_at
        assert after.error is not None
        assert "cannot be opened" in after.error
        another = site.another_process()
        assert another.lookup("new-ids", {"old_id": "P", "number": "1"}) == {"new_id": "N1"}

    def test_are_taken_when_due_and_reach_every_process(
        self, site: Site, database: SqlDatabase
    ) -> None:
        site.has(database.source(), COPIED)
        another = site.another_process()
        keys = {"old_id": "P", "number": "1"}
        assert another.lookup("new-ids", keys) == {"new_id": "N1"}
        database.execute("UPDATE ids SET new_id = 'NEW' WHERE number = 1 AND old_id = 'P'")
        site.clock.advance(3599)
        site.crosswalks.sync_due()
        assert another.lookup("new-ids", keys) == {"new_id": "N1"}
        site.clock.advance(2)
        site.crosswalks.sync_due()
        assert another.lookup("new-ids", keys) == {"new_id": "NEW"}
        assert status(site).synced_at == "2026-11-21T11:00:01.000000Z"
        assert len(list(site.objects.list("crosswalks/"))) == 1

    def test_are_taken_by_hand(self, site: Site, database: SqlDatabase) -> None:
        site.has(database.source(), COPIED)
        assert status(site).synced_at is None
        assert site.crosswalks.sync("new-ids").rows == 2504
        database.execute("DELETE FROM ids")
        assert site.crosswalks.sync("new-ids").rows == 0
        assert site.lookup("new-ids", old_id="P", number="1") is None

    def test_of_another_table_do_not_answer(self, site: Site, database: SqlDatabase) -> None:
        """A changed map must not answer with what it meant before."""
        site.has(database.source(), COPIED)
        assert site.lookup("new-ids", old_id="P", number="1") == {"new_id": "N1"}
        changed = {**COPIED, "outputs": [{"column": "old_id"}]}
        site.has(database.source(), changed)
        assert status(site).synced_at is None
        assert site.lookup("new-ids", old_id="P", number="1") == {"old_id": "P"}
        assert len(list(site.objects.list("crosswalks/"))) == 1

    def test_a_first_copy_that_fails_makes_the_instance_wait(self, site: Site) -> None:
        site.has({"name": "ris", "type": "sqlite", "path": "absent.db"}, COPIED)
        with (
            counting(metrics.CROSSWALK_SYNCS) as copies,
            pytest.raises(CrosswalkUnavailableError),
        ):
            site.lookup("new-ids", old_id="P", number="1")
        assert copies() == {("new-ids", "ris", "failed"): 1}
        assert status(site).error is not None
        # Tried again in a minute, not at once and not only when the hour is over.
        site.clock.advance(59)
        failed_at = status(site).failed_at
        site.crosswalks.sync_due()
        assert status(site).failed_at == failed_at
        site.clock.advance(2)
        site.crosswalks.sync_due()
        assert status(site).failed_at != failed_at

    def test_a_map_without_sync_has_no_copy(self, site: Site, sqlite_file: SqliteFile) -> None:
        site.has(sqlite_file.source(), new_ids())
        with pytest.raises(CrosswalkMisconfiguredError, match="no `sync`"):
            site.crosswalks.sync("new-ids")
        assert not status(site).is_copied

    def test_are_kept_fresh_in_the_background(self, site: Site, database: SqlDatabase) -> None:
        site.has(database.source(), COPIED)
        before = set(threading.enumerate())
        site.lookup("new-ids", old_id="P", number="1")
        (background,) = set(threading.enumerate()) - before
        site.crosswalks.close()
        assert not background.is_alive()
