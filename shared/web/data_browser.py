"""Routes that search sources and stores for a person: /api/v1/data-browser.

What is searched for is in the body, so that no Value of a patient is in a URL. What is shown is in
the audit log before it is shown. What is found is fetched by a pull: POST /api/v1/pulls.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from shared.audit import ORIGIN, AuditLog
from shared.cursors import cursor_of, said_by
from shared.dicom.key_reading import name_of, read_query
from shared.dicom.query import STUDY_INSTANCE_UID, Level, Query, items, texts
from shared.errors import Fault
from shared.pipeline.browsing import TIMED_OUT, Browsing, Ended, Shown, candidates
from shared.web.access import acting
from shared.web.documents_in import received_document
from shared.web.documents_out import json_response
from shared.web.listing import Listing, described_page, listed_response
from shared.web.media_types import JSON, JSON_LINES, negotiate
from shared.web.problems import PROBLEM_RESPONSES, ProblemError, faults_of

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

URL_PREFIX = "/api/v1/data-browser"

# Of one store on all pages together.
MAX_MATCHES: Final = 10_000
_MOST_SOURCES: Final = 64
_MOST_AT_ONCE: Final = 8
_MOST_OF_ONE_AT_ONCE: Final = 3
# Whoever has hung up is noticed when something is sent.
_TELL_EVERY_S: Final = 2.0
# So many matches are noted in one entry of the audit log, and shown then.
_NOTED_AT_ONCE: Final = 100
_UID: Final = re.compile(r"[0-9.]{1,64}")
_SAFE_INTEGERS: Final = frozenset({"IS", "US", "SS", "UL", "SL", "SV", "UV"})

_LEVELS: Final = {
    "patient": Level.PATIENT,
    "study": Level.STUDY,
    "series": Level.SERIES,
    "instance": Level.IMAGE,
}
_SCALAR: Final = {"anyOf": [{"type": "string"}, {"type": "number"}]}
# Faults are told by who reads keys, in fewer words than of a union.
_Value = Annotated[
    Any, WithJsonSchema({"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "maxItems": 200}]})
]
_Short = Annotated[str, StringConstraints(max_length=64)]


class BrowseRequest(BaseModel):
    """What is searched for, and where."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sources: list[_Short] | None = Field(
        default=None, min_length=1, max_length=_MOST_SOURCES, description="Names; all if left out"
    )
    level: Literal["patient", "study", "series", "instance"] = "study"
    filters: dict[_Short, _Value] = Field(
        default={}, max_length=50, description="What has to fit, by PS3.6 keyword or tag"
    )
    wanted: list[_Short] | None = Field(
        default=None,
        alias="return",
        max_length=100,
        description="What is shown besides: keywords or tags; by default what people look at",
    )
    limit: int = Field(default=100, ge=1, le=1000, description="Matches of each source on a page")
    timeout_s: float = Field(
        default=30, ge=1, le=300, description="What is not here then is not waited for"
    )
    cursor: str | None = Field(
        default=None, max_length=10_000, description="`next_cursor` of the page before"
    )


class MatchLine(BaseModel):
    """One entity that fits, as a source shows it."""

    type: Literal["match"]
    source: str
    level: str
    attributes: dict[str, Any] = Field(description="By keyword: a text or number, or a list")
    certain: bool = Field(description="False if the source shows nothing of what had to fit")


class ProblemLine(BaseModel):
    """Why a source shows nothing, or no more."""

    type: Literal["problem"]
    source: str
    code: str
    detail: str
    hint: str


class ProgressLine(BaseModel):
    """How many matches came, of each source that is still asked."""

    type: Literal["progress"]
    running: dict[str, int]


class SourceSummary(BaseModel):
    """How it went with one source."""

    source: str
    state: Literal["done", "failed", "timed-out"]
    matches: int
    more: bool
    ms: int


class SummaryLine(BaseModel):
    """The last line."""

    type: Literal["summary"]
    sources: list[SourceSummary]
    next_cursor: str | None


