"""A Query/Retrieve SCP that is searched by a person: C-FIND in the Study Root model (PS3.4 C.4).

A search goes down level by level, as hierarchical ones do (PS3.4 C.4.1.2.1). All that the peer
shows is matched once more here, for it may know less of a key than it was asked.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Final

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind as StudyRootFind,
)

from shared.adapters.sources.dimse import DimseReader
from shared.config.sources import DimseQrSource
from shared.dicom.dictionary import keyword_for_tag
from shared.dicom.levels import level_of
from shared.dicom.matching import matches
from shared.dicom.query import (
    PATIENT_ID,
    SERIES_INSTANCE_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    Found,
    Key,
    Level,
    Match,
    Query,
    found_of,
    identifier_of,
    texts,
)
from shared.errors import SourceRefusedError, SourceUnavailableError
from shared.ports import Clock, SecretStore

_PENDING: Final = (0xFF00, 0xFF01)
_SUCCESS: Final = 0x0000
_CANCELLED: Final = 0xFE00
_MESSAGE_ID: Final = 1
# How long the peer is given to end what it was asked to cancel, before the association is aborted.
_CANCEL_S: Final = 2.0
# What is held in memory to go down from; whoever has more names a Study, a patient or a date.
_MOST_PARENTS: Final = 5000

_UNIQUE: Final = {
    Level.STUDY: STUDY_INSTANCE_UID,
    Level.SERIES: SERIES_INSTANCE_UID,
    Level.IMAGE: SOP_INSTANCE_UID,
}
_ORDER: Final = (Level.STUDY, Level.SERIES, Level.IMAGE)


class DimseSearch:
    """Searches a Query/Retrieve SCP, over one association; one search by one thread."""

    def __init__(self, entity: DimseQrSource, clock: Clock, secrets: SecretStore) -> None:
        self._name = entity.name
        self._reader = DimseReader(entity, clock, secrets)
        self._stopped = threading.Event()
        self._association: Association | None = None

    def find(self, query: Query) -> Iterator[Match | None]:
        """As `shared.pipeline.browsing.Searched`."""
        with self._reader.associated([build_context(StudyRootFind)]) as association:
            self._association = association
            if self._stopped.is_set():
                return
            if query.level is Level.PATIENT:
                yield from self._patients(association, query)
            else:
                yield from self._below(association, query, {}, Level.STUDY)

    def stop(self) -> None:
        """From another thread: cancel what is under way, and end it if the peer does not."""
        self._stopped.set()
        association = self._association
        if association is None or not association.is_established:
            return
        with suppress(RuntimeError, ValueError):  # it has ended meanwhile
            association.send_c_cancel(_MESSAGE_ID, query_model=StudyRootFind)
        timer = threading.Timer(_CANCEL_S, _end, [association])
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """Nothing is open between searches."""

    # ---- inside

    def _patients(self, association: Association, query: Query) -> Iterator[Match | None]:
        """The Study Root model knows no Patients: they are those of all Studies that fit."""
        seen: set[str] = set()
        studies = replace(query, level=Level.STUDY)
        with closing(self._ask(association, studies)) as shown:
            for found in shown:
                patient = (texts(found.get(PATIENT_ID)) or [""])[0]
                match = None if patient in seen else _match(query.keys, found)
                if match is not None:
                    seen.add(patient)
                yield match

    def _below(
        self, association: Association, query: Query, above: Found, level: Level
    ) -> Iterator[Match | None]:
        """What fits of `level` and below of the entity that `above` shows."""
        own = Query(level, tuple(_keys_at(query, level, above)))
        parents: list[Found] = []
        with closing(self._ask(association, own)) as shown:
            for found in shown:
                if level is query.level:
                    yield _match(query.keys, {**above, **found})
                    continue
                if _match(own.keys, found) is not None:
                    parents.append({**above, **found})
                if len(parents) > _MOST_PARENTS:
                    raise SourceRefusedError(self._name, f"more than {_MOST_PARENTS} {level} fit")
                yield None
        for parent in parents:
            yield from self._below(association, query, parent, _ORDER[_ORDER.index(level) + 1])

    def _ask(self, association: Association, query: Query) -> Generator[Found, None, None]:
        """What the peer shows of a level, each entity once."""
        seen: set[str] = set()
        unique = _UNIQUE[query.level]
        for narrowed in _narrowed(query):
            with closing(self._responses(association, identifier_of(narrowed))) as datasets:
                for dataset in datasets:
                    found = found_of(dataset)
                    uid = (texts(found.get(unique)) or [""])[0]
                    if uid not in seen:
                        seen.add(uid)
                        yield found

    def _responses(
        self, association: Association, identifier: Dataset
    ) -> Generator[Dataset, None, None]:
        if self._stopped.is_set():
            return
        answers = association.send_c_find(identifier, StudyRootFind, msg_id=_MESSAGE_ID)
        is_over = False
        try:
            for status, shown in answers:
                if "Status" not in status:
                    is_over = True
                    raise SourceUnavailableError(self._name, "no answer to C-FIND")
                if status.Status not in _PENDING:
                    is_over = True
                    if status.Status not in (_SUCCESS, _CANCELLED):
                        raise self._reader.failure_of(status, "C-FIND")
                elif shown is not None and not self._stopped.is_set():
                    yield shown
        finally:
            if not is_over:
                self._cancel(association, answers)

    def _cancel(
        self, association: Association, answers: Iterator[tuple[Dataset, Dataset | None]]
    ) -> None:
        """Whoever asked wants no more: say so, and take what the peer had on its way."""
        self.stop()
        for status, _ in answers:
            if status.get("Status") not in _PENDING:
                return


def _end(association: Association) -> None:
    if association.is_established:
        association.abort()
        # Whoever waits for an answer would do so until its time-out.
        association.dimse.msg_queue.put((None, None))


def _match(keys: Sequence[Key], found: Found) -> Match | None:
    """None if a key does not fit; one that the peer shows nothing of leaves it open."""
    is_certain = True
    for key in keys:
        if not key.is_universal and not texts(found.get(key.tag)) and key.vr != "SQ":
            is_certain = False
        elif matches(key, found) is False:
            return None
    return Match(found, is_certain)


def _keys_at(query: Query, level: Level, above: Found) -> Iterator[Key]:
    """The keys of the query that are asked for at a level, and what names the entities above."""
    asked: set[str] = set()
    for upper in _ORDER[: _ORDER.index(level)]:
        asked.add(_UNIQUE[upper])
        yield Key(_UNIQUE[upper], "UI", tuple(texts(above.get(_UNIQUE[upper]))[:1]))
    if _UNIQUE[level] not in {key.tag for key in query.keys}:
        yield Key(_UNIQUE[level], "UI")
    for key in query.keys:
        known = level_of(keyword_for_tag(int(key.tag, 16)) or "") or query.level
        known = Level.STUDY if known is Level.PATIENT else known
        if known is level and key.tag not in asked:
            yield key


def _narrowed(query: Query) -> Iterator[Query]:
    """The searches that together find all that fits: a list of Values is one only of UIDs."""
    listed = next((key for key in query.keys if len(key.values) > 1 and key.vr != "UI"), None)
    for value in listed.values if listed is not None else ("",):
        yield replace(query, keys=tuple(_narrowed_key(key, listed, value) for key in query.keys))


def _narrowed_key(key: Key, listed: Key | None, value: str) -> Key:
    if key is listed:
        return replace(key, values=(value,))
    # Other lists are matched here.
    return replace(key, values=()) if len(key.values) > 1 and key.vr != "UI" else key
