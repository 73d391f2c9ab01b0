"""A Query/Retrieve SCP as a source (PS3.4 Annex C): asked by C-FIND in the Study Root model, read
by C-MOVE to a listener of ours or by C-GET.

Each request has an association of its own, so that one that breaks takes nothing else with it.
"""

from __future__ import annotations

import hashlib
import queue
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, Final, Literal

import pydicom.config
from pydicom.dataset import Dataset
from pynetdicom import build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind as StudyRootFind,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelGet as StudyRootGet,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelMove as StudyRootMove,
)
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from shared.adapters.destinations.outcomes import printable
from shared.adapters.sources.associations import AskedPeer
from shared.adapters.sources.qido import date_range
from shared.config.sources import DimseQrSource
from shared.dicom.levels import level_of
from shared.dicom.query import Level
from shared.dicom.relative_dates import absolute
from shared.errors import SourceMisconfiguredError, SourceRefusedError, SourceUnavailableError
from shared.ports import (
    Clock,
    FoundInstance,
    FoundStudy,
    MoveProgress,
    Retrieval,
    Retrieved,
    SecretStore,
)

_PENDING: Final = (0xFF00, 0xFF01)
_SUCCESS: Final = 0x0000
_WARNING: Final = 0xB000  # some sub-operations failed
_CANCEL: Final = 0xFE00
_MOVE_DESTINATION_UNKNOWN: Final = 0xA801
_MOST_CONTEXTS: Final = 128
# A list of UIDs in one identifier; longer ones are asked for by several requests.
_UIDS_AT_ONCE: Final = 200
# What a Storage SCP of ours takes in, the commonest first (PS3.5 Annex A).
_TRANSFER_SYNTAXES: Final = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.102",
)
# Where the peer does not tell the SOP Classes of a Study: those that make up most of all archives.
_COMMON_SOP_CLASSES: Final = tuple(
    f"1.2.840.10008.5.1.4.1.1.{suffix}"
    for suffix in ("1", "1.1", "1.2", "2", "2.1", "4", "4.1", "6.1", "3.1", "7", "20", "128")
)


