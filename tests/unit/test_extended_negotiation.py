"""What a requestor of Query/Retrieve would like (PS3.4 C.5), and what is done of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from scp_gateway.extended_negotiation import answers, has_spans, is_fuzzy
from scp_gateway.query_services import QUERY_SOP_CLASSES
from shared.adapters.archive import ANY_SERVER, GOOGLE
from shared.adapters.archives import Archives
from shared.config.entities import Configuration
from shared.dicom.query import Key, Level, Match, Query
from tests.data import build
from tests.fakes import FakeClock, MemorySecrets
from tests.gateway import MemoryReceiver, running_gateway
from tests.google.healthcare import healthcare
from tests.peers import LOOPBACK
from tests.unit.test_archive import archive_of, asked_for, shown

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{i}" for i in (1, 2, 3))
WORKLIST = "1.2.840.10008.5.1.4.31"
DATE, TIME, NAME, STUDY = "00080020", "00080030", "00100010", "0020000D"
EVERYTHING = b"\1\1\1\1\1"


@pytest.mark.parametrize(
    ("sop_class", "has_fuzzy", "expected"),
    [
        (FIND, True, b"\1\1\1\0\0"),
        (FIND, False, b"\1\1\0\0\0"),
        (MOVE, True, b"\1\0\0\0\0"),
        (GET, True, b"\1\0\0\0\0"),
    ],
)
def test_what_is_asked_and_can_be_done_is_done(
    sop_class: str, has_fuzzy: bool, expected: bytes
) -> None:
    asked = {sop_class: EVERYTHING}
    assert dict(answers(asked, QUERY_SOP_CLASSES, has_fuzzy=has_fuzzy)) == {sop_class: expected}


def test_what_is_not_asked_or_not_offered_is_not_answered() -> None:
    assert dict(answers({FIND: b"\1\0\0"}, [FIND], has_fuzzy=True)) == {FIND: b"\1\0\0"}
    asked = {MOVE: b"\1", WORKLIST: b"\1", "1.2.3": b"\1"}
    assert dict(answers(asked, [FIND, WORKLIST], has_fuzzy=True)) == {}


@given(st.binary(max_size=300))
def test_whatever_is_asked_nothing_is_promised_that_was_not(wishes: bytes) -> None:
    for _, done in answers({FIND: wishes}, [FIND], has_fuzzy=True):
        assert len(done) <= 6
        assert all(wish == 1 for wish, is_done in zip(wishes, done, strict=False) if is_done)
        assert is_fuzzy(done) == (wishes[2:3] == b"\1")
        assert has_spans(done) == (wishes[1:2] == b"\1")


def found(archive: Any, query: Query) -> list[str]:
    matches: list[Match | None] = list(archive.find(query))
    return [one.found[STUDY]["Value"][0] for one in matches if one is not None]


def at(study: str, date: str, time: str) -> dict[str, Any]:
    moment = {DATE: {"vr": "DA", "Value": [date]}, TIME: {"vr": "TM", "Value": [time]}}
    return {**shown(study), **moment}


def test_a_date_and_its_time_are_one_span_where_that_was_negotiated() -> None:
    keys = (Key(DATE, "DA", ("20260705-20260707",)), Key(TIME, "TM", ("10-18",)), Key(STUDY, "UI"))
    studies = [
        at("1.1", "20260705", "0959"),
        at("1.2", "20260705", "1000"),
        at("1.3", "20260706", "0300"),
        at("1.4", "20260707", "175959"),
        at("1.5", "20260707", "1900"),
    ]
    with archive_of(*studies) as (archive, http):
        assert found(archive, Query(Level.STUDY, keys, has_spans=True)) == ["1.2", "1.3", "1.4"]
        assert asked_for(http) == [{DATE: "20260705-20260707"}]
        assert found(archive, Query(Level.STUDY, keys)) == ["1.2", "1.4"]


def test_names_are_left_to_a_store_that_matches_them_fuzzily() -> None:
    keys = (Key(NAME, "PN", ("jon an",)), Key(STUDY, "UI"))
    for dialect in (ANY_SERVER, GOOGLE):
        with archive_of(shown("1.1", "JONES^ANN"), dialect=dialect) as (archive, http):
            assert found(archive, Query(Level.STUDY, keys, is_fuzzy=True)) == ["1.1"]
            assert asked_for(http) == [{NAME: "jon an", "fuzzymatching": "true"}]
            assert found(archive, Query(Level.STUDY, keys)) == []


def negotiated(wishes: bytes) -> SOPClassExtendedNegotiation:
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid, item.service_class_application_information = FIND, wishes
    return item


def test_a_workstation_finds_names_that_are_alike_in_googles_store(tmp_path: Path) -> None:
    query = Dataset()
    query.QueryRetrieveLevel, query.PatientName, query.StudyInstanceUID = "STUDY", "ann jon", ""
    with healthcare() as store:
        for name in ("JONES^ANN", "SMITH^BOB"):
            change = {0x00100010: build.element(0x00100010, "PN", name.encode())}
            store.put(build.ct(study=name, series=name, instance=name, changes=change))
        fields = ("project_id", "location", "dataset_id", "dicom_store_id")
        named = dict(zip(fields, store.name.split("/")[1::2], strict=True))
        entity = {"name": "hc", "type": "google_healthcare", "base_url": f"{store.url}/v1", **named}
        configuration = Configuration.model_validate_json(json.dumps({"destinations": [entity]}))
        archives = Archives(lambda: configuration, MemorySecrets(), FakeClock(), tmp_path)
        ae = AE("WORKSTATION")
        ae.add_requested_context(FIND)
        with running_gateway(MemoryReceiver(), archives, query_retrieve={"store": "hc"}) as (
            _,
            port,
        ):
            answered: dict[bytes, list[str]] = {}
            for wishes in (b"\1\0\1\0", b"\1\0\0\0"):
                association = ae.associate(LOOPBACK, port, ext_neg=[negotiated(wishes)])
                try:
                    assert association.acceptor.sop_class_extended == {FIND: wishes}
                    answered[wishes] = [
                        str(match.StudyInstanceUID)
                        for _, match in association.send_c_find(query, FIND)
                        if match is not None
                    ]
                finally:
                    association.release()
    assert answered == {b"\1\0\1\0": [build.uid("JONES^ANN")], b"\1\0\0\0": []}
