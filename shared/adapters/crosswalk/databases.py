"""Connections to databases that can read, soon give up, and nothing else.

PostgreSQL, MySQL, MariaDB and SQLite refuse to write by themselves: each transaction, or the whole
connection, is read-only. SQL Server has no such thing: there the user's rights decide. All limit
the time that a statement may take, and transactions are only ever rolled back.
"""

from __future__ import annotations

import math
import socket
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from shared.addresses import AddressRefusedError, policy
from shared.config.crosswalks import MssqlSource, MysqlSource, PostgresqlSource, SqliteSource
from shared.ports import SecretStore

CONNECT_TIMEOUT_S: Final = 5
DatabaseSource = PostgresqlSource | MysqlSource | MssqlSource | SqliteSource

_DRIVERS: Final = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mssql": "mssql+pymssql",
    "sqlite": "sqlite",
}
_CR_CONN_HOST_ERROR: Final = 2003  # of MySQL: nobody answers there
# SQLite asks whether to go on each time so many of its instructions are done.
_INSTRUCTIONS: Final = 10_000


def engine_for(
    source: DatabaseSource, secrets: SecretStore, folder: Path, *, timeout_s: float
) -> Engine:
    """An engine with at most two connections, the first made when one is needed.

    `folder` is where relative paths begin; no statement takes longer than `timeout_s`. A password
    is read from `secrets` for each new connection, so that a changed one counts at once; connecting
    raises SecretMissingError if there is none.
    """
    settings: dict[str, Any] = {}
    if isinstance(source, SqliteSource):
        path = (folder / source.path).absolute()
        settings["creator"] = partial(_open_sqlite, path, timeout_s)
    engine = create_engine(
        url_of(source),
        connect_args=connect_arguments(source, timeout_s),
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=1,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,
        # What is looked up stays out of error texts and logs.
        hide_parameters=True,
        **settings,
    )
    match source:
        case PostgresqlSource():
            engine = engine.execution_options(postgresql_readonly=True)
        case MysqlSource():
            event.listen(engine, "connect", partial(_limit_mysql, timeout_s))
        case SqliteSource():
            event.listen(engine, "connect", partial(_limit_sqlite, timeout_s))
            event.listen(engine, "before_cursor_execute", _start_sqlite_time)
    if not isinstance(source, SqliteSource) and source.credentials.password_secret:
        password = partial(secrets.get, source.credentials.password_secret)
        event.listen(engine, "do_connect", partial(_give_password, password))
    if not isinstance(source, SqliteSource) and not source.host.startswith("/"):
        look = _LOOKS[source.type]
        event.listen(engine, "do_connect", partial(look, source.host, source.port))
    return engine


def url_of(source: DatabaseSource) -> URL:
    """Where it is; never a password."""
    driver = _DRIVERS[source.type]
    if isinstance(source, SqliteSource):
        return URL.create(driver)
    at: dict[str, Any] = {"database": source.database, "username": source.credentials.username}
    if not source.host.startswith("/"):
        return URL.create(driver, host=source.host, port=source.port, **at)
    where = {"unix_socket": source.host}
    if source.type == "postgresql":
        where = {"host": source.host, "port": str(source.port)}
    return URL.create(driver, query=where, **at)


def connect_arguments(source: DatabaseSource, timeout_s: float) -> dict[str, Any]:
    """What the driver is told besides the URL."""
    match source:
        case PostgresqlSource():
            modes = {"prefer": "prefer", "require": "require", "verify": "verify-full"}
            options = {
                "default_transaction_read_only": "on",
                "statement_timeout": str(math.ceil(timeout_s * 1000)),  # ms
            }
            arguments: dict[str, Any] = {
                "connect_timeout": CONNECT_TIMEOUT_S,
                # A server that has gone without a word is given up as late as a slow statement.
                "tcp_user_timeout": math.ceil((timeout_s + CONNECT_TIMEOUT_S) * 1000),
                "application_name": "axiom-flow",
                "client_encoding": "utf8",
                "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
                "sslmode": modes[source.tls],
                # Statements kept on the server would break behind a pooler such as PgBouncer.
                "prepare_threshold": None,
            }
            if source.tls == "verify":
                arguments["sslrootcert"] = source.ca_file or "system"
            return arguments
        case MysqlSource():
            arguments = {
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": math.ceil(timeout_s + CONNECT_TIMEOUT_S),
                "write_timeout": CONNECT_TIMEOUT_S,
                "charset": "utf8mb4",
            }
            if source.tls != "prefer":  # which is what PyMySQL does by itself
                arguments["ssl"] = _tls_context(source)
            return arguments
        case MssqlSource():
            return {
                "login_timeout": CONNECT_TIMEOUT_S,
                "timeout": math.ceil(timeout_s),
                "appname": "axiom-flow",
                "encryption": {"prefer": "request"}.get(source.tls, "require"),
                "read_only": True,  # no guard: it lets an availability group choose a replica
            }
        case SqliteSource():
            return {}


