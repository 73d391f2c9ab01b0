"""Rows of a database, one lookup at a time or all at once; keys are only ever bound values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Engine,
    Label,
    Select,
    String,
    bindparam,
    column,
    select,
    table,
    text,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from shared.adapters.crosswalk.column_values import text_of
from shared.adapters.crosswalk.databases import DatabaseSource, engine_for
from shared.adapters.crosswalk.rows import Keys, Outputs, keys_of
from shared.adapters.crosswalk.sql_errors import failure, is_unmatchable
from shared.config.crosswalks import CrosswalkMap
from shared.errors import CrosswalkAmbiguousError, CrosswalkMisconfiguredError
from shared.ports import SecretStore

_PIECE: Final = 1_000


class Database:
    """One source, with its connections; it connects when first asked."""

    def __init__(self, source: DatabaseSource, secrets: SecretStore, folder: Path) -> None:
        self._source, self._secrets, self._folder = source, secrets, folder
        self._engine = engine_for(source, secrets, folder, timeout_s=source.statement_timeout_s)

    def rows(self, entity: CrosswalkMap) -> SqlRows:
        """The rows of one map."""
        return SqlRows(entity, self._engine)

    def all_rows(self, entity: CrosswalkMap, timeout_s: float) -> Iterator[tuple[Keys, Outputs]]:
        """Every row of the map's table that has its keys, within `timeout_s`.

        Raises: CrosswalkUnavailableError, CrosswalkMisconfiguredError.
        """
        # A connection of its own: lookups neither wait for it nor have its patience.
        engine = engine_for(self._source, self._secrets, self._folder, timeout_s=timeout_s)
        try:
            with engine.connect() as connection:
                found = connection.execution_options(yield_per=_PIECE).execute(_columns(entity))
                for row in found:
                    keys = keys_of(entity, _texts(entity, row[: len(entity.match)]))
                    if keys is not None:
                        yield keys, _outputs(entity, row)
        except SQLAlchemyError as error:
            raise failure(entity.name, error) from None
        finally:
            engine.dispose()

    def close(self) -> None:
        """Close the connections that nobody uses; the others close when they are given back."""
        self._engine.dispose()


class SqlRows:
    """Rows for one map."""

    def __init__(self, entity: CrosswalkMap, engine: Engine) -> None:
        self._entity, self._engine = entity, engine
        self._statement = statement_for(entity)

    def find(self, keys: Keys) -> Outputs | None:
        """As `Rows.find`.

        Of a table only a row counts that has exactly these keys: what the server's collation or
        its conversions hold for equal ('Á' and 'a', 0 and 'none') may be another patient.
        """
        bound = dict(zip(_parameters(self._entity), keys, strict=True))
        try:
            with self._engine.connect() as connection:
                found = connection.execute(self._statement, bound).fetchmany(2)
        except DBAPIError as error:
            if is_unmatchable(error):
                return None
            raise failure(self._entity.name, error) from None
        except SQLAlchemyError as error:
            raise failure(self._entity.name, error) from None
        if len(found) > 1:
            raise CrosswalkAmbiguousError(self._entity.name)
        if not found:
            return None
        if self._entity.table is not None:
            theirs = keys_of(self._entity, _texts(self._entity, found[0][: len(keys)]))
            if theirs != keys:
                return None
        return _outputs(self._entity, found[0])


def statement_for(entity: CrosswalkMap) -> Select[Any]:
    """The SELECT of at most two rows, with a bound parameter for each column of `match`.

    A map's own query becomes a table in FROM, where no database takes anything but a SELECT.
    """
    types = [BigInteger() if match.type == "integer" else String() for match in entity.match]
    bound = [
        bindparam(name, type_=type_) for name, type_ in zip(_parameters(entity), types, strict=True)
    ]
    if entity.table is not None:
        found = _columns(entity)
        for match, value in zip(entity.match, bound, strict=True):
            found = found.where(column(match.column) == value)
        return found.limit(2)
    assert entity.query is not None  # map_faults refuses it otherwise
    query = text(f"{entity.query}\n").bindparams(*bound)
    names = dict.fromkeys(output.column for output in entity.outputs)
    rows = query.columns(*map(column, names)).subquery("axiom_rows")
    places = [rows.c[output.column].label(f"output_{n}") for n, output in enumerate(entity.outputs)]
    return select(*places).limit(2)


def _columns(entity: CrosswalkMap) -> Select[Any]:
    """All rows of the map's table: the columns of `match`, then those of `outputs`."""
    assert entity.table is not None
    schema, _, name = entity.table.rpartition(".")
    wanted = [match.column for match in entity.match]
    wanted += [output.column for output in entity.outputs]
    places: list[Label[Any]] = [column(name).label(f"column_{n}") for n, name in enumerate(wanted)]
    return select(*places).select_from(table(name, schema=schema or None))


def _parameters(entity: CrosswalkMap) -> list[str]:
    if entity.query is not None:
        return [match.column for match in entity.match]
    return [f"key_{n}" for n in range(len(entity.match))]


def _texts(entity: CrosswalkMap, values: Sequence[Any]) -> list[str | None]:
    try:
        return [text_of(value) for value in values]
    except ValueError as error:
        raise CrosswalkMisconfiguredError(entity.name, str(error)) from None


def _outputs(entity: CrosswalkMap, row: Sequence[Any]) -> Outputs:
    texts = _texts(entity, row[-len(entity.outputs) :])
    return tuple(text or None for text in texts)