class BrowseAnswer(BaseModel):
    """All lines as one document."""

    items: list[MatchLine]
    problems: list[ProblemLine]
    sources: list[SourceSummary]
    next_cursor: str | None


class SearchableSource(BaseModel):
    """A store that can be searched; `can_pull` if a pull can fetch what it shows."""

    name: str
    type: str
    can_pull: bool


Line = dict[str, Any]


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema without references, whose places would be others in the whole document."""
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {k: _inlined(v, definitions) for k, v in schema.items() if k != "$defs"}


def _schema_of(kind: Any) -> dict[str, Any]:
    schema = TypeAdapter[Any](kind).json_schema()
    found: dict[str, Any] = _inlined(schema, schema.get("$defs", {}))
    return found


_LINE_SCHEMA: Final = _schema_of(MatchLine | ProblemLine | ProgressLine | SummaryLine)


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "data_browser",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="data browser", description="Searching sources and stores")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )
    places = _Places()

    @routes.get(
        "/sources",
        operation_id="list_searchable_sources",
        responses={200: described_page("Stores", SearchableSource.model_json_schema())},
    )
    def list_searchable_sources(query: Listing) -> Response:
        """What can be searched: enabled sources, stores that listeners stand in front of, and
        `@received`, which is what came here.
        """
        shown = [
            {"name": one.name, "type": one.type, "can_pull": one.is_source}
            for one in candidates(ports.configuration.get())
        ]
        return listed_response(shown, query)

    @routes.post(
        "/query",
        operation_id="browse",
        responses={
            200: {
                "description": "What fits",
                "content": {
                    JSON_LINES: {"schema": _LINE_SCHEMA},
                    JSON: {"schema": _schema_of(BrowseAnswer)},
                },
            }
        },
        openapi_extensions={
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": BrowseRequest.model_json_schema()}},
            }
        },
    )
    def browse() -> Response:
        """Search sources at once for Patients, Studies, Series or Instances.

        Lines are sent as matches come, with one for each source that fails or takes too long, and
        a summary in the end; to hang up ends the search. `Accept: application/json` has it all in
        one document.
        """
        chosen = negotiate(request.headers.get("Accept", ""), (JSON_LINES, JSON))
        if chosen is None:
            raise ProblemError(
                406, "not-acceptable", f"The response can be {JSON_LINES} or {JSON}."
            )
        asked = _read(received_document(), ports)
        lines = _lines(asked, ports, places)
        if chosen == JSON_LINES:
            response = Response(_encoded(lines), mimetype=JSON_LINES)
            # Also where nobody has taken a single line.
            response.call_on_close(lines.close)
            return response
        return json_response(_gathered(lines))

    return routes


# ---- inside


@dataclass(frozen=True, slots=True)
class _Asked:
    who: str
    level: str
    query: Query
    sources: tuple[str, ...]
    skip: Mapping[str, int]
    limit: int
    timeout_s: float
    mark: str


class _Places:
    """How many searches go on at once, in all and of one user."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one(self, who: str) -> Iterator[None]:
        """Raises: ProblemError 429."""
        with self._lock:
            is_full = self._taken.total() >= _MOST_AT_ONCE
            if is_full or self._taken[who] >= _MOST_OF_ONE_AT_ONCE:
                raise ProblemError(
                    429,
                    "too-many-searches",
                    "Too many searches go on at once.",
                    hint="End one, or wait for it.",
                    headers={"Retry-After": "5"},
                )
            self._taken[who] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[who] -= 1