class DimseReader:
    """SourceReader of a Query/Retrieve SCP."""

    unit: Literal["study", "series"] = "study"

    def __init__(self, entity: DimseQrSource, clock: Clock, secrets: SecretStore) -> None:
        # Values are looked at here and not judged: no warnings that quote them.
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
        self._entity, self._clock = entity, clock
        self._peer = AskedPeer(entity, secrets)
        self.moves = entity.move_destination is not None

    def search(self, since: datetime | None) -> Iterator[FoundStudy]:
        """As SourceReader."""
        keys = self._keys(since)
        level = self._entity.query_level
        with self._finding() as find:
            for uid, study in _each(find("STUDY", keys["STUDY"], _STUDY_SHOWS)):
                if level == "STUDY":
                    yield FoundStudy(uid, _signature(study))
                    continue
                series = self._series(find, uid, keys["SERIES"])
                if level == "SERIES":
                    if series:
                        yield FoundStudy(uid, series=tuple(series))
                    continue
                instances = self._instances(find, uid, series, keys["IMAGE"])
                if instances:
                    yield FoundStudy(uid, instances=tuple(instances))

    def instances(self, study: FoundStudy) -> Iterable[FoundInstance]:
        """As SourceReader."""
        if study.instances is not None:
            return study.instances
        with self._finding() as find:
            series = study.series or self._series(find, study.uid, {})
            return self._instances(find, study.uid, series, {})

    def find(self, keys: Mapping[str, str]) -> Iterator[FoundStudy]:
        """As SourceReader."""
        with self._finding() as find:
            for uid, study in _each(find("STUDY", dict(keys), _STUDY_SHOWS)):
                yield FoundStudy(uid, _signature(study))

    def move(self, wanted: Retrieval) -> Generator[MoveProgress, None, None]:
        """As SourceReader."""
        entity = self._entity
        completed = failed = 0
        for identifier in _identifiers(wanted):
            with self.associated(
                [build_context(StudyRootMove)], within_s=entity.arrival_timeout_s
            ) as association:
                last = MoveProgress(0, completed, failed)
                for status, said in association.send_c_move(
                    identifier, entity.move_destination or "", StudyRootMove
                ):
                    self._check(status, "C-MOVE")
                    if _COMPLETED in status:
                        last = _progress(status, completed, failed)
                    elif status.Status not in _PENDING:
                        # The last response need not have numbers (PS3.7 9.1.4.1).
                        lost = len(_uids(said, "FailedSOPInstanceUIDList"))
                        asked = len(_uids(identifier, "SOPInstanceUID") or wanted.instances)
                        last = MoveProgress(0, completed + asked - lost, failed + lost)
                    yield last
                completed, failed = last.completed, last.failed

    def retrieve(self, wanted: Retrieval) -> Iterator[Retrieved]:
        """As SourceReader."""
        for identifier in _identifiers(wanted):
            yield from _Getting(self, identifier, wanted).given()

    def done(self, study: FoundStudy, instances: Sequence[FoundInstance]) -> bool:
        """As SourceReader: nothing is deleted."""
        return False

    def check(self) -> str:
        """C-ECHO."""
        with self.associated([build_context(Verification)]) as association:
            status = association.send_c_echo().get("Status")
        if status is None:
            raise SourceUnavailableError(self._entity.name, "no answer to C-ECHO")
        return f"C-ECHO {status:04X}H"

    def close(self) -> None:
        """As SourceReader: nothing is open."""

    # ---- inside

    def _keys(self, since: datetime | None) -> dict[str, dict[str, str]]:
        now = self._clock.now()
        keys: dict[str, dict[str, str]] = {"STUDY": {}, "SERIES": {}, "IMAGE": {}}
        for name, given in self._entity.query_params.items():
            values = given if isinstance(given, tuple) else (given,)
            keyword = _keyword(name)
            known = level_of(keyword)
            level = known if known in (Level.SERIES, Level.IMAGE) else Level.STUDY
            keys[level][keyword] = "\\".join(absolute(str(one), now) for one in values)
        if since is not None and "StudyDate" not in keys["STUDY"]:
            keys["STUDY"]["StudyDate"] = date_range(since)
        return keys

    def _series(self, find: _Find, study: str, keys: Mapping[str, str]) -> list[str]:
        wanted = {"StudyInstanceUID": study, **keys}
        found = find("SERIES", wanted, ("SeriesInstanceUID",))
        uids = (_uid(one, "SeriesInstanceUID") for one in found)
        return list(dict.fromkeys(filter(None, uids)))

    def _instances(
        self, find: _Find, study: str, series: Iterable[str], keys: Mapping[str, str]
    ) -> list[FoundInstance]:
        instances: dict[str, FoundInstance] = {}
        for one in series:
            wanted = {"StudyInstanceUID": study, "SeriesInstanceUID": one, **keys}
            for image in find("IMAGE", wanted, ("SOPInstanceUID", "SOPClassUID")):
                uid = _uid(image, "SOPInstanceUID")
                if uid:
                    instances[uid] = FoundInstance(uid, one, _uid(image, "SOPClassUID"))
        return list(instances.values())

    @contextmanager
    def _finding(self) -> Iterator[_Find]:
        with self.associated([build_context(StudyRootFind)]) as association:

            def find(level: str, keys: Mapping[str, str], shown: Sequence[str]) -> list[Dataset]:
                return list(self._matches(association, level, keys, shown))

            yield find

    def _matches(
        self, association: Association, level: str, keys: Mapping[str, str], shown: Sequence[str]
    ) -> Iterator[Dataset]:
        query = Dataset()
        query.QueryRetrieveLevel = level
        for keyword in shown:
            setattr(query, keyword, "" if keyword not in _NUMBERS else None)
        for keyword, value in keys.items():
            setattr(query, keyword, value)
        for status, identifier in association.send_c_find(query, StudyRootFind):
            if "Status" not in status:
                raise SourceUnavailableError(self._entity.name, "no answer to C-FIND")
            if status.Status in _PENDING:
                if identifier is not None:
                    yield identifier
            elif status.Status != _SUCCESS:
                raise self.failure_of(status, "C-FIND")

    def _check(self, status: Dataset, service: str) -> None:
        """Raises: SourceUnavailableError and its kin for an answer that is a failure, or none."""
        if "Status" not in status:
            raise SourceUnavailableError(self._entity.name, f"no answer to {service}")
        if status.Status not in (*_PENDING, _SUCCESS, _WARNING, _CANCEL):
            raise self.failure_of(status, service)

    def failure_of(self, status: Dataset, service: str) -> Exception:
        """What to raise for a final response that is no success."""
        code = int(status.Status)
        name, words = self._entity.name, f"{service} {code:04X}H"
        if comment := printable(str(status.get("ErrorComment") or "")):
            words += f": {comment}"
        if code == _MOVE_DESTINATION_UNKNOWN:
            return SourceMisconfiguredError(
                name, f"{words}: the peer does not know {self._entity.move_destination}"
            )
        # Out of resources, or unable to process: both may pass.
        if 0xA700 <= code <= 0xA7FF or 0xC000 <= code <= 0xCFFF:
            return SourceUnavailableError(name, words)
        return SourceRefusedError(name, words)

    def associated(
        self,
        contexts: Sequence[Any],
        *,
        within_s: float | None = None,
        roles: Sequence[Any] = (),
        handlers: Sequence[Any] = (),
    ) -> AbstractContextManager[Association]:
        """As of AskedPeer."""
        return self._peer.associated(contexts, within_s=within_s, roles=roles, handlers=handlers)


_Find = Callable[[str, Mapping[str, str], Sequence[str]], list[Dataset]]

_COMPLETED: Final = "NumberOfCompletedSuboperations"
_NUMBERS: Final = ("NumberOfStudyRelatedInstances", "NumberOfStudyRelatedSeries")
_STUDY_SHOWS: Final = ("StudyInstanceUID", "ModalitiesInStudy", *_NUMBERS)


