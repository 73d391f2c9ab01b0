"""Modality worklists (PS3.4 Annex K): what fits which keys, from folders, tables and other SCPs."""

from __future__ import annotations

import io
import json
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityWorklistInformationFind as WorklistFind,
)

from shared.adapters.archives import Archives
from shared.config.entities import Configuration
from shared.config.service import check
from shared.dicom.query import Found, MalformedIdentifierError, _encode, encode_keys, parse_keys
from shared.errors import (
    AxiomError,
    InvalidConfigurationError,
    SourceMisconfiguredError,
    SourceRefusedError,
    SourceUnavailableError,
)
from tests.fakes import FakeClock, MemorySecrets
from tests.peers import LOOPBACK, free_port

SYNTAX = "1.2.840.10008.1.2.1"
SEQUENCE = "ScheduledProcedureStepSequence"
STATION, MODALITY = "ScheduledStationAETitle", "Modality"
DATE, TIME = "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime"

STEPS = (
    ("P1", "JONES^ANN", "A1", "CT1", "CT", "20261121", "0830"),
    ("P2", "Müller^Jörg", "A2", "CT1", "CT", "20261121", "1515"),
    ("P3", "SMITH^BOB", "A3", "MR1", "MR", "20261122", "070000.5"),
)


def step(row: Sequence[str]) -> Dataset:
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 100"
    data_set.PatientID, data_set.PatientName, data_set.AccessionNumber = row[:3]
    data_set.StudyInstanceUID = f"1.2.3.{row[0][1:]}"
    item = Dataset()
    item.ScheduledStationAETitle, item.Modality = row[3:5]
    item.ScheduledProcedureStepStartDate, item.ScheduledProcedureStepStartTime = row[5:]
    data_set.ScheduledProcedureStepSequence = [item]
    return data_set


def request(within: dict[str, str] | None = None, **keys: str) -> bytes:
    """A request that asks for patient, station, date and time of what fits."""
    data_set, item = Dataset(), Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 192"
    for keyword in (STATION, MODALITY, DATE, TIME):
        setattr(item, keyword, (within or {}).get(keyword, ""))
    for keyword, value in {"PatientID": "", "PatientName": "", **keys}.items():
        setattr(data_set, keyword, value)
    data_set.ScheduledProcedureStepSequence = [item]
    return encoded(data_set)


def encoded(data_set: Dataset) -> bytes:
    return _encode(data_set, SYNTAX)


class Site:
    """A home with one worklist, which a listener shows."""

    def __init__(self, home: Path, worklist: dict[str, Any], *sources: dict[str, Any]) -> None:
        self.clock = FakeClock()
        document = {
            "worklists": [{"name": "ris", **worklist}],
            "crosswalk_sources": sources,
            "listeners": [{"name": "modalities", "worklist": "ris"}],
        }
        configuration = Configuration.model_validate_json(json.dumps(document))
        self.archives = Archives(lambda: configuration, MemorySecrets(), self.clock, home)

    def asked(self, data: bytes) -> list[tuple[Found, bool]]:
        keys = parse_keys(data, SYNTAX)
        found = self.archives.worklist("ris").find(keys)
        return [(match.found, match.is_certain) for match in found if match is not None]

    def patients(self, within: dict[str, str] | None = None, **keys: str) -> list[str]:
        return [found["00100020"]["Value"][0] for found, _ in self.asked(request(within, **keys))]


def folder(home: Path) -> Site:
    path = home / "worklists" / "today"
    path.mkdir(parents=True)
    for i, row in enumerate(STEPS):
        data_set = step(row)
        if i % 2:  # a bare data set, as some write it
            (path / f"{i}.wl").write_bytes(encoded(data_set))
            continue
        data_set.file_meta = FileMetaDataset()
        data_set.file_meta.TransferSyntaxUID = UID(SYNTAX)
        data_set.preamble = bytes(128)
        data_set.save_as(path / f"{i}.WL")
    (path / "lockfile").touch()
    (path / ".hidden.wl").write_bytes(b"never looked at")
    return Site(home, {"type": "folder", "path": "today"})


COLUMNS = {
    "PatientID": "mrn",
    "PatientName": "name",
    "AccessionNumber": "accession",
    f"{SEQUENCE}[0].{STATION}": "station",
    f"{SEQUENCE}[0].{MODALITY}": "modality",
    f"{SEQUENCE}[0].{DATE}": "begins",
    f"{SEQUENCE}[0].{TIME}": "begins",
}


