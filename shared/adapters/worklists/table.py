"""A table of a database or a CSV file: a row for each scheduled procedure step."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from shared.adapters.crosswalk.csv_rows import CsvRows
from shared.adapters.crosswalk.rows import Outputs
from shared.config.crosswalks import (
    AnyCrosswalkSource,
    CrosswalkMap,
    CrosswalkMatch,
    CrosswalkOutput,
    CsvSource,
)
from shared.config.worklists import TableWorklist
from shared.dicom.character_sets import UTF_8, character_set
from shared.dicom.dictionary import vr_for_tag
from shared.dicom.matching import matches
from shared.dicom.paths import AttributePath
from shared.dicom.query import Found, Key, Match
from shared.dicom.values import encode
from shared.errors import (
    CrosswalkMisconfiguredError,
    CrosswalkUnavailableError,
    SourceMisconfiguredError,
    SourceRefusedError,
    SourceUnavailableError,
)
from shared.ports import Clock, SecretStore

log = logging.getLogger(__name__)

# 2026-11-21, 2026-11-21 08:30, 20261121083000: what text columns have in the place of a DA or TM.
_DATE: Final = re.compile(r"(\d{4})[-./]?(\d\d)[-./]?(\d\d)(?:[T ]?(\d.*))?")
_TIME: Final = re.compile(r"(\d\d):?(\d\d)?(?::?(\d\d(?:\.\d{1,6})?))?(?:Z|[+-]\d\d:?\d\d)?")
_PATIENT_ID: Final = "PatientID"
_PATIENT_ID_TAG: Final = "00100020"
_UTF_8: Final = character_set((UTF_8,))
# Of all that is wrong this much is named.
_MOST_NAMED: Final = 10

_Tags = tuple[str, ...]


class TableOfSteps:
    """A Worklist. An Attribute that no column gives cannot be matched, which each match tells.

    A Value that breaks PS3.5 6.2 is left empty, and a row whose Patient ID does is left out: told
    in the log whenever there are others than before.
    """

    def __init__(
        self,
        entity: TableWorklist,
        source: AnyCrosswalkSource,
        secrets: SecretStore,
        clock: Clock,
        folder: Path,
    ) -> None:
        self._entity, self._clock = entity, clock
        self._columns = [
            (tuple(f"{step.tag:08X}" for step in AttributePath.parse(name).steps), column)
            for name, column in entity.columns.items()
        ]
        self._known = {tags[:i] for tags, _ in self._columns for i in range(1, len(tags) + 1)}
        as_map = _as_map(entity)
        if isinstance(source, CsvSource):
            self._csv: CsvRows | None = CsvRows(as_map, source, folder, clock)
            self._database = None
        else:
            from shared.adapters.crosswalk.sql_rows import Database

            self._csv, self._database = None, Database(source, secrets, folder)
        self._map = as_map
        self._lock = threading.Lock()
        self._steps: list[Found] = []
        self._invalid: list[tuple[int, str]] = []
        self._read_at_s = float("-inf")

    def find(self, keys: Sequence[Key]) -> Iterator[Match | None]:
        """As Worklist."""
        known = tuple(_pruned(keys, self._known, ()))
        is_certain = known == tuple(keys)
        for found in self._current():
            fits = all(matches(key, found) for key in known)
            yield Match(found, is_certain) if fits else None

    def close(self) -> None:
        """As Worklist."""
        if self._database is not None:
            self._database.close()

    # ---- inside

    def _current(self) -> list[Found]:
        with self._lock:
            now_s = self._clock.monotonic_s()
            if now_s - self._read_at_s >= self._entity.keep_s:
                self._steps = self._read()
                self._read_at_s = now_s
            return self._steps

    def _read(self) -> list[Found]:
        name, most = self._entity.name, self._entity.max_rows
        steps: list[Found] = []
        invalid: list[tuple[int, str]] = []
        try:
            for number, outputs in self._rows():
                if len(steps) == most:
                    raise SourceRefusedError(name, f"its table has more than {most} rows")
                found, columns = _step(self._columns, outputs)
                invalid += [(number, column) for column in columns]
                if found[_PATIENT_ID_TAG]["Value"]:
                    steps.append(found)
        except CrosswalkUnavailableError as error:
            raise SourceUnavailableError(name, str(error)) from error
        except CrosswalkMisconfiguredError as error:
            raise SourceMisconfiguredError(name, str(error)) from error
        self._tell(invalid)
        return steps

    def _tell(self, invalid: list[tuple[int, str]]) -> None:
        if invalid and invalid != self._invalid:
            named = [f"{number}: {column}" for number, column in invalid[:_MOST_NAMED]]
            log.warning(
                "a worklist's table has Values that DICOM does not allow; they are left out",
                extra={
                    "worklist": self._entity.name,
                    "values": len(invalid),
                    "by_row": ", ".join(named) + (", ..." if len(invalid) > _MOST_NAMED else ""),
                },
            )
        self._invalid = invalid

    def _rows(self) -> Iterator[tuple[int, Outputs]]:
        """With the line of a file, or the place among a table's rows that name a patient."""
        if self._csv is not None:
            yield from self._csv.all_rows()
            return
        assert self._database is not None
        rows = self._database.all_rows(self._map, self._entity.timeout_s)
        for number, (_, outputs) in enumerate(rows, start=1):
            yield number, outputs


