"""What a database's error means for the Instance that waits, by the number that it bears.

The database's own text is left out: it quotes what was looked up ("invalid input syntax: ...").
"""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.addresses import AddressRefusedError
from shared.errors import (
    CrosswalkMisconfiguredError,
    CrosswalkUnavailableError,
    PermanentError,
    TransientError,
)

_LATE: Final = "the statement took longer than its time-out"

# PostgreSQL: SQLSTATE, or its class.
_POSTGRESQL_PASSES: Final = {
    "08": "the connection is lost",
    "28": "the server refuses user or password",
    "40": "another transaction was in the way",
    "53": "the server is short of resources",
    "57": "the server is stopping or starting",
    "57014": _LATE,
    "58": "the server has trouble with its own disk",
}
_POSTGRESQL_STAYS: Final = {
    "25006": "the statement would write",
    "3D000": "there is no such database",
    "42501": "the user may not read this",
    "42601": "the SQL cannot be read",
    "42703": "there is no such column",
    "42883": "a column is not of the type that the key has",
    "42P01": "there is no such table",
}
# A key that the server's own encoding cannot say is in no row.
_POSTGRESQL_UNMATCHABLE: Final = frozenset({"22021", "22P05"})

# MySQL and MariaDB. Client errors (2000 and up) are all about the connection.
_MYSQL_PASSES: Final = {
    1040: "the server has too many connections",
    1045: "the server refuses user or password",
    1053: "the server is stopping",
    1129: "the server blocks this host",
    1203: "the user has too many connections",
    1205: "another transaction was in the way",
    1213: "another transaction was in the way",
    1226: "the user has used up what it may",
    1317: _LATE,
    1927: "the connection was ended by the server",
    1969: _LATE,
    3024: _LATE,
}
_MYSQL_STAYS: Final = {
    1044: "the user may not use this database",
    1049: "there is no such database",
    1054: "there is no such column",
    1064: "the SQL cannot be read",
    1142: "the user may not read this",
    1143: "the user may not read this",
    1146: "there is no such table",
    1792: "the statement would write",
}

_MSSQL_STAYS: Final = {
    102: "the SQL cannot be read",
    207: "there is no such column",
    208: "there is no such table",
    229: "the user may not read this",
    230: "the user may not read this",
    245: "a column is not of the type that the key has",
    4060: "there is no such database",
    8114: "a column is not of the type that the key has",
}

_SQLITE_PASSES: Final = {
    "SQLITE_BUSY": "the file is locked",
    "SQLITE_CANTOPEN": "the file cannot be opened",
    "SQLITE_INTERRUPT": _LATE,
    "SQLITE_IOERR": "the file cannot be read",
    "SQLITE_LOCKED": "the file is locked",
    "SQLITE_NOMEM": "there is not enough memory",
}
_SQLITE_STAYS: Final = {
    "SQLITE_ERROR": "there is no such table or column, or the SQL cannot be read",
    "SQLITE_NOTADB": "the file is no SQLite database",
    "SQLITE_READONLY": "the statement would write",
}


def failure(map_name: str, error: SQLAlchemyError) -> TransientError | PermanentError:
    """The error to raise in its place."""
    passes, reason = _verdict(error)
    if passes:
        return CrosswalkUnavailableError(map_name, reason)
    return CrosswalkMisconfiguredError(map_name, reason)


def is_unmatchable(error: DBAPIError) -> bool:
    """True if the server cannot even say the key, so that no row can have it."""
    return getattr(error.orig, "sqlstate", None) in _POSTGRESQL_UNMATCHABLE


def _verdict(error: SQLAlchemyError) -> tuple[bool, str]:
    """Whether it may pass, and what it is."""
    if isinstance(error, PoolTimeoutError):
        return True, "all connections are busy"
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False, f"the SQL cannot be made ({type(error).__name__})"
    if isinstance(error.orig, AddressRefusedError):
        return False, str(error.orig)
    driver = type(error.orig).__module__.partition(".")[0]
    reader = _READERS.get(driver, _of_mssql)
    return reader(error)


def _of_postgresql(error: DBAPIError) -> tuple[bool, str]:
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        # While connecting libpq hands on no SQLSTATE, only text in the server's language.
        passes = isinstance(error, (OperationalError, InterfaceError))
        return passes, "there is no connection, or the server refuses user or password"
    for known in (state, state[:2]):
        if known in _POSTGRESQL_PASSES:
            return True, f"{_POSTGRESQL_PASSES[known]} (SQLSTATE {state})"
    reason = _POSTGRESQL_STAYS.get(state, "the server refuses the statement")
    return False, f"{reason} (SQLSTATE {state})"


def _of_mysql(error: DBAPIError) -> tuple[bool, str]:
    number = _number(error)
    if number in _MYSQL_PASSES:
        return True, f"{_MYSQL_PASSES[number]} (error {number})"
    if number in _MYSQL_STAYS:
        return False, f"{_MYSQL_STAYS[number]} (error {number})"
    if isinstance(error, InterfaceError) or 2000 <= number < 3000 or number == 0:
        return True, f"there is no connection (error {number})"
    return False, f"the server refuses the statement (error {number})"


def _of_mssql(error: DBAPIError) -> tuple[bool, str]:
    number = _number(error)
    if number in _MSSQL_STAYS:
        return False, f"{_MSSQL_STAYS[number]} (error {number})"
    if isinstance(error, ProgrammingError):
        return False, f"the server refuses the statement (error {number})"
    if isinstance(error, (OperationalError, InterfaceError)):
        return True, f"there is no connection, or the statement took too long (error {number})"
    return False, f"the server refuses the statement (error {number})"


def _of_sqlite(error: DBAPIError) -> tuple[bool, str]:
    # An extended code is the basic one with more words: SQLITE_IOERR_READ.
    name = "_".join(getattr(error.orig, "sqlite_errorname", "").split("_")[:2])
    if name in _SQLITE_PASSES:
        return True, f"{_SQLITE_PASSES[name]} ({name})"
    return False, f"{_SQLITE_STAYS.get(name, 'SQLite refuses the statement')} ({name or 'misuse'})"


def _number(error: DBAPIError) -> int:
    arguments = getattr(error.orig, "args", ())
    # pymssql sometimes wraps its pair once more.
    while arguments and isinstance(arguments[0], tuple):
        arguments = arguments[0]
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


_READERS: Final = {"psycopg": _of_postgresql, "pymysql": _of_mysql, "sqlite3": _of_sqlite}
