"""What a crosswalk promises over every database: the right row or none, and nothing but reading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.adapters.crosswalk.databases import connect_arguments, engine_for, url_of
from shared.adapters.crosswalk.sql_errors import failure
from shared.adapters.crosswalk.sql_rows import statement_for
from shared.config.crosswalks import CrosswalkMap, MssqlSource
from shared.config.entities import Configuration
from shared.errors import (
    CrosswalkAmbiguousError,
    CrosswalkMisconfiguredError,
    CrosswalkUnavailableError,
    SecretMissingError,
)
from tests.databases import MariadbServer, PostgresqlServer, SqliteFile
from tests.unit.crosswalk.site import Site, SqlDatabase, new_ids

DATABASES = (
    "sqlite_file",
    pytest.param("postgresql", marks=pytest.mark.peer("postgresql")),
    pytest.param("mariadb", marks=pytest.mark.peer("mariadb")),
)

# Of a key, none of it may ever be anything but a value.
HOSTILE = (
    "'", "''", '"', "`", "\\", "\\'", "' OR '1'='1", "'; DROP TABLE ids; --", '" OR 1=1 --',
    "%", "_", "%s", "%(key_0)s", ":old_id", ":key_0", "?", "$1", "{0}", "a;b", "/*", "--", "#",
    "\n", "\x1a", "\x00", "é", "名前", "𝄞", "\ud800", "\u202e", "x" * 2000, " ", "NULL",
)  # fmt: skip


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> Iterator[SqlDatabase]:
    """Each database in turn, with a table of identifiers."""
    found: SqlDatabase = request.getfixturevalue(request.param)
    found.execute(
        "CREATE TABLE ids (old_id VARCHAR(200), site VARCHAR(20), number INTEGER,"
        " new_id VARCHAR(200), born DATE, weight DECIMAL(8,2), fixed CHAR(10))",
        "INSERT INTO ids VALUES"
        " ('P1', 'north', 1, 'N1', '1970-01-31', 70.50, 'F1'),"
        " ('P1', 'south', 2, 'N2', '1970-01-31', 71.00, 'F2'),"
        " ('P3', 'north', 3, 'N3', NULL, NULL, 'F3'),"
        " ('P4', 'north', 4, NULL, NULL, NULL, 'F4'),"
        " ('P5', 'north', 5, '', NULL, NULL, 'F5'),"
        " ('0', 'north', 0, 'N0', NULL, NULL, 'F6')",
    )
    yield found
    found.execute("DROP TABLE ids")


def engine_of(site: Site, timeout_s: float = 2.0) -> Engine:
    source = site.configuration.get().crosswalk_sources[0]
    assert source.type != "csv"
    return engine_for(source, site.secrets, site.folder, timeout_s=timeout_s)


class TestLookup:
    def test_gives_the_outputs_of_the_row_by_their_names(
        self, site: Site, database: SqlDatabase
    ) -> None:
        outputs = [
            {"column": "new_id", "name": "mrn"},
            {"column": "born", "name": "birth_date"},
            {"column": "weight"},
        ]
        match = [{"column": "old_id"}, {"column": "site"}]
        site.has(database.source(), new_ids(match=match, outputs=outputs))
        found = site.lookup("new-ids", old_id="P1", site="south")
        assert found is not None
        assert found.pop("birth_date") in ("19700131", "1970-01-31")  # type: ignore[attr-defined]
        assert float(found.pop("weight")) == 71  # type: ignore[attr-defined]
        assert found == {"mrn": "N2"}

    def test_says_none_where_there_is_no_row(self, site: Site, database: SqlDatabase) -> None:
        site.has(database.source(), new_ids())
        assert site.lookup("new-ids", old_id="P9") is None

    def test_refuses_to_choose_between_two_rows(self, site: Site, database: SqlDatabase) -> None:
        """The first of two patients with one number is the wrong one half of the time."""
        site.has(database.source(), new_ids())
        with pytest.raises(CrosswalkAmbiguousError):
            site.lookup("new-ids", old_id="P1")

    @pytest.mark.parametrize("old_id", ["P4", "P5"])
    def test_leaves_out_an_output_that_is_null_or_empty(
        self, site: Site, database: SqlDatabase, old_id: str
    ) -> None:
        """So that the rule's own `on_miss` decides about it."""
        site.has(database.source(), new_ids(outputs=[{"column": "new_id"}, {"column": "site"}]))
        assert site.lookup("new-ids", old_id=old_id) == {"site": "north"}

    def test_compares_integer_columns_as_numbers(self, site: Site, database: SqlDatabase) -> None:
        site.has(database.source(), new_ids(match=[{"column": "number", "type": "integer"}]))
        assert site.lookup("new-ids", number="003") == {"new_id": "N3"}
        for no_number in ("none", "", "3.5", "0x3", "9" * 30, "３"):
            assert site.lookup("new-ids", number=no_number) is None

    @pytest.mark.parametrize("key", ["p3", "P3x", "Ｐ3", "P\u03013"])
    def test_finds_no_row_whose_key_is_only_alike(
        self, site: Site, database: SqlDatabase, key: str
    ) -> None:
        """MariaDB's usual collation holds 'p3' and 'P3' for equal; patients are not."""
        site.has(database.source(), new_ids())
        assert site.lookup("new-ids", old_id="P3") == {"new_id": "N3"}
        assert site.lookup("new-ids", old_id=key) is None

    def test_finds_no_row_by_what_a_number_is_made_of(
        self, site: Site, database: SqlDatabase
    ) -> None:
        """MariaDB makes 0 of the text 'none', and finds patient 0."""
        source = database.source()
        site.has(source, new_ids(match=[{"column": "number"}]))
        if source["type"] == "postgresql":
            with pytest.raises(CrosswalkMisconfiguredError, match="not of the type"):
                site.lookup("new-ids", number="none")
        else:
            assert site.lookup("new-ids", number="none") is None

    def test_finds_a_padded_column(self, site: Site, database: SqlDatabase) -> None:
        site.has(database.source(), new_ids(match=[{"column": "fixed"}]))
        assert site.lookup("new-ids", fixed="F3") == {"new_id": "N3"}

    def test_transforms_keys_and_outputs(self, site: Site, database: SqlDatabase) -> None:
        match = {
            "column": "old_id",
            "transformations": [
                "strip",
                {"regex_extract": "^HIS-(.*)$"},
                "remove_leading_zeros",
                "upper",
            ],
        }
        output = {"column": "new_id", "transformations": ["lower"]}
        site.has(database.source(), new_ids(match=[match], outputs=[output]))
        assert site.lookup("new-ids", old_id=" HIS-00p3") == {"new_id": "n3"}
        assert site.lookup("new-ids", old_id="P3") is None

    def test_asks_a_query_of_the_site_s_own(self, site: Site, database: SqlDatabase) -> None:
        query = (
            "SELECT a.new_id AS mrn, count(*) AS times FROM ids a JOIN ids b"
            " ON (a.site = b.site) WHERE a.old_id = :old_id AND a.number > :number"
            " GROUP BY a.new_id"
        )
        asked = new_ids(
            table=None,
            query=query,
            match=[{"column": "old_id"}, {"column": "number", "type": "integer"}],
            outputs=[{"column": "mrn"}, {"column": "times"}],
        )
        site.has(database.source(), asked)
        found = site.lookup("new-ids", old_id="P1", number="1")
        assert found == {"mrn": "N2", "times": "1"}
        with pytest.raises(CrosswalkAmbiguousError):
            site.lookup("new-ids", old_id="P1", number="0")

    def test_wants_each_key_and_no_other(self, site: Site, database: SqlDatabase) -> None:
        site.has(database.source(), new_ids())
        for keys in ({}, {"site": "north"}, {"old_id": "P3", "site": "north"}):
            with pytest.raises(CrosswalkMisconfiguredError, match="looked up by old_id"):
                site.crosswalks.lookup("new-ids", keys)

    def test_follows_a_changed_configuration(self, site: Site, database: SqlDatabase) -> None:
        site.has(database.source(), new_ids())
        assert site.lookup("new-ids", old_id="P3") == {"new_id": "N3"}
        site.has(database.source(), new_ids(outputs=[{"column": "site"}]))
        assert site.lookup("new-ids", old_id="P3") == {"site": "north"}
        site.has(database.source(), new_ids(enabled=False))
        with pytest.raises(CrosswalkMisconfiguredError, match="not enabled"):
            site.lookup("new-ids", old_id="P3")


