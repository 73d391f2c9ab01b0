"""Pulling a list from a source on demand: a job with a row for each Study or accession number.

The job's document says how far it is, the rows' documents what became of each. It can be paused at
any time, and survives a restart: rows that are done stay done.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec import Struct

from shared.audit import AuditLog
from shared.config.sources import AnySource
from shared.errors import (
    AxiomError,
    DocumentChangedError,
    DocumentMissingError,
    PermanentError,
    SourceMisconfiguredError,
    SourceUnavailableError,
    WrongStateError,
)
from shared.messages import JobRequested, Topic, encode
from shared.pipeline.intake import PollStoppedError
from shared.pipeline.ports import Ports
from shared.pipeline.pull import Puller, Tally
from shared.ports import Document, Filter, Outgoing, Page, SourceReader
from shared.times import timestamp

JOBS, ROWS = "jobs", "pull-rows"
ID_PREFIX = "pull-"
RUNNING, PAUSED, FINISHED = "running", "paused", "finished"
# What became of a row.
WAITING, DONE, FAILED, UNKNOWN = "waiting", "done", "failed", "unknown"

MAX_ROWS = 100_000
_BATCH = 20
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_DELIMITERS = (",", ";", "\t")
_COLUMNS = {
    "studyinstanceuid": "StudyInstanceUID",
    "study": "StudyInstanceUID",
    "accessionnumber": "AccessionNumber",
    "accession": "AccessionNumber",
}

Data = Mapping[str, Any]


class Wanted(Struct, frozen=True):
    """One row: a Study by its UID, or all Studies of an accession number."""

    keyword: str  # StudyInstanceUID or AccessionNumber
    value: str

    def __post_init__(self) -> None:
        if self.keyword == "StudyInstanceUID" and not (
            len(self.value) <= 64 and _UID.fullmatch(self.value)
        ):
            raise ValueError("is no Study Instance UID")
        if self.keyword == "AccessionNumber" and not (
            0 < len(self.value) <= 64
            and self.value.isprintable()
            and not set(self.value) & {*"*?\\"}
        ):
            raise ValueError("is no accession number")


def csv_text(data: bytes) -> str:
    """The text of a file as spreadsheets write it: in UTF-8, in UTF-16 that says so, or in an older
    encoding, of which what is looked for is ASCII.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_csv(text: str) -> list[Wanted]:
    """The rows of a CSV, its columns parted by commas, semicolons or tabs: of the one named
    StudyInstanceUID or AccessionNumber, or of the only one, whose values then are UIDs or accession
    numbers by their form.

    Raises: ValueError naming the line, without what stands there.
    """
    rows, named = _table(text.lstrip("\ufeff"))
    column = next((i for i, keyword in enumerate(named) if keyword), 0)
    found = []
    for line, cells in rows:
        if not named and any(cells[1:]):
            raise ValueError(
                f"line {line} has more columns, and the first line names none of them "
                "StudyInstanceUID or AccessionNumber"
            )
        value = cells[column] if len(cells) > column else ""
        if not value:
            continue
        keyword = named[column] if named else ""
        keyword = keyword or ("StudyInstanceUID" if _UID.fullmatch(value) else "AccessionNumber")
        try:
            found.append(Wanted(keyword, value))
        except ValueError as error:
            raise ValueError(f"line {line} {error}") from None
    return found


def create(
    source: str, wanted: Sequence[Wanted], *, by: str, ports: Ports, again: bool = False
) -> Data:
    """The document of a job, for one who will `work` on it. `again` fetches what came already too.

    Raises: ValueError in words; SourceMisconfiguredError if there is no such source to ask.
    """
    _entity(source, ports)
    if not wanted:
        raise ValueError("nothing is wanted: name Studies or accession numbers")
    if len(wanted) > MAX_ROWS:
        raise ValueError(f"more than {MAX_ROWS} rows are wanted")
    now = ports.clock.now()
    key = f"{ID_PREFIX}{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    unique = list(dict.fromkeys(wanted))
    for number, one in enumerate(unique):
        row = {
            "job": key,
            "created_at": timestamp(now),
            "number": number + 1,
            "keyword": one.keyword,
            "value": one.value,
            "state": WAITING,
            "studies": [one.value] if one.keyword == "StudyInstanceUID" else [],
            "shown": 0,
            "received": 0,
            "refused": 0,
            "missing": 0,
            "attempts": 0,
            "reason": "",
        }
        ports.documents.create(ROWS, _row_key(key, number), row)
    data = {
        "id": key,
        "kind": "pull",
        "action": "pull",
        "source": source,
        "again": again,
        "by": by,
        "state": RUNNING,
        "total": len(unique),
        "done": 0,
        "failed": 0,
        "unknown": 0,
        "instances": 0,
        "reason": "",
        "cursor": None,
        "created_at": timestamp(now),
        "updated_at": timestamp(now),
    }
    created = ports.documents.create(JOBS, key, data).data
    AuditLog(ports.documents, ports.clock).add(who=by, what="pull", id=key, after=source)
    return created