class _Getting:
    """One C-GET. pynetdicom hands Instances to a handler, in the thread that asked; they are passed
    on from there one by one, and the peer waits for its answer as long as we do.
    """

    def __init__(self, reader: DimseReader, identifier: Dataset, wanted: Retrieval) -> None:
        self._reader, self._identifier = reader, identifier
        self._wanted = wanted
        self._came: queue.Queue[bytes | BaseException | None] = queue.Queue()
        self._taken = threading.Semaphore(0)
        self._stopped = threading.Event()

    def given(self) -> Iterator[Retrieved]:
        """The Instances, as they come."""
        thread = threading.Thread(target=self._ask, name="c-get", daemon=True)
        thread.start()
        try:
            while (came := self._came.get()) is not None:
                if isinstance(came, BaseException):
                    raise came
                yield Retrieved("", iter((came,)))
                self._taken.release()
        finally:
            self._stopped.set()
            self._taken.release()
            thread.join()

    def _ask(self) -> None:
        sop_classes = {one.sop_class_uid for one in self._wanted.instances if one.sop_class_uid}
        contexts = [build_context(StudyRootGet)]
        chosen = sorted(sop_classes) or _COMMON_SOP_CLASSES
        for syntax in _TRANSFER_SYNTAXES:
            contexts += [build_context(sop_class, syntax) for sop_class in chosen]
        try:
            with self._reader.associated(
                contexts[:_MOST_CONTEXTS],
                within_s=self._reader._entity.timeout_s,
                roles=[build_role(sop_class, scp_role=True) for sop_class in chosen],
                handlers=[(evt.EVT_C_STORE, self._take)],
            ) as association:
                for status, _ in association.send_c_get(self._identifier, StudyRootGet):
                    self._reader._check(status, "C-GET")
                    if self._stopped.is_set():
                        association.abort()
                        return
        except BaseException as error:
            self._came.put(error)
        else:
            self._came.put(None)
        finally:
            self._came.put(None)

    def _take(self, event: Any) -> int:
        if self._stopped.is_set():
            return 0xA700
        self._came.put(event.encoded_dataset(include_meta=True))
        self._taken.acquire()
        return 0xA700 if self._stopped.is_set() else _SUCCESS


def _progress(status: Dataset, completed: int, failed: int) -> MoveProgress:
    """How far it is, after `completed` and `failed` of earlier requests."""
    return MoveProgress(
        int(status.get("NumberOfRemainingSuboperations") or 0),
        completed
        + int(status.get(_COMPLETED) or 0)
        + int(status.get("NumberOfWarningSuboperations") or 0),
        failed + int(status.get("NumberOfFailedSuboperations") or 0),
    )


def _uids(identifier: Dataset | None, keyword: str) -> list[str]:
    """The Values of a list of UIDs."""
    listed = identifier.get(keyword) if identifier is not None else None
    values = [listed] if isinstance(listed, str) else listed or ()
    return [str(value) for value in values if value]


def _identifiers(wanted: Retrieval) -> Iterator[Dataset]:
    """What to ask for: the whole Study, or single Instances of its Series (PS3.4 C.4.2.2.1)."""
    if wanted.is_whole:
        study = Dataset()
        study.QueryRetrieveLevel = "STUDY"
        study.StudyInstanceUID = wanted.study_instance_uid
        yield study
        return
    by_series: dict[str, list[str]] = defaultdict(list)
    for one in wanted.instances:
        by_series[one.series_instance_uid].append(one.uid)
    for series, uids in by_series.items():
        for start in range(0, len(uids), _UIDS_AT_ONCE):
            images = Dataset()
            images.QueryRetrieveLevel = "IMAGE"
            images.StudyInstanceUID = wanted.study_instance_uid
            images.SeriesInstanceUID = series
            images.SOPInstanceUID = uids[start : start + _UIDS_AT_ONCE]
            yield images


def _each(found: Iterable[Dataset]) -> Iterator[tuple[str, Dataset]]:
    """Each Study by its UID, once: some peers show one for each of its Instances."""
    seen: set[str] = set()
    for study in found:
        uid = _uid(study, "StudyInstanceUID")
        if uid and uid not in seen:
            seen.add(uid)
            yield uid, study


def _uid(found: Dataset, keyword: str) -> str:
    value = str(found.get(keyword) or "").strip("\0 ")
    return value if re.fullmatch(r"[0-9.]{1,64}", value) else ""


def _signature(study: Dataset) -> str:
    """Changes with what is shown of a Study; "" if how many Instances it has is not shown."""
    if study.get("NumberOfStudyRelatedInstances") in (None, ""):
        return ""
    shown = [str(study.get(keyword)) for keyword in _STUDY_SHOWS]
    return hashlib.blake2b("\0".join(shown).encode(), digest_size=12).hexdigest()


def _keyword(name: str) -> str:
    if re.fullmatch("[0-9A-Fa-f]{8}", name):
        from pydicom.datadict import keyword_for_tag

        return keyword_for_tag(int(name, 16))
    return name