def _moment(row: Sequence[str]) -> str:
    date, time = row[5], row[6].ljust(6, "0")
    return f"{date[:4]}-{date[4:6]}-{date[6:]} {time[:2]}:{time[2:4]}:{time[4:]}"


def csv(home: Path) -> Site:
    path = home / "crosswalks"
    path.mkdir(parents=True)
    lines = ["mrn,name,accession,station,modality,begins"]
    lines += [",".join((*row[:5], _moment(row))) for row in STEPS]
    (path / "steps.csv").write_text("\n".join([*lines, ",nobody,A9,CT1,CT,2026-11-21"]))
    source = {"name": "file", "type": "csv", "path": "steps.csv"}
    return Site(home, {"type": "table", "source": "file", "columns": COLUMNS}, source)


def sqlite(home: Path) -> Site:
    path = home / "crosswalks"
    path.mkdir(parents=True)
    with sqlite3.connect(path / "ris.db") as connection:
        connection.execute(
            "CREATE TABLE steps (mrn, name, accession, station, modality, begins TIMESTAMP)"
        )
        rows = [(*row[:5], _moment(row)) for row in STEPS]
        connection.executemany("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    source = {"name": "db", "type": "sqlite", "path": "ris.db"}
    worklist = {"type": "table", "source": "db", "table": "steps", "columns": COLUMNS}
    return Site(home, worklist, source)


EVERY = pytest.mark.parametrize("made", [folder, csv, sqlite])


@EVERY
@pytest.mark.parametrize(
    ("within", "keys", "expected"),
    [
        ({}, {}, ["P1", "P2", "P3"]),
        ({STATION: "CT1"}, {}, ["P1", "P2"]),
        ({STATION: "ct1"}, {}, []),
        ({MODALITY: "MR"}, {}, ["P3"]),
        ({}, {"PatientName": "müller*"}, ["P2"]),
        ({}, {"PatientName": "*^?OB"}, ["P3"]),
        ({}, {"PatientID": "P1"}, ["P1"]),
        ({DATE: "20261121"}, {}, ["P1", "P2"]),
        ({DATE: "20261122-"}, {}, ["P3"]),
        ({DATE: "-20261121", MODALITY: "CT"}, {}, ["P1", "P2"]),
        ({TIME: "0700-0900"}, {}, ["P1", "P3"]),
        # One span from the afternoon of the first day to the morning of the second.
        ({DATE: "20261121-20261122", TIME: "1200-0800"}, {}, ["P2", "P3"]),
        ({DATE: "20261121-", TIME: "1515-"}, {}, ["P2", "P3"]),
        ({DATE: "20261121-20261121", TIME: "-1200"}, {}, ["P1"]),
        ({STATION: "CT1", MODALITY: "MR"}, {}, []),
    ],
)
def test_what_fits_the_keys_is_found(
    made: Any,
    within: dict[str, str],
    keys: dict[str, str],
    expected: list[str],
    tmp_path: Path,
) -> None:
    assert made(tmp_path).patients(within, **keys) == expected


@EVERY
def test_what_was_asked_for_is_answered_as_dicom_says_it(made: Any, tmp_path: Path) -> None:
    data = request({MODALITY: "MR"}, RequestedProcedureID="")
    [(found, is_certain)] = made(tmp_path).asked(data)
    assert is_certain
    answer = encode_keys(parse_keys(data, SYNTAX), found, transfer_syntax_uid=SYNTAX)
    shown = pydicom.dcmread(io.BytesIO(answer), force=True)
    assert shown.PatientName == "SMITH^BOB"
    assert shown.RequestedProcedureID in ("", None)
    assert shown.SpecificCharacterSet == "ISO_IR 192"
    assert "QueryRetrieveLevel" not in shown
    [item] = shown.ScheduledProcedureStepSequence
    assert item.ScheduledProcedureStepStartDate == "20261122"
    assert str(item.ScheduledProcedureStepStartTime).startswith("070000.5")


def test_a_key_that_no_column_gives_is_left_out_of_matching_and_told(tmp_path: Path) -> None:
    found = csv(tmp_path).asked(request(RequestedProcedureID="R1"))
    assert [is_certain for _, is_certain in found] == [False] * 3


def odd_csv(home: Path, *rows: str) -> Site:
    path = home / "crosswalks"
    path.mkdir(parents=True)
    (path / "steps.csv").write_text("\n".join(["mrn,birth,station,begins", *rows]))
    source = {"name": "file", "type": "csv", "path": "steps.csv"}
    columns = {
        "PatientID": "mrn",
        "PatientBirthDate": "birth",
        f"{SEQUENCE}[0].{STATION}": "station",
        f"{SEQUENCE}[0].{DATE}": "begins",
        f"{SEQUENCE}[0].{TIME}": "begins",
    }
    return Site(home, {"type": "table", "source": "file", "columns": columns}, source)


@pytest.mark.parametrize(
    ("row", "left", "named"),
    [
        ("P1,31.12.1981,CT1,2026-11-21 08:30", ["", "CT1", "20261121", "0830"], "3: birth"),
        ("P1,,CT1,21.11.2026 10:15", ["", "CT1", "", ""], "3: begins, 3: begins"),
        ("P1,,CT1,11/21/2026 08:30", ["", "CT1", "", ""], "3: begins, 3: begins"),
        ("P1,,CT1,2026-11-21 8:30 AM", ["", "CT1", "20261121", ""], "3: begins"),
        ("P1,,CT1,2026-02-30 08:30", ["", "CT1", "", "0830"], "3: begins"),
        ("P1,,ACCIDENT-AND-EMERGENCY-1,", ["", "", "", ""], "3: station"),
    ],
)
def test_a_value_of_a_table_that_dicom_does_not_allow_is_left_out_and_named_without_it(
    row: str, left: list[str], named: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = odd_csv(tmp_path, ",,,", row)
    [(found, _)] = site.asked(request())
    [item] = found["00400100"]["Value"]
    shown = [found["00100030"], *(item[tag] for tag in ("00400001", "00400002", "00400003"))]
    assert ["".join(one["Value"]) for one in shown] == left
    [told] = caplog.records
    assert (told.__dict__["by_row"], told.levelname) == (named, "WARNING")
    site.clock.advance(5)
    site.asked(request())
    assert len(caplog.records) == 1


def test_a_row_whose_patient_id_dicom_does_not_allow_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = odd_csv(tmp_path, "P\\1,,CT1,2026-11-21", "P2,,CT1,2026-11-21")
    assert site.patients() == ["P2"]
    assert caplog.records[0].__dict__["by_row"] == "2: mrn"


@pytest.mark.parametrize(
    "within", [{DATE: "garbage"}, {DATE: "2026-11-21"}, {DATE: "2026112"}, {TIME: "8:30 AM"}]
)
def test_a_date_or_time_that_is_none_is_refused(within: dict[str, str]) -> None:
    with pytest.raises(MalformedIdentifierError, match=r"is no (DA|TM)"):
        parse_keys(request(within), SYNTAX)


@pytest.mark.parametrize(
    "within",
    [
        {DATE: "2026.11.21", TIME: "08:30"},
        {DATE: "20261121 - 20261122", TIME: "-0830"},
        {DATE: "*", TIME: "083000.5-"},
        {DATE: "19000101-99999999", TIME: "000000-240000"},
        {DATE: "20261121\\20261122"},
    ],
)
def test_a_date_or_time_as_modalities_write_it_is_a_key(within: dict[str, str]) -> None:
    assert parse_keys(request(within), SYNTAX)


def test_a_file_that_changes_comes_or_goes_is_noticed_at_once(tmp_path: Path) -> None:
    site = folder(tmp_path)
    assert site.patients() == ["P1", "P2", "P3"]
    path = tmp_path / "worklists" / "today"
    (path / "0.WL").unlink()
    (path / "3.wl").write_bytes(encoded(step(("P4", "NEW^ONE", "A4", *STEPS[0][3:]))))
    assert site.patients() == ["P2", "P3", "P4"]


def test_what_is_no_step_is_left_out_without_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = folder(tmp_path)
    (tmp_path / "worklists" / "today" / "DOE^JANE.wl").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "worklists" / "today" / "large.wl").write_bytes(bytes(2 << 20))
    assert site.patients() == ["P1", "P2", "P3"]
    assert "some files of a worklist are no scheduled procedure steps" in caplog.text
    assert "DOE" not in caplog.text


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_whatever_a_file_holds_the_others_are_found(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "worklists" / "today"
        path.mkdir(parents=True)
        (path / "a.wl").write_bytes(data)
        (path / "b.wl").write_bytes(encoded(step(STEPS[0])))
        site = Site(Path(home), {"type": "folder", "path": "today"})
        assert "P1" in site.patients(PatientID="P1")


_KEYS = st.dictionaries(
    st.sampled_from(["PatientName", "PatientID", "AccessionNumber"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
_WITHIN = st.dictionaries(
    st.sampled_from([STATION, MODALITY, DATE, TIME, "ScheduledPerformingPhysicianName"]),
    st.text(alphabet="0123456789-*?^. CTMR:", max_size=20),
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(_KEYS, _WITHIN)
def test_whatever_the_keys_are_what_fits_is_answered(
    steps: Site, keys: dict[str, str], within: dict[str, str]
) -> None:
    data_set, item = Dataset(), Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 192"
    for one, given_ in ((data_set, keys), (item, within)):
        for keyword, value in given_.items():
            one.add(DataElement(keyword, dictionary_VR(keyword), value, validation_mode=IGNORE))
    data_set.ScheduledProcedureStepSequence = [item]
    try:
        asked = parse_keys(encoded(data_set), SYNTAX)
    except MalformedIdentifierError:
        return
    for match in steps.archives.worklist("ris").find(asked):
        if match is not None:
            assert encode_keys(asked, match.found, transfer_syntax_uid=SYNTAX)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=200))
def test_whatever_bytes_the_identifier_is_it_is_read_or_refused(steps: Site, data: bytes) -> None:
    try:
        asked = parse_keys(data, SYNTAX)
    except MalformedIdentifierError:
        return
    for match in steps.archives.worklist("ris").find(asked):
        if match is not None:
            encode_keys(asked, match.found, transfer_syntax_uid=SYNTAX)


@pytest.fixture
def steps(tmp_path: Path) -> Site:
    return csv(tmp_path)


def test_a_table_is_read_once_in_a_while_and_never_beyond_its_bound(tmp_path: Path) -> None:
    site = csv(tmp_path)
    assert len(site.patients()) == 3
    path = tmp_path / "crosswalks" / "steps.csv"
    path.write_text(path.read_text() + "\nP4,NEW^ONE,A4,CT1,CT,2026-11-23")
    assert len(site.patients()) == 3
    site.clock.advance(5)
    assert len(site.patients()) == 4
    worklist = {"type": "table", "source": "file", "columns": COLUMNS, "max_rows": 3}
    source = {"name": "file", "type": "csv", "path": "steps.csv"}
    with pytest.raises(SourceRefusedError, match="more than 3 rows"):
        Site(tmp_path, worklist, source).patients()


def gone_folder(home: Path) -> Site:
    return Site(home, {"type": "folder", "path": "nowhere"})


def gone_file(home: Path) -> Site:
    source = {"name": "file", "type": "csv", "path": "nowhere.csv"}
    return Site(home, {"type": "table", "source": "file", "columns": COLUMNS}, source)


def nobody(home: Path) -> Site:
    worklist = {"type": "dimse", "host": LOOPBACK, "port": free_port(), "ae_title": "RIS"}
    return Site(home, worklist)


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (gone_folder, SourceMisconfiguredError),
        (gone_file, SourceUnavailableError),
        (nobody, SourceUnavailableError),
    ],
)
def test_a_worklist_that_is_not_there_says_so(
    made: Any, error: type[AxiomError], tmp_path: Path
) -> None:
    with pytest.raises(error):
        made(tmp_path).patients()


@pytest.mark.parametrize(
    ("made", "words"),
    [(gone_folder, "its folder is not there"), (gone_file, "cannot be read"), (csv, None)],
)
def test_whether_it_can_be_shown_is_known_before_a_modality_asks(
    made: Any, words: str | None, tmp_path: Path
) -> None:
    fault = made(tmp_path).archives.worklist_faults()["ris"]
    assert words in fault if words else fault is None


def test_a_column_that_was_renamed_is_known_before_a_modality_asks(tmp_path: Path) -> None:
    site = csv(tmp_path)
    path = tmp_path / "crosswalks" / "steps.csv"
    path.write_text(path.read_text().replace("mrn,", "number,"))
    assert "no column 'mrn'" in (site.archives.worklist_faults()["ris"] or "")


def test_another_scp_is_not_asked_whether_it_can_be_shown(tmp_path: Path) -> None:
    assert nobody(tmp_path).archives.worklist_faults()["ris"] is None


# ---- another SCP


class Ris:
    """A Modality Worklist SCP by pynetdicom, which answers as it is told."""

    def __init__(self, answers: Any) -> None:
        self.asked: list[Dataset] = []
        self.ended = threading.Event()
        ae = AE("RIS")
        ae.add_supported_context(WorklistFind)

        def found(event: Any) -> Iterator[tuple[int, Dataset | None]]:
            self.asked.append(event.identifier)
            yield from answers()

        handlers: list[Any] = [
            (evt.EVT_C_FIND, found),
            (evt.EVT_CONN_CLOSE, lambda _: self.ended.set()),
        ]
        server: Any = ae.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
        self.server, self.port = server, server.server_address[1]


@pytest.fixture
def ris() -> Iterator[Any]:
    made: list[Ris] = []

    def start(answers: Any) -> Ris:
        made.append(Ris(answers))
        return made[-1]

    yield start
    for one in made:
        one.server.shutdown()


def in_front_of(home: Path, port: int) -> Site:
    return Site(home, {"type": "dimse", "host": LOOPBACK, "port": port, "ae_title": "RIS"})


def test_another_scp_is_asked_with_the_same_keys(ris: Any, tmp_path: Path) -> None:
    scp = ris(lambda: iter([(0xFF00, step(STEPS[1])), (0xFF01, step(STEPS[0]))]))
    site = in_front_of(tmp_path, scp.port)
    found = site.asked(request({STATION: "CT1"}, PatientName="Mü*"))
    assert [(one["00100010"]["Value"], certain) for one, certain in found] == [
        (["Müller^Jörg"], True),
        (["JONES^ANN"], False),
    ]
    [asked] = scp.asked
    assert str(asked.PatientName) == "Mü*"
    assert asked.ScheduledProcedureStepSequence[0].ScheduledStationAETitle == "CT1"


def test_a_failure_of_the_other_scp_is_told(ris: Any, tmp_path: Path) -> None:
    for status, error in ((0xA700, SourceUnavailableError), (0xA900, SourceRefusedError)):
        scp = ris(lambda status=status: iter([(status, None)]))
        with pytest.raises(error, match=f"{status:04X}H"):
            in_front_of(tmp_path, scp.port).patients()


def test_whoever_wants_no_more_ends_the_association(ris: Any, tmp_path: Path) -> None:
    def endless() -> Iterator[tuple[int, Dataset]]:
        for _ in range(10_000):
            yield 0xFF00, step(STEPS[0])

    scp = ris(endless)
    keys = parse_keys(request(), SYNTAX)
    matches = in_front_of(tmp_path, scp.port).archives.worklist("ris").find(keys)
    assert next(matches) is not None
    matches.close()  # type: ignore[attr-defined]
    assert scp.ended.wait(60)


# ---- configuration


@pytest.mark.parametrize(
    ("worklist", "words"),
    [
        ({"type": "folder", "path": "../elsewhere"}, "stays below AXIOM_HOME/worklists"),
        ({"type": "table", "source": "file", "columns": {}}, "PatientID is missing"),
        (
            {"type": "table", "source": "file", "columns": {**COLUMNS, "(0010,0020)": "mrn"}},
            "is there twice",
        ),
        (
            {"type": "table", "source": "file", "columns": {**COLUMNS, SEQUENCE: "step"}},
            "is a Sequence",
        ),
        (
            {"type": "table", "source": "file", "columns": {"PatientNam": "name"}},
            "did you mean PatientName",
        ),
        ({"type": "table", "source": "fill", "columns": COLUMNS}, "did you mean file"),
        (
            {"type": "table", "source": "file", "table": "steps", "columns": COLUMNS},
            "a csv source has none",
        ),
    ],
)
def test_what_is_wrong_is_said_in_words(worklist: dict[str, Any], words: str) -> None:
    document = {
        "crosswalk_sources": [{"name": "file", "type": "csv", "path": "steps.csv"}],
        "worklists": [{"name": "ris", **worklist}],
    }
    with pytest.raises(InvalidConfigurationError) as caught:
        check(document)
    assert words in str([str(fault) for fault in caught.value.faults])


def test_a_listener_shows_a_worklist_that_is_there() -> None:
    with pytest.raises(InvalidConfigurationError) as caught:
        check({"listeners": [{"name": "a", "worklist": "ris"}]})
    assert "there is no worklist 'ris'" in str([str(fault) for fault in caught.value.faults])