def _read(document: Mapping[str, Any], ports: Ports) -> _Asked:
    """What the document asks for. Raises: ProblemError 422 with all its faults, 400."""
    faults: list[Fault] = []
    level: Level | None = None
    try:
        body = BrowseRequest.model_validate(dict(document))
    except ValidationError as error:
        faults += faults_of(error)
        wrong = {str(fault["loc"][0]) for fault in error.errors()}
        rest = {name: value for name, value in document.items() if name not in wrong}
        body = BrowseRequest.model_validate(rest)
        level = Level.IMAGE if "level" in wrong else None
    level = level or _LEVELS[body.level]
    query = read_query(level, body.filters, body.wanted, ports.clock.now(), faults)
    known_names = [one.name for one in candidates(ports.configuration.get())]
    for index, name in enumerate(body.sources or ()):
        if name not in known_names:
            hint = f"GET {URL_PREFIX}/sources lists what can be searched."
            faults.append(Fault(f"sources[{index}]", "is nothing that can be searched", hint))
    if body.sources is None and len(known_names) > _MOST_SOURCES:
        words = f"there are more than {_MOST_SOURCES} to search: name those that matter"
        faults.append(Fault("sources", words))
    if faults:
        count = len(faults)
        detail = f"{count} fault{'s' * (count != 1)}"
        raise ProblemError(422, "invalid-request", detail, faults=faults)
    filters = json.dumps([body.level, body.filters, body.wanted], sort_keys=True)
    mark = hashlib.sha256(filters.encode()).hexdigest()[:16]
    sources = tuple(dict.fromkeys(body.sources or known_names))
    skip: Mapping[str, int] = {}
    if body.cursor is not None:
        skip = _opened(body.cursor, mark)
        sources = tuple(name for name in known_names if name in skip)
    return _Asked(acting(), body.level, query, sources, skip, body.limit, body.timeout_s, mark)


def _lines(asked: _Asked, ports: Ports, places: _Places) -> Generator[Line, None, None]:
    """The lines; the search begins before this returns. Raises: ProblemError 429."""
    audit, origin = AuditLog(ports.documents, ports.clock), ORIGIN.get()

    def note(what: str, id: str, **details: Any) -> None:
        token = ORIGIN.set(origin)  # the request may be over for Flask
        try:
            audit.add(who=asked.who, what=what, id=id, **details)
        finally:
            ORIGIN.reset(token)

    def lines() -> Generator[Line, None, None]:
        with places.one(asked.who):
            note(
                "data-browser.query",
                ", ".join(asked.sources),
                level=asked.level,
                attributes=[name_of(key.tag) for key in asked.query.keys if not key.is_universal],
            )
            search = Browsing(
                ports,
                asked.query,
                asked.sources,
                limit=asked.limit,
                timeout_s=asked.timeout_s,
                skip=asked.skip,
            )
            with closing(search):
                began_s = ports.clock.monotonic_s()
                yield {}
                yield from _told(search, asked, ports, note, began_s)

    found = lines()
    next(found)
    return found


def _told(
    search: Browsing, asked: _Asked, ports: Ports, note: Callable[..., None], told_s: float
) -> Iterator[Line]:
    ended: dict[str, Ended] = {}
    waiting: list[Shown] = []
    counts: Counter[str] = Counter()
    for event in search.events():
        if isinstance(event, Shown):
            waiting.append(event)
            counts[event.source] += 1
        if waiting and (len(waiting) >= _NOTED_AT_ONCE or not isinstance(event, Shown)):
            yield from _noted(waiting, asked, note)
            waiting = []
            told_s = ports.clock.monotonic_s()
        if isinstance(event, Ended):
            ended[event.source] = event
            yield from _problems(event, asked)
        elif event is None and ports.clock.monotonic_s() - told_s >= _TELL_EVERY_S:
            told_s = ports.clock.monotonic_s()
            running = {name: counts[name] for name in asked.sources if name not in ended}
            yield {"type": "progress", "running": running}
    yield from _noted(waiting, asked, note)
    more = {
        name: asked.skip.get(name, 0) + one.matches
        for name, one in ended.items()
        if one.has_more and asked.skip.get(name, 0) + one.matches < MAX_MATCHES
    }
    yield {
        "type": "summary",
        "sources": [_summary(ended[name]) for name in asked.sources],
        "next_cursor": cursor_of(asked.mark, more) if more else None,
    }


