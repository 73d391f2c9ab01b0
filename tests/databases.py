"""Real databases for tests: PostgreSQL and MariaDB on Unix sockets, SQLite in a file.

`postgresql` and `mariadb` are one server each for the whole session, `sqlite_file` is new for each
test; a conftest that imports these fixtures offers them to its folder. Servers refuse to run as
root: root starts them as the user `nobody`. Where a server is not installed the test is skipped and
says so.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest

_READY_WITHIN_S = 120.0
_PASSWORD = "not-a-secret"
_NOBODY = 65534


class _Server:
    """A server of its own, which listens on a Unix socket alone. Stopped by its process id."""

    programs: Sequence[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def found(cls) -> dict[str, str] | None:
        """Where the programs are; None if one of them is missing."""
        folders = [
            os.environ.get("PATH", ""),
            "/usr/sbin",
            *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)),
        ]
        places = {name: shutil.which(name, path=os.pathsep.join(folders)) for name in cls.programs}
        return None if None in places.values() else {k: str(v) for k, v in places.items()}

    def execute(self, *statements: str) -> None:
        """Run statements as the server's owner, each in a transaction of its own."""
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                connection.commit()

    def insert(self, table: str, rows: Sequence[Mapping[str, str]]) -> None:
        """Add rows, their values bound."""
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.executemany(*_insertion(table, rows, "%s"))
            connection.commit()

    def value(self, query: str) -> Any:
        """The one value that the query gives, asked as the server's owner."""
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone()
            return None if row is None else row[0]

    def start(self) -> Self:
        """Start it and return once it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, **_as_somebody(self.folder)
            )
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            try:
                self._connect().close()
            except Exception:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log_text = (self.folder / "log").read_text(errors="replace")
                    raise AssertionError(f"the server does not start: {log_text[-3000:]}") from None
                time.sleep(0.05)
            else:
                return self

    def stop(self) -> None:
        """End it, connections or not; twice is once."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(self._stop_signal)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    _stop_signal = 15

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _connect(self) -> Any:
        raise NotImplementedError

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, capture_output=True, timeout=120, check=False, **_as_somebody(self.folder)
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]