class TestHostileKeys:
    def test_are_found_as_what_they_are(self, site: Site, database: SqlDatabase) -> None:
        """Each hostile key that a database can keep has its own row, and finds just that one."""
        site.has(database.source(), new_ids(cache={"ttl_s": 0}))
        kept = [key for key in HOSTILE if key.strip(" ") and _fits(key)]
        database.insert("ids", [{"old_id": key, "new_id": str(n)} for n, key in enumerate(kept)])
        for number, key in enumerate(kept):
            assert site.lookup("new-ids", old_id=key) == {"new_id": str(number)}, repr(key)

    @settings(
        max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(key=st.lists(st.sampled_from(HOSTILE) | st.text(max_size=20)).map("".join))
    def test_find_nothing_and_change_nothing(
        self, site: Site, database: SqlDatabase, key: str
    ) -> None:
        if not site.configuration.get().crosswalk_maps:
            asked = new_ids(name="asked", table=None)
            asked["query"] = "SELECT new_id FROM ids WHERE (old_id = :old_id)"
            site.has(database.source(), new_ids(cache={"ttl_s": 0}), asked)
        assert site.lookup("new-ids", old_id=f"?{key}") is None
        assert site.lookup("asked", old_id=f"?{key}") is None
        assert database.value("SELECT count(*) FROM ids") == 6

    def test_are_bound_and_never_part_of_the_statement(self) -> None:
        entity = CrosswalkMap.model_validate_json(
            '{"name": "m", "source": "s", "table": "a.b",'
            ' "match": [{"column": "old id"}], "outputs": [{"column": "%new"}]}'.replace("%", "")
        )
        statement = statement_for(entity)
        assert set(statement.compile().params) == {"key_0", "param_1"}  # and the limit
        assert '"old id" = :key_0' in str(statement)


class TestGuards:
    """The configuration is not trusted to say only what reads: the database itself refuses."""

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE ids SET new_id = 'changed'",
            "DELETE FROM ids",
            "INSERT INTO ids (old_id) VALUES ('x')",
            "DROP TABLE ids",
            "SELECT 1; DROP TABLE ids",
            "SELECT 1; COMMIT; DROP TABLE ids",
        ],
    )
    def test_no_connection_writes(self, site: Site, database: SqlDatabase, statement: str) -> None:
        site.has(database.source(), new_ids())
        engine = engine_of(site)
        with engine.connect() as connection, pytest.raises(SQLAlchemyError) as caught:
            connection.execute(text(statement))
        engine.dispose()
        if ";" not in statement:
            assert "would write" in str(failure("new-ids", caught.value))
        assert database.value("SELECT count(*) FROM ids WHERE new_id <> 'changed'") == 5

    def test_a_slow_statement_is_given_up_and_tried_again_later(
        self, site: Site, database: SqlDatabase
    ) -> None:
        slow = {
            "sqlite": "SELECT (WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n"
            " WHERE x < 1000000000) SELECT count(*) FROM n) AS new_id, :old_id AS k",
            "postgresql": "SELECT CAST(pg_sleep(30) AS text) AS new_id, :old_id AS k",
            "mysql": "SELECT sleep(30) AS new_id, :old_id AS k",
        }
        source = database.source(statement_timeout_s=0.3)
        site.has(source, new_ids(table=None, query=slow[source["type"]]))
        with pytest.raises(CrosswalkUnavailableError, match="time-out"):
            site.lookup("new-ids", old_id="P3")

    def test_errors_do_not_quote_what_was_looked_up(
        self, site: Site, database: SqlDatabase, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked = new_ids(
            table=None, query="SELECT no_such AS new_id FROM ids WHERE old_id = :old_id"
        )
        site.has(database.source(), asked)
        with caplog.at_level("DEBUG"), pytest.raises(CrosswalkMisconfiguredError) as caught:
            site.lookup("new-ids", old_id="DOE^JANE")
        assert "no such" in str(caught.value)
        assert caught.value.__cause__ is None
        assert "DOE" not in str(caught.value) + caplog.text

    def test_no_such_table_is_for_a_person(self, site: Site, database: SqlDatabase) -> None:
        site.has(database.source(), new_ids(table="no_such_table"))
        with pytest.raises(CrosswalkMisconfiguredError, match="no such table"):
            site.lookup("new-ids", old_id="P3")

    def test_a_third_lookup_at_once_waits_for_a_connection(
        self, site: Site, database: SqlDatabase
    ) -> None:
        """So many processes as the system has must not use up the database's connections."""
        site.has(database.source(), new_ids())
        engine = engine_of(site)
        assert engine.pool.size() == 1  # type: ignore[attr-defined]
        engine.pool._timeout = 0.01  # type: ignore[attr-defined]
        with engine.connect(), engine.connect(), pytest.raises(PoolTimeoutError) as caught:
            engine.connect()
        engine.dispose()
        assert isinstance(failure("m", caught.value), CrosswalkUnavailableError)


class TestServers:
    @pytest.mark.peer("postgresql")
    def test_postgresql_refuses_a_query_that_writes(
        self, site: Site, postgresql: PostgresqlServer
    ) -> None:
        postgresql.execute("CREATE SEQUENCE IF NOT EXISTS counter")
        query = "SELECT nextval('counter') AS new_id, :old_id AS k"
        site.has(postgresql.source(), new_ids(table=None, query=query))
        with pytest.raises(CrosswalkMisconfiguredError, match="would write"):
            site.lookup("new-ids", old_id="P3")

    @pytest.mark.peer("mariadb")
    def test_mariadb_refuses_a_query_that_writes(self, site: Site, mariadb: MariadbServer) -> None:
        mariadb.execute(
            "CREATE OR REPLACE TABLE written (n INT)",
            "CREATE OR REPLACE FUNCTION write_it() RETURNS INT"
            " BEGIN INSERT INTO written VALUES (1); RETURN 1; END",
        )
        query = "SELECT write_it() AS new_id, :old_id AS k"
        site.has(mariadb.source(), new_ids(table=None, query=query))
        with pytest.raises(CrosswalkMisconfiguredError, match="would write"):
            site.lookup("new-ids", old_id="P3")
        assert mariadb.value("SELECT count(*) FROM written") == 0

    @pytest.mark.parametrize("database", DATABASES[1:], indirect=True)
    def test_a_database_that_is_down_makes_the_instance_wait(
        self, site: Site, database: PostgresqlServer | MariadbServer
    ) -> None:
        site.has(database.source(), new_ids(cache={"ttl_s": 0}))
        assert site.lookup("new-ids", old_id="P3") == {"new_id": "N3"}
        database.stop()
        try:
            for _ in range(2):
                with pytest.raises(CrosswalkUnavailableError):
                    site.lookup("new-ids", old_id="P3")
        finally:
            database.start()
        assert site.lookup("new-ids", old_id="P3") == {"new_id": "N3"}

    @pytest.mark.parametrize("database", DATABASES[1:], indirect=True)
    def test_a_wrong_password_waits_for_the_right_one(
        self, site: Site, database: SqlDatabase
    ) -> None:
        wrong = {"username": "axiom", "password": "WRONG-ONE"}
        site.has(database.source(credentials=wrong), new_ids())
        with pytest.raises(CrosswalkUnavailableError, match="refuses user or password") as caught:
            site.lookup("new-ids", old_id="P3")
        assert "WRONG" not in str(caught.value)
        site.secrets.put("crosswalk-source-ris-password", "not-a-secret")
        assert site.lookup("new-ids", old_id="P3") == {"new_id": "N3"}

    @pytest.mark.parametrize("database", DATABASES[1:], indirect=True)
    def test_a_missing_secret_is_for_a_person(self, site: Site, database: SqlDatabase) -> None:
        missing = {"username": "axiom", "password_secret": "nowhere"}
        site.has(database.source(credentials=missing), new_ids())
        with pytest.raises(SecretMissingError):
            site.lookup("new-ids", old_id="P3")

    @pytest.mark.peer("postgresql")
    def test_postgresql_reads_its_dates_and_numbers(
        self, site: Site, postgresql: PostgresqlServer
    ) -> None:
        postgresql.execute(
            'CREATE TABLE IF NOT EXISTS public."Mixed Case"'
            " (old_id text, born date, at timestamp, t time, weight numeric, u uuid, b boolean,"
            "  f float8, j jsonb, raw bytea)",
            "INSERT INTO public.\"Mixed Case\" VALUES ('P1', '1970-01-31', '2026-11-21 10:30:00.5',"
            " '08:09:10', 70.50, '6a2f41a3-c54c-fce8-32d2-0324e1c32e22', true, 0.1, '{}', '\\xff')",
        )
        names = ("born", "at", "t", "weight", "u", "b", "f")
        typed = new_ids(table="public.Mixed Case", outputs=[{"column": name} for name in names])
        binary = {**typed, "name": "binary", "outputs": [{"column": "raw"}]}
        site.has(postgresql.source(), typed, binary)
        assert site.lookup("new-ids", old_id="P1") == {
            "born": "19700131",
            "at": "20261121103000.500000",
            "t": "080910",
            "weight": "70.50",
            "u": "6a2f41a3-c54c-fce8-32d2-0324e1c32e22",
            "b": "1",
            "f": "0.1",
        }
        with pytest.raises(CrosswalkMisconfiguredError, match="binary column"):
            site.lookup("binary", old_id="P1")

    def test_a_sqlite_file_that_is_missing_makes_the_instance_wait(
        self, site: Site, tmp_path: Path
    ) -> None:
        """It may lie on a share that is not mounted yet; and it must not be created."""
        site.has({"name": "ris", "type": "sqlite", "path": "absent.db"}, new_ids())
        with pytest.raises(CrosswalkUnavailableError, match="cannot be opened"):
            site.lookup("new-ids", old_id="P3")
        assert not (site.folder / "absent.db").exists()

    def test_a_file_that_is_no_database_is_for_a_person(
        self, site: Site, sqlite_file: SqliteFile
    ) -> None:
        sqlite_file.path.write_bytes(b"no database, but long enough to be looked at" * 100)
        site.has(sqlite_file.source(), new_ids())
        with pytest.raises(CrosswalkMisconfiguredError, match="no SQLite database"):
            site.lookup("new-ids", old_id="P3")


class TestSqlServer:
    """There is no SQL Server to test with: what we would send it is all that is checked."""

    def mssql(self, **settings: Any) -> MssqlSource:
        document = {
            "name": "his",
            "type": "mssql",
            "host": "sql.example.org",
            "database": "HIS",
            "credentials": {"username": "axiom", "password_secret": "p"},
            **settings,
        }
        configured = Configuration.model_validate({"crosswalk_sources": (document,)}, strict=False)
        (source,) = configured.crosswalk_sources
        assert isinstance(source, MssqlSource)
        return source

    def test_is_reached_by_its_url_without_the_password(self) -> None:
        url = url_of(self.mssql(port=1500)).render_as_string(hide_password=False)
        assert url == "mssql+pymssql://axiom@sql.example.org:1500/HIS"

    def test_is_given_up_after_the_time_out(self) -> None:
        arguments = connect_arguments(self.mssql(tls="require"), 1.5)
        assert (arguments["login_timeout"], arguments["timeout"]) == (5, 2)
        assert arguments["encryption"] == "require"

    def test_is_asked_for_two_rows_at_most(self, site: Site) -> None:
        engine = engine_for(self.mssql(), site.secrets, site.folder, timeout_s=1)
        entity = CrosswalkMap.model_validate(new_ids(table="dbo.ids"), strict=False)
        sql = str(statement_for(entity).compile(dialect=engine.dialect))
        assert " ".join(sql.split()) == (
            "SELECT TOP __[POSTCOMPILE_param_1] old_id AS column_0, new_id AS column_1"
            " FROM dbo.ids WHERE old_id = %(key_0)s"
        )


def _fits(key: str) -> bool:
    return len(key) <= 200 and "\0" not in key and not any("\ud800" <= c <= "\udfff" for c in key)