def start(job_id: str, ports: Ports) -> None:
    """Have it worked on in the background."""
    ports.bus.publish([Outgoing(Topic.JOB_REQUESTED, encode(JobRequested(job_id)))])


def pause(job_id: str, *, by: str, ports: Ports) -> Data:
    """Stop after the rows at hand. Raises: DocumentMissingError; WrongStateError."""
    return _set_state(job_id, RUNNING, PAUSED, by, ports)


def resume(job_id: str, *, by: str, ports: Ports) -> Data:
    """Go on, for one who will `work` on it or `start` it. Raises: as `pause`."""
    return _set_state(job_id, PAUSED, RUNNING, by, ports)


def rows(job_id: str, ports: Ports, *, limit: int, cursor: str | None = None) -> Page:
    """What became of each row, in order. Raises: ValueError for a foreign cursor."""
    where = [Filter("job", "==", job_id)]
    return ports.documents.query(ROWS, where, limit=limit, cursor=cursor)


def shown(row: Data) -> dict[str, Any]:
    """A row for others than who wrote it: accession numbers are told by the row's number alone."""
    return {k: v for k, v in row.items() if k not in ("value", "job", "created_at")}


def work(
    job_id: str,
    ports: Ports,
    *,
    for_s: float = float("inf"),
    tell: Callable[[Data], None] = lambda _: None,
) -> bool:
    """Pull for `for_s` seconds; True if there is nothing left to do. `tell` hears of progress.

    Raises: DocumentMissingError; SourceUnavailableError and other TransientErrors, after which it
    goes on where it was.
    """
    until_s = ports.clock.monotonic_s() + for_s
    stopped = threading.Event()
    timer = threading.Timer(min(for_s, threading.TIMEOUT_MAX), stopped.set)
    timer.daemon = True
    timer.start()
    try:
        while True:
            job = _job(job_id, ports)
            if job.data["state"] != RUNNING:
                return True
            if ports.clock.monotonic_s() >= until_s:
                return False
            try:
                tell(_batch(job, ports, stopped))
            except PollStoppedError:
                return False
    finally:
        timer.cancel()


# ---- inside


def _table(text: str) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """The rows below the header, each with its line, and what the header says that its columns are;
    all rows if it says nothing.
    """
    for delimiter in _DELIMITERS:
        rows = _lines(text, delimiter)
        names = [re.sub(r"[^a-z]", "", cell.lower()) for cell in rows[0][1]] if rows else []
        named = [_COLUMNS.get(name, "") for name in names]
        if any(named):
            return rows[1:], named
    return _lines(text, _DELIMITERS[0]), []