def _noted(found: list[Shown], asked: _Asked, note: Callable[..., None]) -> Iterator[Line]:
    """The lines of what was found, once it is in the audit log that it is shown."""
    studies: dict[str, dict[str, None]] = {}
    for one in found:
        uids = studies.setdefault(one.source, {})
        shown = texts(one.match.found.get(STUDY_INSTANCE_UID))
        # What is none may be anything, a name for one, and has no business in a log.
        uids.update(dict.fromkeys(uid for uid in shown if _UID.fullmatch(uid)))
    for source, known in studies.items():
        matches = sum(one.source == source for one in found)
        note("data-browser.show", source, matches=matches, study_instance_uids=list(known))
    for one in found:
        yield {
            "type": "match",
            "source": one.source,
            "level": asked.level,
            "attributes": {
                name_of(key.tag): _plain(one.match.found[key.tag], key.vr)
                for key in asked.query.keys
                if key.tag in one.match.found
            },
            "certain": one.match.is_certain,
        }


def _problems(event: Ended, asked: _Asked) -> Iterator[Line]:
    error, shown = event.error, asked.skip.get(event.source, 0) + event.matches
    problem: tuple[str, str, str] | None = None
    if event.state == TIMED_OUT:
        detail = f"{event.source}: not done in {asked.timeout_s:g} s"
        problem = "timed-out", detail, "Narrow the search, or give it more with `timeout_s`."
    elif error is not None:
        problem = error.code, str(error), error.hint
    elif event.has_more and shown >= MAX_MATCHES:
        detail = f"{event.source}: more than {MAX_MATCHES} fit"
        problem = "too-many-matches", detail, "Narrow the search."
    if problem is not None:
        code, detail, hint = problem
        yield {
            "type": "problem",
            "source": event.source,
            "code": code,
            "detail": detail,
            "hint": hint,
        }


def _summary(event: Ended) -> dict[str, Any]:
    return {
        "source": event.source,
        "state": event.state,
        "matches": event.matches,
        "more": event.has_more,
        "ms": round(1000 * event.s),
    }


def _plain(attribute: Any, vr: str) -> Any:
    """Values as people read them: a text or number, a list of several, null for none."""
    if vr == "SQ":
        return [
            {
                name_of(tag): _plain(one, str(one.get("vr", "")) if isinstance(one, dict) else "")
                for tag, one in item.items()
                if _is_tag(tag)
            }
            for item in items(attribute)
        ]
    values: list[Any] = list(texts(attribute))
    if vr in _SAFE_INTEGERS:
        values = [int(v) if v.lstrip("+-").isdecimal() and len(v) < 16 else v for v in values]
    if len(values) > 1:
        return values
    return values[0] if values else None


def _is_tag(text: str) -> bool:
    return len(text) == 8 and all(c in "0123456789ABCDEFabcdef" for c in text)


def _gathered(lines: Iterator[Line]) -> dict[str, Any]:
    found = list(lines)
    summary = found[-1]
    return {
        "items": [one for one in found if one["type"] == "match"],
        "problems": [one for one in found if one["type"] == "problem"],
        "sources": summary["sources"],
        "next_cursor": summary["next_cursor"],
    }


def _encoded(lines: Iterator[Line]) -> Iterator[bytes]:
    for line in lines:
        yield json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _opened(cursor: str, mark: str) -> Mapping[str, int]:
    """How much of each source was shown before. Raises: ProblemError 400."""
    with suppress(ValueError):
        match said_by(cursor):
            case [found, dict(shown)] if found == mark and all(map(_is_count, shown.values())):
                return shown
    raise ProblemError(400, "invalid-cursor", "The cursor is not one that this search gave.")


def _is_count(number: object) -> bool:
    return isinstance(number, int) and 0 <= number < MAX_MATCHES