def _as_map(entity: TableWorklist) -> CrosswalkMap:
    """The columns as a map gives them; rows that name no patient are none."""
    columns = {str(AttributePath.parse(name)): column for name, column in entity.columns.items()}
    return CrosswalkMap(
        name=entity.name,
        source=entity.source,
        table=entity.table,
        match=(CrosswalkMatch(column=columns[_PATIENT_ID]),),
        outputs=tuple(
            CrosswalkOutput(column=column, name=f"{i}")
            for i, column in enumerate(entity.columns.values())
        ),
    )


def _step(columns: Sequence[tuple[_Tags, str]], outputs: Outputs) -> tuple[Found, list[str]]:
    """The step, and the columns whose Values had to be left out."""
    found: dict[str, Any] = {}
    invalid = []
    for (tags, column), text in zip(columns, outputs, strict=True):
        place = found
        for tag in tags[:-1]:
            sequence = place.setdefault(tag, {"vr": "SQ", "Value": [{}]})
            place = sequence["Value"][0]
        place[tags[-1]], is_valid = _attribute(tags[-1], text)
        if not is_valid:
            invalid.append(column)
    return found, invalid


def _attribute(tag: str, text: str | None) -> tuple[Mapping[str, Any], bool]:
    vr = vr_for_tag(int(tag, 16)) or "LO"
    text = (text or "").strip()
    if vr in ("DA", "TM") and text:
        text = _moment(vr, text)
    try:
        encode(vr, [text], True, _UTF_8)
    except ValueError:
        return {"vr": vr, "Value": []}, False
    return {"vr": vr, "Value": [text] if text else []}, True


def _moment(vr: str, text: str) -> str:
    """A date or a time as DICOM writes it, out of what may be both; as it is if it is neither."""
    day, time = _DATE.fullmatch(text), _TIME.fullmatch(text)
    if vr == "DA":
        return "".join(day.groups()[:3]) if day else text
    if time is None and day is not None:
        time = _TIME.fullmatch(day[4] or "00")
    return "".join(part or "" for part in time.groups()) if time else text


def _pruned(keys: Sequence[Key], known: set[_Tags], above: _Tags) -> Iterator[Key]:
    """The keys without those to match that no column gives."""
    for key in keys:
        path = (*above, key.tag)
        if key.vr == "SQ" and path in known:
            items = tuple(tuple(_pruned(item, known, path)) for item in key.items)
            yield Key(key.tag, key.vr, key.values, items)
        elif path in known or key.is_universal:
            yield key