def _lines(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error:
        raise ValueError(f"line {reader.line_num} is no line of a CSV") from None
    return [(line, cells) for line, cells in lines if any(cells)]


def _batch(job: Document, ports: Ports, stopped: threading.Event) -> Data:
    page = rows(job.key, ports, limit=_BATCH, cursor=job.data["cursor"])
    if page.documents:
        try:
            entity = _entity(job.data["source"], ports)
        except SourceMisconfiguredError as error:
            return _changed(job.key, ports, {"state": PAUSED, "reason": str(error)})
        try:
            _pull_rows(page.documents, entity, job.data["again"], ports, stopped)
        except SourceMisconfiguredError as error:
            # A person has to look: what is left can be resumed then.
            return _changed(job.key, ports, {"state": PAUSED, "reason": str(error)})
        except SourceUnavailableError as error:
            _changed(job.key, ports, {"reason": str(error)})
            raise
    after = [ports.documents.get(ROWS, row.key) for row in page.documents]
    states = Counter(row.data["state"] for row in after if row is not None)
    more = {
        "done": states[DONE],
        "failed": states[FAILED],
        "unknown": states[UNKNOWN],
        "instances": sum(row.data["received"] for row in after if row is not None),
    }
    told: dict[str, Any] = {"cursor": page.cursor, "reason": ""}
    if page.cursor is None:
        told |= {"state": FINISHED, "finished_at": timestamp(ports.clock.now())}
    return _changed(job.key, ports, told, more, cursor=job.data["cursor"])


def _pull_rows(
    found: Sequence[Document],
    entity: AnySource,
    again: bool,
    ports: Ports,
    stopped: threading.Event,
) -> None:
    if ports.open_source is None:
        raise SourceMisconfiguredError(entity.name, "nobody polls on this platform")
    waiting = [row for row in found if row.data["state"] == WAITING]
    reader = ports.open_source(entity)
    try:
        with (
            Puller(entity, reader, ports, tally=Tally(), stopped=stopped) as puller,
            ThreadPoolExecutor(entity.limits.max_concurrency) as at_once,
        ):
            futures = [
                at_once.submit(_pull_row, row, entity, reader, puller, again, ports)
                for row in waiting
            ]
            errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None:
                raise error
    finally:
        reader.close()


def _pull_row(
    row: Document,
    entity: AnySource,
    reader: SourceReader,
    puller: Puller,
    again: bool,
    ports: Ports,
) -> None:
    data = dict(row.data)
    unreachable: AxiomError | None = None
    try:
        studies = list(reader.find({data["keyword"]: data["value"]}))
        pulled = [puller.pull(study, retry=True, again=again) for study in studies]
    except SourceUnavailableError as error:
        unreachable = error
    except SourceMisconfiguredError:
        raise
    except PermanentError as error:
        data |= {"state": FAILED, "reason": str(error)}
    else:
        unreachable = next((one.error for one in pulled if one.is_unreachable), None)
        missing = sum(one.missing for one in pulled)
        said = next((one.error for one in pulled if one.error is not None), None)
        data |= {
            "studies": [study.uid for study in studies] or data["studies"],
            "shown": sum(one.shown for one in pulled),
            "received": data["received"] + sum(one.received for one in pulled),
            "refused": sum(one.refused for one in pulled),
            "missing": missing,
            "reason": str(said) if said is not None else "",
            "state": DONE if studies else UNKNOWN,
        }
        if missing or said is not None:
            data["state"] = FAILED
    if unreachable is not None:
        data["attempts"] += 1
        is_last = data["attempts"] >= entity.limits.max_attempts
        data |= {"reason": str(unreachable), "state": FAILED if is_last else WAITING}
    data["at"] = timestamp(ports.clock.now())
    ports.documents.put(ROWS, row.key, data)
    if data["state"] == WAITING and unreachable is not None:
        raise unreachable


def _entity(source: str, ports: Ports) -> AnySource:
    entity = ports.configuration.get().source(source)
    if entity is None or not entity.enabled:
        raise SourceMisconfiguredError(source, "there is no enabled source of this name")
    return entity


def _job(job_id: str, ports: Ports) -> Document:
    found = ports.documents.get(JOBS, job_id)
    if found is None or found.data.get("kind") != "pull":
        raise DocumentMissingError(JOBS, job_id)
    return found


_ANY: Any = object()


def _changed(
    job_id: str,
    ports: Ports,
    told: Data,
    more: Mapping[str, int] | None = None,
    *,
    cursor: object = _ANY,
) -> Data:
    """Change the job's document; counts are added unless somebody else has passed `cursor`."""
    while True:
        known = _job(job_id, ports)
        if cursor is not _ANY and (known.data["cursor"] != cursor or _is_over(known.data)):
            return known.data
        added = {name: known.data[name] + count for name, count in (more or {}).items()}
        now = timestamp(ports.clock.now())
        data = {**known.data, **told, **added, "updated_at": now}
        try:
            return ports.documents.replace(JOBS, job_id, data, known.version).data
        except DocumentChangedError:
            continue


def _is_over(data: Data) -> bool:
    return bool(data["state"] == FINISHED)


def _set_state(job_id: str, wanted: str, then: str, by: str, ports: Ports) -> Data:
    known = _job(job_id, ports)
    if known.data["state"] != wanted:
        raise WrongStateError(job_id, known.data["state"])
    changed = _changed(job_id, ports, {"state": then, "reason": ""})
    AuditLog(ports.documents, ports.clock).add(
        who=by, what="pull.pause" if then == PAUSED else "pull.resume", id=job_id
    )
    return changed


def _row_key(job_id: str, number: int) -> str:
    return f"{job_id}-{number:06d}"


def all_rows(job_id: str, ports: Ports) -> Iterator[Data]:
    """Every row, in order."""
    cursor = None
    while True:
        page = rows(job_id, ports, limit=500, cursor=cursor)
        yield from (row.data for row in page.documents)
        cursor = page.cursor
        if cursor is None:
            return
