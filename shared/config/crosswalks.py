"""Crosswalks as configuration: where the tables are, and what a map looks up in one of them.

A source is a database or a CSV file. A map asks one table of it, or one SELECT, for the single row
that belongs to an Instance. What is said here is checked as far as it can be without a connection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from shared.config.entity import Credentials, Entity, Name, by_name, entities
from shared.dicom.paths import AttributePath
from shared.errors import Fault
from shared.rules.comparisons import linear_regex
from shared.rules.crosswalk import CrosswalkOutline
from shared.rules.reading import nearest

MAX_QUERY_LENGTH: Final = 10_000
_BIND: Final = re.compile(r"(?<![:\w]):(\w+)(?!:)")
_WORD: Final = re.compile(r"\w+")
# Each could end the SELECT, hide a part of it, or have quotes mean another thing to the database
# than to us.
_NOT_IN_QUERIES: Final = (";", "--", "/*", "#", "\\", "$", "\0")


def _is_attribute(text: str) -> str:
    AttributePath.parse(text)  # raises ValueError with the nearest right keyword
    return text


def _is_pattern(text: str) -> str:
    if linear_regex(text).groups > 1:
        raise ValueError("has more than one group: the group is what is taken")
    return text


def _is_inside(text: str) -> str:
    if ".." in PurePosixPath(text).parts:
        raise ValueError("must not lead upwards with ..")
    return text


# As the database spells it; the adapter quotes it.
Identifier = Annotated[str, Field(pattern=r"^[\w$# -]+$", max_length=128)]
TableName = Annotated[str, Field(pattern=r"^[\w$# -]+(\.[\w$# -]+){0,2}$", max_length=256)]
Attribute = Annotated[str, AfterValidator(_is_attribute)]
FilePath = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_is_inside)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Database(Entity):
    # A lookup that takes longer is given up and tried again later.
    statement_timeout_s: Annotated[float, Field(gt=0, le=60)] = 2.0


class _Server(_Database):
    # A path is a Unix socket (postgresql: the folder it lies in).
    host: Annotated[str, Field(min_length=1, max_length=255)]
    database: Annotated[str, Field(min_length=1, max_length=128)]
    credentials: Credentials = Credentials()
    # `prefer` goes on without TLS where the server has none; `verify` also checks who it is.
    tls: Literal["prefer", "require", "verify"] = "prefer"
    ca_file: str | None = None  # whom `verify` believes; the machine's authorities if absent

    @model_validator(mode="after")
    def _signs_in_with_a_password(self) -> _Server:
        if self.credentials.token or self.credentials.token_secret:
            raise ValueError("a database takes credentials.username and .password, no token")
        if self.ca_file and self.tls != "verify":
            raise ValueError("ca_file is for tls: verify")
        return self


class PostgresqlSource(_Server):
    """A PostgreSQL server."""

    type: Literal["postgresql"]
    port: Annotated[int, Field(ge=1, le=65535)] = 5432


class MysqlSource(_Server):
    """A MySQL or MariaDB server."""

    type: Literal["mysql"]
    port: Annotated[int, Field(ge=1, le=65535)] = 3306


class MssqlSource(_Server):
    """A Microsoft SQL Server."""

    type: Literal["mssql"]
    port: Annotated[int, Field(ge=1, le=65535)] = 1433

    @model_validator(mode="after")
    def _can_do_it(self) -> MssqlSource:
        if self.tls == "verify":
            raise ValueError("tls: verify is not supported for mssql; use require")
        return self


class SqliteSource(_Database):
    """A SQLite file. A relative `path` lies below AXIOM_HOME/crosswalks."""

    type: Literal["sqlite"]
    path: FilePath


class CsvSource(Entity):
    """A CSV file (RFC 4180) with a header row. A relative `path` lies below AXIOM_HOME/crosswalks.

    `utf-8` also takes a byte order mark, as spreadsheets write it.
    """

    type: Literal["csv"]
    path: FilePath
    encoding: Literal["utf-8", "latin-1", "cp1252", "utf-16", "shift_jis", "gb18030"] = "utf-8"
    delimiter: Literal[",", ";", "\t", "|"] = ","


AnyCrosswalkSource = PostgresqlSource | MysqlSource | MssqlSource | SqliteSource | CsvSource
CrosswalkSource = Annotated[AnyCrosswalkSource, Field(discriminator="type")]


class Transformation(_Part):
    """One change of a text: its name, or `{regex_extract: PATTERN}`.

    `regex_extract` takes the group of the pattern's first match, or the whole match if it has no
    group; where nothing matches, nothing is left and the text counts as absent.
    """

    type: Literal["strip", "upper", "lower", "remove_leading_zeros", "regex_extract"]
    pattern: Annotated[str, AfterValidator(_is_pattern)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_its_short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"type": value}
        if isinstance(value, dict) and value.keys() == {"regex_extract"}:
            return {"type": "regex_extract", "pattern": value["regex_extract"]}
        return value

    @model_validator(mode="after")
    def _has_its_pattern(self) -> Transformation:
        if (self.type == "regex_extract") != (self.pattern is not None):
            raise ValueError("regex_extract, and nothing else, needs a pattern")
        return self

    @model_serializer(mode="wrap")
    def _short_form(self, _: SerializerFunctionWrapHandler) -> str | dict[str, str]:
        return self.type if self.pattern is None else {"regex_extract": self.pattern}


class CrosswalkMatch(_Part):
    """One key: the column that must hold what the Attribute holds, transformed.

    A rule that does not say what to match takes `attribute`. `integer` columns are compared as
    whole numbers, others as text, exactly: case and accents count.
    """

    column: Identifier
    attribute: Attribute | None = None
    type: Literal["text", "integer"] = "text"
    transformations: tuple[Transformation, ...] = ()


class CrosswalkOutput(_Part):
    """One column that the map gives, under `name` (its own name if absent)."""

    column: Identifier
    name: Identifier | None = None
    transformations: tuple[Transformation, ...] = ()

    @property
    def called(self) -> str:
        """What rules call it."""
        return self.name or self.column


class CrosswalkCache(_Part):
    """Answers that are kept. Those that say there is no row are kept 10 seconds at most."""

    ttl_s: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    max_entries: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000


class CrosswalkSync(_Part):
    """A copy of the whole table, taken every `interval_s`, that answers instead of the source."""

    interval_s: Annotated[float, Field(ge=10, le=604_800)]
    timeout_s: Annotated[float, Field(gt=0, le=3_600)] = 120.0


class CrosswalkMap(Entity):
    """What is looked up where, by which keys, and what comes of it.

    A `query` is one SELECT with a bound parameter for each column of `match`:
    `SELECT new_id FROM ids WHERE old_id = :old_id`. Of a CSV file neither `table` nor `query`.
    """

    source: Name
    table: TableName | None = None
    query: Annotated[str, Field(max_length=MAX_QUERY_LENGTH)] | None = None
    match: Annotated[tuple[CrosswalkMatch, ...], Field(max_length=16)]
    outputs: Annotated[tuple[CrosswalkOutput, ...], Field(max_length=64)]
    cache: CrosswalkCache = CrosswalkCache()
    sync: CrosswalkSync | None = None

    @model_validator(mode="after")
    def _names_things_once(self) -> CrosswalkMap:
        for words, what in (
            ([match.column for match in self.match], "match: column"),
            ([output.called for output in self.outputs], "outputs: name"),
        ):
            if not words:
                raise ValueError(f"{what.partition(':')[0]}: must not be empty")
            twice = next((word for word in words if words.count(word) > 1), None)
            if twice is not None:
                raise ValueError(f"{what} {twice!r} is there twice")
        return self

    @model_validator(mode="after")
    def _asks_one_thing(self) -> CrosswalkMap:
        if self.query is None:
            return self
        if self.table is not None:
            raise ValueError("table and query exclude each other")
        if self.sync is not None:
            raise ValueError("sync copies a table; a query cannot be copied")
        _check_query(self.query, {match.column for match in self.match})
        return self

    @property
    def outline(self) -> CrosswalkOutline:
        """What rules need to know of it."""
        return CrosswalkOutline(
            {match.column: match.attribute for match in self.match},
            frozenset(output.called for output in self.outputs),
        )


def map_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong between the maps of a configuration document and the sources they name."""
    sources = by_name(document, "crosswalk_sources")
    for i, entity in enumerate(entities(document, "crosswalk_maps")):
        path, source = f"crosswalk_maps[{i}]", entity.get("source")
        if not isinstance(source, str):
            continue
        if source not in sources:
            hint = nearest(source, sources)
            yield Fault(f"{path}.source", f"there is no crosswalk source {source[:100]!r}", hint)
        elif sources[source].get("type") == "csv":
            for field in ("table", "query", "sync"):
                if entity.get(field) is not None:
                    yield Fault(f"{path}.{field}", "a csv source has none: it is one table")
        elif entity.get("table") is None and entity.get("query") is None:
            yield Fault(f"{path}.table", "is missing", "or give a query")