def _tls_context(source: MysqlSource) -> Any:
    import ssl

    if source.tls == "verify":
        return ssl.create_default_context(cafile=source.ca_file)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _look_at_host(host: str, port: int, *_: Any) -> list[str]:
    try:
        return policy().check_host(host, port)
    except AddressRefusedError as error:
        raise OperationalError("connect", None, error) from error
    except OSError:
        return []  # what is wrong with the name, the driver says


def _connect_where_it_was_looked(
    host: str, port: int, _dialect: Any, _record: Any, _args: Any, arguments: dict[str, Any]
) -> None:
    """Have libpq connect to these addresses, and check certificates against the name."""
    addresses = _look_at_host(host, port)
    if addresses:
        arguments["hostaddr"] = ",".join(addresses)
        arguments["host"] = ",".join([host] * len(addresses))
        arguments["port"] = ",".join([str(port)] * len(addresses))


def _connect_and_look(
    host: str, port: int, dialect: Any, _record: Any, args: Any, arguments: dict[str, Any]
) -> Any:
    """Hand PyMySQL a connection that was looked at; it checks certificates against the name."""
    try:
        connection = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
        policy().check_peer(connection)
    except AddressRefusedError as error:
        raise OperationalError("connect", None, error) from error
    except OSError as error:
        words = error.strerror or "no connection"
        raise dialect.loaded_dbapi.OperationalError(_CR_CONN_HOST_ERROR, words) from error
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made = dialect.loaded_dbapi.connect(*args, **arguments, defer_connect=True)
    try:
        made.connect(connection)
    except BaseException:
        connection.close()
        raise
    return made


# FreeTDS sends the name to the server, which may depend on it: its connection is looked at before.
_LOOKS: Final[Mapping[str, Callable[..., Any]]] = {
    "postgresql": _connect_where_it_was_looked,
    "mysql": _connect_and_look,
    "mssql": lambda host, port, *_: _look_at_host(host, port) and None,
}


def _give_password(
    password: Callable[[], str], _dialect: Any, _record: Any, _args: Any, arguments: dict[str, Any]
) -> None:
    arguments["password"] = password()


def _limit_mysql(timeout_s: float, connection: Any, _record: Any) -> None:
    is_mariadb = "mariadb" in connection.get_server_info().lower()
    limit = (
        f"max_statement_time = {timeout_s:.3f}"
        if is_mariadb
        else f"max_execution_time = {math.ceil(timeout_s * 1000)}"
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION {limit}")
        cursor.execute("SET SESSION TRANSACTION READ ONLY")


def _open_sqlite(path: Path, timeout_s: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.as_uri()}?mode=ro", uri=True, timeout=timeout_s, check_same_thread=False
    )


def _limit_sqlite(timeout_s: float, connection: sqlite3.Connection, record: Any) -> None:
    connection.execute("PRAGMA query_only = ON")
    ends_at_s = [math.inf]

    def is_late() -> bool:
        return time.monotonic() > ends_at_s[0]

    def start() -> None:
        ends_at_s[0] = time.monotonic() + timeout_s

    connection.set_progress_handler(is_late, _INSTRUCTIONS)
    record.info["start"] = start


def _start_sqlite_time(connection: Any, *_: Any) -> None:
    connection.info["start"]()
