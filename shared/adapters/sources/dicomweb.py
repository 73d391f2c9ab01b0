"""A DICOMweb server as a source: searched by QIDO-RS, read by WADO-RS (PS3.18 10.4, 10.6).

Instances are taken in the Transfer Syntax that they are stored in, streamed part by part, and never
held whole. A server that gives no Series at once is asked for each Instance.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import requests

from shared.adapters.sources import qido
from shared.adapters.sources.http import SourceServer
from shared.config.sources import Parameter
from shared.dicom.relative_dates import absolute
from shared.errors import SourceRefusedError, SourceUnavailableError
from shared.multipart import IncompleteBodyError, MultipartError, MultipartReader, Part
from shared.ports import (
    Buffer,
    Clock,
    FoundInstance,
    FoundStudy,
    MoveProgress,
    Retrieval,
    Retrieved,
)

_PIECE_BYTES: Final = 1 << 18
_ANY_SYNTAX: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_SOME_SYNTAX: Final = 'multipart/related; type="application/dicom"'
# What servers say that know no `*`.
_SYNTAX_REFUSED: Final = frozenset({400, 406, 415})
# There is no such service, or not for so much at once.
_NOT_AT_ONCE: Final = frozenset({400, 404, 405, 406, 413, 414, 415, 501})
_GONE: Final = frozenset({404, 410})
# A server that gives this many more than it has shown does not end.
_MORE_THAN_SHOWN: Final = 1000


class DicomwebReader:
    """SourceReader of a DICOMweb server."""

    moves = False
    unit: Literal["study", "series"] = "series"

    def __init__(
        self,
        server: SourceServer,
        clock: Clock,
        *,
        level: str,
        query_params: Mapping[str, Parameter],
        page_size: int,
    ) -> None:
        self._server, self._clock = server, clock
        self._level, self._query_params = level, query_params
        self._page_size = page_size
        self._by_instance = False

    def search(self, since: datetime | None) -> Iterator[FoundStudy]:
        """As SourceReader."""
        query = self._query(since)
        if self._level == "STUDY":
            query.append(("includefield", qido.NUMBER_OF_STUDY_RELATED_INSTANCES))
            for one in self._pages("/studies", query, qido.STUDY_INSTANCE_UID):
                study = qido.uid(one, qido.STUDY_INSTANCE_UID)
                if study:
                    yield FoundStudy(study, qido.signature(one))
            return
        if self._level == "SERIES":
            series: dict[str, list[str]] = {}
            for one in self._pages("/series", query, qido.SERIES_INSTANCE_UID):
                study = qido.uid(one, qido.STUDY_INSTANCE_UID)
                if study:
                    series.setdefault(study, []).append(qido.uid(one, qido.SERIES_INSTANCE_UID))
            for study, uids in series.items():
                yield FoundStudy(study, series=tuple(filter(None, uids)))
            return
        instances: dict[str, list[FoundInstance]] = {}
        for one in self._pages("/instances", query, qido.SOP_INSTANCE_UID):
            study, found = qido.uid(one, qido.STUDY_INSTANCE_UID), _instance(one)
            if study and found.uid and found.series_instance_uid:
                instances.setdefault(study, []).append(found)
        for study, listed in instances.items():
            yield FoundStudy(study, instances=tuple(listed))

    def instances(self, study: FoundStudy) -> Iterable[FoundInstance]:
        """As SourceReader."""
        if study.instances is not None:
            return study.instances
        paths = [f"/studies/{study.uid}/series/{series}/instances" for series in study.series]
        found: list[FoundInstance] = []
        for path in paths or [f"/studies/{study.uid}/instances"]:
            for one in self._pages(path, [], qido.SOP_INSTANCE_UID):
                instance = _instance(one)
                if not instance.uid:
                    raise SourceRefusedError(self._server.name, "an Instance has no UID")
                found.append(instance)
        return found

    def find(self, keys: Mapping[str, str]) -> Iterator[FoundStudy]:
        """As SourceReader."""
        query = [*keys.items(), ("includefield", qido.NUMBER_OF_STUDY_RELATED_INSTANCES)]
        for one in self._pages("/studies", query, qido.STUDY_INSTANCE_UID):
            study = qido.uid(one, qido.STUDY_INSTANCE_UID)
            if study:
                yield FoundStudy(study, qido.signature(one))

    def retrieve(self, wanted: Retrieval) -> Iterator[Retrieved]:
        """As SourceReader."""
        series = f"/studies/{wanted.study_instance_uid}/series/{wanted.series_instance_uid}"
        if wanted.is_whole and len(wanted.instances) > 1 and not self._by_instance:
            try:
                yield from self._parts(series, len(wanted.instances))
            except _NotAtOnceError:
                self._by_instance = True
            else:
                return
        for one in wanted.instances:
            path = f"/studies/{wanted.study_instance_uid}/series/{one.series_instance_uid}"
            yield from self._parts(f"{path}/instances/{one.uid}", 1, uid=one.uid)

    def move(self, wanted: Retrieval) -> Generator[MoveProgress, None, None]:
        """As SourceReader."""
        raise SourceRefusedError(self._server.name, "a DICOMweb server sends nothing by itself")

    def done(self, study: FoundStudy, instances: Sequence[FoundInstance]) -> bool:
        """As SourceReader: nothing is deleted."""
        return False

    def check(self) -> str:
        """Ask for one Study."""
        if self._server.documents("/studies", [("limit", "1")]) is None:
            raise SourceRefusedError(self._server.name, "HTTP 404: is this its DICOMweb address?")
        return "QIDO-RS 200"

    def close(self) -> None:
        """As SourceReader."""
        self._server.close()

    # ---- inside

    def _query(self, since: datetime | None) -> list[tuple[str, str]]:
        now = self._clock.now()
        query: list[tuple[str, str]] = []
        names = set()
        for name, given in self._query_params.items():
            names.add(name.lower())
            values = given if isinstance(given, tuple) else (given,)
            query += [(name, absolute(str(one), now)) for one in values]
        if since is not None and not names & {"studydate", qido.STUDY_DATE}:
            query.append(("StudyDate", qido.date_range(since)))
        return query

    def _pages(self, path: str, query: list[tuple[str, str]], key: str) -> Iterator[qido.Found]:
        # Some servers say 404 where nothing fits; one that has no such service says it always.
        return qido.pages(
            self._server, path, query, key, page_size=self._page_size, if_none=self.check
        )

    def _parts(self, path: str, expected: int, *, uid: str = "") -> Iterator[Retrieved]:
        """Raises: _NotAtOnceError, for more than one Instance, if the server does not do that."""
        for accept in (_ANY_SYNTAX, _SOME_SYNTAX):
            with self._server.get(path, {"Accept": accept}) as response:
                if response.status_code in _SYNTAX_REFUSED and accept is _ANY_SYNTAX:
                    continue
                if not uid and response.status_code in _NOT_AT_ONCE:
                    raise _NotAtOnceError
                if uid and response.status_code in _GONE:
                    return
                self._server.check_status(response)
                yield from self._read(response, expected, uid)
                return

    def _read(self, response: requests.Response, expected: int, uid: str) -> Iterator[Retrieved]:
        content_type = response.headers.get("Content-Type", "")
        kind, _, parameters = content_type.partition(";")
        raw = response.raw

        def read(count: int) -> bytes:
            data: bytes = raw.read(min(count, _PIECE_BYTES), decode_content=False)
            return data

        if kind.strip().lower() == "application/dicom":
            yield Retrieved(uid, self._checked(_pieces(read)))
            return
        if kind.strip().lower() != "multipart/related":
            raise self._server.no_dicomweb(response)
        try:
            reader = MultipartReader(
                read, _boundary(parameters), max_parts=2 * expected + _MORE_THAN_SHOWN
            )
            for part in reader:
                if "json" in part.headers.get("content-type", ""):
                    continue
                yield Retrieved(uid, self._checked(part))
        except IncompleteBodyError as error:
            raise SourceUnavailableError(self._server.name, str(error)) from None
        except MultipartError as error:
            raise SourceRefusedError(self._server.name, f"wrong multipart: {error}") from None

    def _checked(self, part: Part | Iterator[bytes]) -> Iterator[Buffer]:
        try:
            with self._server.errors():
                yield from part.chunks() if isinstance(part, Part) else part
        except IncompleteBodyError as error:
            raise SourceUnavailableError(self._server.name, str(error)) from None
        except MultipartError as error:
            raise SourceRefusedError(self._server.name, f"wrong multipart: {error}") from None


class _NotAtOnceError(Exception):
    """The server does not give so much at once."""


def _instance(found: qido.Found) -> FoundInstance:
    return FoundInstance(
        qido.uid(found, qido.SOP_INSTANCE_UID),
        qido.uid(found, qido.SERIES_INSTANCE_UID),
        qido.uid(found, qido.SOP_CLASS_UID),
    )


def _pieces(read: object) -> Iterator[bytes]:
    assert callable(read)
    while piece := read(_PIECE_BYTES):
        yield piece


def _boundary(parameters: str) -> str:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "boundary":
            return value.strip().strip('"')
    return ""
