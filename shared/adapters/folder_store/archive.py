"""A folder of Part 10 files as an archive that is queried and retrieved from (PS3.4 Annex C)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from shared.adapters.folder_store.index import KEPT, File, FolderIndex
from shared.dicom.matching import is_wild_card, judged_alone, matches, matches_span, spans
from shared.dicom.query import (
    PATIENT_ID,
    SERIES_INSTANCE_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    Key,
    Match,
    Query,
)
from shared.dicom.showing import shown
from shared.ports import FoundInstance, Retrieval, Retrieved

_MODALITY = "00080060"
_COLUMNS: Final = {
    PATIENT_ID: "patient",
    STUDY_INSTANCE_UID: "study",
    SERIES_INSTANCE_UID: "series",
    SOP_INSTANCE_UID: "instance",
    _MODALITY: "modality",
}
_UNIQUE: Final = frozenset({PATIENT_ID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID})
# SQLite takes no more than some 32,000 in all.
_MOST_VALUES: Final = 5000
# What is counted, and of whom: column, column of the entity that is shown, VR.
_COUNTED: Final = {
    "00201200": ("study", "patient", "IS"),
    "00201202": ("series", "patient", "IS"),
    "00201204": ("instance", "patient", "IS"),
    "00201206": ("series", "study", "IS"),
    "00201208": ("instance", "study", "IS"),
    "00201209": ("instance", "series", "IS"),
    "00080061": ("modality", "study", "CS"),
    "00080062": ("sop_class", "study", "UI"),
}


class FolderArchive:
    """What lies in a folder, by the model of C-FIND. Thread-safe.

    Every method raises, also while what it gives is iterated over: SourceUnavailableError.
    """

    def __init__(self, index: FolderIndex) -> None:
        self._index = index

    def find(self, query: Query) -> Iterator[Match | None]:
        """As of Archive. An Attribute that the file has not is absent, and never unknown but for
        Sequences, which are not matched.
        """
        yield from self._index.refresh()
        where, values = _narrowed(query)
        for file in self._index.pages(_COLUMNS[query.level.unique_key], where, values):
            yield self._match(query, file)

    def instances(self, query: Query) -> Iterator[tuple[str, FoundInstance] | None]:
        """As of Archive."""
        yield from self._index.refresh()
        named = replace(query, keys=tuple(key for key in query.keys if key.tag in _UNIQUE))
        where, values = _narrowed(named)
        for file in self._index.pages("instance", where, values):
            is_wanted = all(matches(key, file.shown) for key in named.keys)
            is_whole = file.study and file.series
            instance = FoundInstance(file.instance, file.series, file.sop_class)
            yield (file.study, instance) if is_wanted and is_whole else None

    def retrieve(self, wanted: Retrieval) -> Iterator[Retrieved]:
        """As of SourceReader."""
        for one in wanted.instances:
            path = self._index.path_of(wanted.study_instance_uid, one.uid)
            if path is None:
                continue
            with self._index.opened(path) as chunks:
                if chunks is not None:
                    yield Retrieved(one.uid, chunks)

    def stop(self) -> None:
        """Nothing waits for long."""

    def close(self) -> None:
        """Release what is open."""
        self._index.close()

    # ---- inside

    def _match(self, query: Query, file: File) -> Match | None:
        judged = [key for key in judged_alone(query) if key.tag not in _COUNTED]
        values = [key for key in judged if key.vr != "SQ"]
        # What needs no file first.
        if not all(matches(key, file.shown) for key in values if key.tag in KEPT):
            return None
        found = self._found(query, file)
        if not all(matches(key, found) for key in values):
            return None
        if not all(matches_span(*pair, found) for pair in spans(query)):
            return None
        counted = [key for key in query.keys if key.tag in _COUNTED]
        found.update({key.tag: self._counted(key, file) for key in counted})
        if not all(matches(key, found) for key in counted):
            return None
        return Match(found, all(key.is_universal for key in judged if key.vr == "SQ"))

    def _found(self, query: Query, file: File) -> dict[str, Any]:
        found = dict(file.shown)
        others = [key.tag for key in query.keys if key.tag not in KEPT and key.tag not in _COUNTED]
        header = self._index.header(file.path) if others else None
        if header is not None:
            found.update({tag: value for tag in others if (value := shown(header, tag))})
        return found

    def _counted(self, key: Key, file: File) -> Mapping[str, Any]:
        column, entity, vr = _COUNTED[key.tag]
        rows = self._index.query(
            f"SELECT DISTINCT {column} FROM files WHERE instance != '' AND {column} != ''"  # noqa: S608
            f" AND {entity} = ? ORDER BY {column}",
            [getattr(file, entity)],
        )
        return {"vr": vr, "Value": [len(rows)] if vr == "IS" else [row[0] for row in rows]}


def _narrowed(query: Query) -> tuple[str, list[str]]:
    """A condition that holds for all that fits, and its values."""
    conditions, values = ["1"], []
    for tag, column in _COLUMNS.items():
        key = query.key(tag)
        if key is None or key.is_universal or is_wild_card(key):
            continue
        wanted = [value.strip() for value in key.values]
        if len(wanted) > _MOST_VALUES:
            continue  # they are matched one by one
        conditions.append(f"{column} IN ({', '.join('?' * len(wanted))})")
        values += wanted
    return " AND ".join(conditions), values