class PostgresqlServer(_Server):
    """PostgreSQL with the user `axiom`, who may read and write, and has to give a password."""

    programs = ("initdb", "postgres")
    _stop_signal = 2  # "fast": connections are ended

    def create(self) -> Self:
        programs = self.found()
        assert programs is not None
        self._postgres = programs["postgres"]
        rights = ["-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        self._run(programs["initdb"], "-D", str(self.folder / "data"), "-U", "owner", *rights)
        (self.folder / "data" / "pg_hba.conf").write_text(
            "local all owner trust\nlocal all all scram-sha-256\n"
        )
        return self

    def source(self, name: str = "ris", **settings: Any) -> dict[str, Any]:
        """A crosswalk source of it, signing in as `axiom`."""
        return {
            "name": name,
            "type": "postgresql",
            "host": str(self.folder),
            "database": "postgres",
            "credentials": {"username": "axiom", "password": _PASSWORD},
            **settings,
        }

    def start(self) -> Self:
        is_new = not (self.folder / "log").exists()
        super().start()
        if is_new:
            self.execute(
                f"CREATE ROLE axiom LOGIN PASSWORD '{_PASSWORD}'",
                "GRANT ALL ON SCHEMA public TO axiom",
                "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO axiom",
                "ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO axiom",
            )
        return self

    def _command(self) -> list[str]:
        return [
            *(self._postgres, "-D", str(self.folder / "data"), "-k", str(self.folder)),
            *("-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB"),
        ]

    def _connect(self) -> Any:
        import psycopg

        return psycopg.connect(host=str(self.folder), user="owner", dbname="postgres")


class MariadbServer(_Server):
    """MariaDB with the user `axiom`, who may read and write, and has to give a password."""

    programs = ("mariadb-install-db", "mariadbd")
    _has_database = False

    def create(self) -> Self:
        programs = self.found()
        assert programs is not None
        self._mariadbd = programs["mariadbd"]
        self._run(
            programs["mariadb-install-db"],
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )
        return self

    def source(self, name: str = "ris", **settings: Any) -> dict[str, Any]:
        """A crosswalk source of it, signing in as `axiom`."""
        return {
            "name": name,
            "type": "mysql",
            "host": str(self.folder / "socket"),
            "database": "crosswalk",
            "credentials": {"username": "axiom", "password": _PASSWORD},
            **settings,
        }

    def start(self) -> Self:
        is_new = not (self.folder / "log").exists()
        super().start()
        if is_new:
            self.execute(
                "CREATE DATABASE crosswalk CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
                f"CREATE USER axiom@localhost IDENTIFIED BY '{_PASSWORD}'",
                "GRANT ALL ON crosswalk.* TO axiom@localhost",
            )
            self._has_database = True
        return self

    def _command(self) -> list[str]:
        return [
            *(self._mariadbd, "--no-defaults", f"--datadir={self.folder / 'data'}"),
            *(f"--socket={self.folder / 'socket'}", f"--pid-file={self.folder / 'pid'}"),
            *("--skip-networking", "--innodb-flush-log-at-trx-commit=0"),
            *("--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M"),
        ]

    def _connect(self) -> Any:
        import pymysql

        connection = pymysql.connect(unix_socket=str(self.folder / "socket"), user="root")
        if self._has_database:
            connection.select_db("crosswalk")
        return connection


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """One PostgreSQL for the whole session."""
    if PostgresqlServer.found() is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    with _folder_of_a_server() as folder:
        server = PostgresqlServer(Path(folder)).create().start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariadbServer]:
    """One MariaDB for the whole session."""
    if MariadbServer.found() is None:
        pytest.skip("MariaDB is not installed (Debian: mariadb-server)")
    with _folder_of_a_server() as folder:
        server = MariadbServer(Path(folder)).create().start()
        yield server
        server.stop()


class SqliteFile:
    """A SQLite database in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.execute("PRAGMA user_version = 1")

    def execute(self, *statements: str) -> None:
        """Run statements, each in a transaction of its own."""
        with closing(sqlite3.connect(self.path)) as connection:
            for statement in statements:
                connection.execute(statement)
                connection.commit()

    def insert(self, table: str, rows: Sequence[Mapping[str, str]]) -> None:
        """Add rows, their values bound."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executemany(*_insertion(table, rows, "?"))
            connection.commit()

    def value(self, query: str) -> Any:
        """The one value that the query gives."""
        with closing(sqlite3.connect(self.path)) as connection:
            row = connection.execute(query).fetchone()
            return None if row is None else row[0]

    def source(self, name: str = "ris", **settings: Any) -> dict[str, Any]:
        """A crosswalk source of it."""
        return {"name": name, "type": "sqlite", "path": str(self.path), **settings}


@pytest.fixture
def sqlite_file(tmp_path: Path) -> SqliteFile:
    """A new database."""
    return SqliteFile(tmp_path / "crosswalk.db")


def _insertion(
    table: str, rows: Sequence[Mapping[str, str]], bound: str
) -> tuple[str, list[tuple[str, ...]]]:
    columns = ", ".join(rows[0])
    values = ", ".join([bound] * len(rows[0]))
    return f"INSERT INTO {table} ({columns}) VALUES ({values})", [tuple(r.values()) for r in rows]


def _folder_of_a_server() -> tempfile.TemporaryDirectory[str]:
    # The path of a Unix socket has 107 bytes at most: pytest's own folders are too deep.
    return tempfile.TemporaryDirectory(prefix="axiom-")


def _as_somebody(folder: Path) -> dict[str, Any]:
    if os.getuid() != 0:
        return {"cwd": folder}
    os.chown(folder, _NOBODY, _NOBODY)
    for path in folder.iterdir():
        os.chown(path, _NOBODY, _NOBODY)
    return {"cwd": folder, "user": _NOBODY, "group": _NOBODY, "extra_groups": []}