def outlines(document: Mapping[str, Any]) -> dict[str, CrosswalkOutline | None]:
    """The outline of every map that a configuration document has; None of one that is wrong."""
    found: dict[str, CrosswalkOutline | None] = {}
    for name, entity in by_name(document, "crosswalk_maps").items():
        try:
            found[name] = CrosswalkMap.model_validate_json(json.dumps(entity, default=str)).outline
        except ValidationError:
            found[name] = None
    return found


def _check_query(query: str, columns: set[str]) -> None:
    """Raises: ValueError if it is not one SELECT with these bound parameters."""
    for text in _NOT_IN_QUERIES:
        if text in query:
            raise ValueError(f"query: must not contain {text!r}")
    plain = _without_quoted(query)
    words = [word.lower() for word in _WORD.findall(plain)]
    if not words or words[0] != "select" or not plain.lstrip()[:6].lower() == "select":
        raise ValueError("query: must be one SELECT")
    if "into" in words:
        raise ValueError("query: must not contain INTO, which writes")
    depth = 0
    for character in plain:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            break
    if depth:
        raise ValueError("query: has a parenthesis without its partner")
    binds = set(_BIND.findall(plain))
    if binds != set(_BIND.findall(query)):
        raise ValueError("query: a bound parameter must stand outside quotes")
    if binds != columns:
        wanted = ", ".join(f":{column}" for column in sorted(columns))
        raise ValueError(f"query: its bound parameters must be those of match: {wanted}")


def _without_quoted(query: str) -> str:
    """The query with every quoted part empty. Raises: ValueError if a quote does not end."""
    plain, end = [], ""
    for character in query:
        if end:
            if character == end:
                # A doubled quote inside ends one part and starts the next.
                plain.append(character)
                end = ""
            continue
        plain.append(character)
        if character in "'\"`[":
            end = "]" if character == "[" else character
    if end:
        raise ValueError(f"query: a part in quotes lacks its {end}")
    return "".join(plain)
