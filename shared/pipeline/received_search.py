"""Our own store as one that is searched: the Instances that came and that rules decided about.

What is known without their files is UIDs; the rest is read from the header of one Instance for each
Patient, Study or Series, or of each Instance where these are wanted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.dicom.header import Header
from shared.dicom.matching import matches
from shared.dicom.query import (
    PATIENT_ID,
    SERIES_INSTANCE_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    Level,
    Match,
    Query,
)
from shared.dicom.showing import shown
from shared.errors import AxiomError, SourceRefusedError
from shared.pipeline.instance_records import COLLECTION, receipt_of
from shared.pipeline.validate import header_of
from shared.ports import DocumentStore, Filter, ObjectStore

NAME: Final = "@received"

# Newest first, no more documents than these are looked at for one search.
_MOST_LOOKED_AT: Final = 20_000
_MOST_OF_A_STUDY: Final = 20_000
_PAGE: Final = 500
_FIELDS: Final = {
    STUDY_INSTANCE_UID: "study_instance_uid",
    SERIES_INSTANCE_UID: "series_instance_uid",
    SOP_INSTANCE_UID: "sop_instance_uid",
}
_MODALITY, _MODALITIES_IN_STUDY = "00080060", "00080061"
_SERIES_OF_STUDY, _INSTANCES_OF_STUDY, _INSTANCES_OF_SERIES = "00201206", "00201208", "00201209"
_COUNTED: Final = frozenset(
    {_MODALITIES_IN_STUDY, _SERIES_OF_STUDY, _INSTANCES_OF_STUDY, _INSTANCES_OF_SERIES}
)

Data = Mapping[str, Any]


class ReceivedSearch:
    """Searches what was received; one search by one thread."""

    def __init__(self, documents: DocumentStore, objects: ObjectStore) -> None:
        self._documents, self._objects = documents, objects
        self._stopped = threading.Event()

    def find(self, query: Query) -> Iterator[Match | None]:
        """As `shared.pipeline.browsing.Searched`."""
        seen: set[str] = set()
        of_file = [key for key in query.keys if key.tag not in _COUNTED]
        for data in self._newest(query):
            uid = _entity_of(data, query.level)
            if uid in seen:
                yield None
                continue
            header = self._header(data)
            if header is None:
                yield None
                continue
            seen.add(uid)
            if query.level is Level.PATIENT:
                uid = header.text(PATIENT_ID) or ""
                if uid in seen:
                    yield None
                    continue
            seen.add(uid)
            found = {key.tag: value for key in of_file if (value := shown(header, key.tag))}
            if not all(matches(key, found) for key in of_file):
                yield None
                continue
            found.update(self._counted(query, data))
            yield Match(found) if all(matches(key, found) for key in query.keys) else None

    def stop(self) -> None:
        """From another thread: the search ends after the document at hand."""
        self._stopped.set()

    def close(self) -> None:
        """Nothing is open."""

    # ---- inside

    def _newest(self, query: Query) -> Iterator[Data]:
        """The documents of what may fit, newest first."""
        named = next((tag for tag in reversed(_FIELDS) if query.uids(tag)), None)
        left = _MOST_LOOKED_AT
        for value in query.uids(named) if named else ("",):
            where = [Filter(_FIELDS[named], "==", value)] if named else []
            for data in self._documents_of(where):
                if left == 0:
                    raise SourceRefusedError(
                        NAME, f"only the newest {_MOST_LOOKED_AT} Instances were looked at"
                    )
                left -= 1
                yield data

    def _documents_of(self, where: list[Filter]) -> Iterator[Data]:
        cursor = None
        while not self._stopped.is_set():
            page = self._documents.query(
                COLLECTION,
                where,
                order_by="received_at",
                descending=True,
                limit=_PAGE,
                cursor=cursor,
            )
            for document in page.documents:
                if self._stopped.is_set():
                    return
                yield document.data
            cursor = page.cursor
            if cursor is None:
                return

    def _header(self, data: Data) -> Header | None:
        """None where the received file is deleted by now, or cannot be read."""
        receipt = receipt_of(data)
        try:
            with self._objects.open(receipt.file.object_name) as reader:
                return header_of(receipt, reader)
        except AxiomError:
            return None

    def _counted(self, query: Query, data: Data) -> dict[str, Any]:
        """What of the numbers and modalities is asked for."""
        asked = {key.tag for key in query.keys} & _COUNTED
        if not asked:
            return {}
        uids: dict[str, set[str]] = {}
        first: dict[str, Data] = {}
        study = [Filter("study_instance_uid", "==", data["study_instance_uid"])]
        for number, one in enumerate(self._documents_of(study)):
            if number == _MOST_OF_A_STUDY:
                break
            series = one["series_instance_uid"]
            uids.setdefault(series, set()).add(one["sop_instance_uid"])
            first.setdefault(series, one)
        counts: dict[str, Any] = {
            _SERIES_OF_STUDY: [len(uids)],
            _INSTANCES_OF_STUDY: [sum(len(found) for found in uids.values())],
            _INSTANCES_OF_SERIES: [len(uids.get(data["series_instance_uid"], ()))],
        }
        if _MODALITIES_IN_STUDY in asked:
            headers = filter(None, map(self._header, first.values()))
            modalities = {header.text(_MODALITY) for header in headers}
            counts[_MODALITIES_IN_STUDY] = sorted(filter(None, modalities))
        return {
            tag: {"vr": "CS" if tag == _MODALITIES_IN_STUDY else "IS", "Value": counts[tag]}
            for tag in asked
        }


def _entity_of(data: Data, level: Level) -> str:
    """What is looked at once: of a Patient, who has no UID, each Study."""
    named = {Level.SERIES: "series_instance_uid", Level.IMAGE: "sop_instance_uid"}
    return str(data[named.get(level, "study_instance_uid")])
