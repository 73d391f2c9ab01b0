"""Answers are kept as long as the map says, and no longer."""

from __future__ import annotations

from shared.adapters.crosswalk.cache import AnswerCache
from shared.config.crosswalks import CrosswalkCache
from tests.databases import SqliteFile
from tests.fakes import FakeClock
from tests.unit.crosswalk.site import Site, new_ids


def set_new_id(file: SqliteFile, new_id: str) -> None:
    file.execute(
        "CREATE TABLE IF NOT EXISTS ids (old_id TEXT PRIMARY KEY, new_id TEXT)",
        f"INSERT OR REPLACE INTO ids VALUES ('P1', '{new_id}')",
    )


class TestCache:
    def test_keeps_an_answer_until_its_time_is_over(
        self, site: Site, sqlite_file: SqliteFile
    ) -> None:
        set_new_id(sqlite_file, "N1")
        site.has(sqlite_file.source(), new_ids(cache={"ttl_s": 60}))
        assert site.lookup("new-ids", old_id="P1") == {"new_id": "N1"}
        set_new_id(sqlite_file, "N2")
        site.clock.advance(59)
        assert site.lookup("new-ids", old_id="P1") == {"new_id": "N1"}
        site.clock.advance(1)
        assert site.lookup("new-ids", old_id="P1") == {"new_id": "N2"}

    def test_forgets_a_miss_soon(self, site: Site, sqlite_file: SqliteFile) -> None:
        """A patient is often registered minutes after the first images come."""
        sqlite_file.execute("CREATE TABLE ids (old_id TEXT PRIMARY KEY, new_id TEXT)")
        site.has(sqlite_file.source(), new_ids(cache={"ttl_s": 3600}))
        assert site.lookup("new-ids", old_id="P1") is None
        set_new_id(sqlite_file, "N1")
        site.clock.advance(9)
        assert site.lookup("new-ids", old_id="P1") is None
        site.clock.advance(1)
        assert site.lookup("new-ids", old_id="P1") == {"new_id": "N1"}

    def test_forgets_the_answer_that_nobody_wanted_longest(self) -> None:
        cache = AnswerCache(CrosswalkCache(max_entries=2), FakeClock())
        cache.put(("a",), ("A",))
        cache.put(("b",), ("B",))
        cache.get(("a",))
        cache.put(("c",), None)
        assert [cache.get((key,)) for key in "abc"] == [(True, ("A",)), (False, None), (True, None)]

    def test_keeps_nothing_where_it_must_not(self) -> None:
        for settings in (CrosswalkCache(ttl_s=0), CrosswalkCache(max_entries=0)):
            cache = AnswerCache(settings, FakeClock())
            cache.put(("a",), ("A",))
            assert cache.get(("a",)) == (False, None)
