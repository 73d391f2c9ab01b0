"""What a DICOMweb store is asked for a C-FIND, and what becomes of its answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from shared.adapters.archive import ANY_SERVER, GOOGLE, Archive, Dialect, open_archive
from shared.adapters.destinations import authorization
from shared.adapters.sources.http import SourceServer
from shared.config.entities import GoogleHealthcareDestination
from shared.dicom.query import Key, Level, Match, Query
from shared.errors import SourceMisconfiguredError, SourceUnavailableError
from shared.ports import Retrieval
from tests.data import build
from tests.fakes import FakeClock
from tests.google.healthcare import healthcare
from tests.unit.destinations.scripted_http import Answer, Request, ScriptedHttp
from tests.unit.destinations.test_create import Secrets

NAME, ID, DATE = "00100010", "00100020", "00080020"
STUDY, SERIES, SOP = "0020000D", "0020000E", "00080018"


def json_answer(*found: Any) -> Answer:
    return Answer(200, json.dumps(found).encode(), {"Content-Type": "application/dicom+json"})


def shown(study: str, name: str = "DOE^JOHN", patient: str = "P1", **more: Any) -> dict[str, Any]:
    return {
        STUDY: {"vr": "UI", "Value": [study]},
        NAME: {"vr": "PN", "Value": [{"Alphabetic": name}]},
        ID: {"vr": "LO", "Value": [patient]},
        DATE: {"vr": "DA", "Value": ["20240105"]},
        **{tag: {"vr": "IS", "Value": [value]} for tag, value in more.items()},
    }


@contextmanager
def archive_of(
    *found: Any, dialect: Dialect = ANY_SERVER, answer: Answer | None = None
) -> Iterator[tuple[Archive, ScriptedHttp]]:
    """An archive over a server that shows all that it has, whatever it is asked."""

    def respond(request: Request) -> Answer:
        is_first = dict(parse_qsl(urlsplit(request.path).query)).get("offset") in (None, "0")
        return answer or json_answer(*(found if is_first else ()))

    with ScriptedHttp(respond) as http:
        server = SourceServer(
            "archive", http.url, authorization.none(), timeout_s=20, max_connections=2
        )
        archive = Archive(server, FakeClock(), dialect)
        try:
            yield archive, http
        finally:
            archive.close()


def asked_for(http: ScriptedHttp) -> list[dict[str, str]]:
    """The keys of each search, first pages alone."""
    searches = [dict(parse_qsl(urlsplit(one.path).query)) for one in http.requests]
    return [
        {k: v for k, v in one.items() if k not in ("limit", "offset", "includefield")}
        for one in searches
        if one["offset"] == "0"
    ]


def find(archive: Archive, *keys: Key, level: Level = Level.STUDY) -> list[Match]:
    return [one for one in archive.find(Query(level, keys)) if one is not None]


@pytest.mark.parametrize(
    ("key", "sent_to_any", "sent_to_google"),
    [
        (Key(ID, "LO", ("P1",)), "P1", "P1"),
        (Key(ID, "LO", ("P*",)), "P*", None),
        (Key(NAME, "PN", ("DOE^JOHN",)), "DOE*", "DOE^JOHN"),
        (Key(NAME, "PN", ("^JOHN",)), None, "^JOHN"),
        (Key(DATE, "DA", ("20240101-",)), "20240101-", "20240101-"),
        (Key("00080030", "TM", ("10-11",)), "10-11", None),
        (Key("00081030", "LO", ("HEAD",)), "HEAD", None),
        (Key("00081030", "LO", ("A,B",)), None, None),
        (Key("00201208", "IS", ("4",)), None, None),
        (Key(ID, "LO", ("*",)), None, None),
    ],
)
def test_the_store_is_asked_for_what_it_can_match(
    key: Key, sent_to_any: str | None, sent_to_google: str | None
) -> None:
    for dialect, sent in ((ANY_SERVER, sent_to_any), (GOOGLE, sent_to_google)):
        with archive_of(dialect=dialect) as (archive, http):
            find(archive, key)
        assert asked_for(http) == [{} if sent is None else {key.tag: sent}]


def test_what_the_store_does_not_match_is_left_out_here() -> None:
    studies = [shown("1.1", "DOE^JOHN"), shown("1.2", "DOE^JANE"), shown("1.3", "ROE^JOHN")]
    with archive_of(*studies, dialect=GOOGLE) as (archive, _):
        found = find(archive, Key(NAME, "PN", ("d*^J*N",)), Key(STUDY, "UI"))
    assert [one.found[STUDY]["Value"] for one in found] == [["1.1"]]
    assert found[0].is_certain


@pytest.mark.parametrize(("tag", "fits"), [("00080050", []), ("00080080", [False])])
def test_a_key_that_is_not_shown_fits_only_if_it_need_not_be(tag: str, fits: list[bool]) -> None:
    with archive_of(shown("1.1"), dialect=GOOGLE) as (archive, _):
        found = find(archive, Key(tag, "SH", ("A1",)))
    assert [one.is_certain for one in found] == fits


def test_each_uid_of_a_list_is_asked_for_and_found_once() -> None:
    with archive_of(shown("1.1"), shown("1.2"), shown("1.3")) as (archive, http):
        found = find(archive, Key(STUDY, "UI", ("1.1", "1.2", "1.1")))
    assert [one.found[STUDY]["Value"][0] for one in found] == ["1.1", "1.2"]
    assert asked_for(http) == [{STUDY: "1.1"}, {STUDY: "1.2"}]


def test_patients_are_those_of_the_studies_and_counted() -> None:
    numbers: dict[str, Any] = {"00201208": 3}
    studies = [shown("1.1", **numbers), shown("1.2", **numbers), shown("1.3", patient="P2")]
    keys = [Key(ID, "LO"), Key("00201200", "IS"), Key("00201204", "IS")]
    with archive_of(*studies[:2]) as (archive, _):
        [patient] = find(archive, *keys, level=Level.PATIENT)
    assert patient.found["00201200"]["Value"] == [2]
    assert patient.found["00201204"]["Value"] == [6]
    with archive_of(*studies) as (archive, _):
        assert len(find(archive, Key(ID, "LO"), level=Level.PATIENT)) == 2


def test_numbers_that_are_not_shown_are_counted() -> None:
    def respond(request: Request) -> Answer:
        parts = urlsplit(request.path)
        if "offset=0" not in parts.query:
            return json_answer()
        series: Sequence[Any] = [
            {SERIES: {"Value": [f"1.1.{i}"]}, "00080060": {"Value": [modality]}}
            for i, modality in enumerate(("CT", "SR", "CT"))
        ]
        instances = [{SOP: {"Value": [f"1.1.0.{i}"]}} for i in range(5)]
        by_path = {"/studies": [shown("1.1")], "/series": series, "/instances": instances}
        return json_answer(*by_path[parts.path])

    with ScriptedHttp(respond) as http:
        server = SourceServer(
            "archive", http.url, authorization.none(), timeout_s=20, max_connections=2
        )
        keys = [Key(tag, "IS") for tag in ("00201206", "00201208")]
        [study] = find(Archive(server, FakeClock(), GOOGLE), *keys, Key("00080061", "CS"))
        server.close()
    assert study.found["00201206"]["Value"] == [3]
    assert study.found["00201208"]["Value"] == [5]
    assert study.found["00080061"]["Value"] == ["CT", "SR"]


def test_a_login_page_is_a_fault_of_the_configuration_and_503_passes() -> None:
    page = Answer(200, b"<html>Sign in</html>", {"Content-Type": "text/html"})
    with archive_of(answer=page) as (archive, _), pytest.raises(SourceMisconfiguredError):
        find(archive, Key(ID, "LO"))
    with archive_of(answer=Answer(503)) as (archive, _), pytest.raises(SourceUnavailableError):
        find(archive, Key(ID, "LO"))


def test_the_instances_of_a_patient_are_those_of_its_studies() -> None:
    instance = {
        STUDY: {"Value": ["1.1"]},
        SERIES: {"Value": ["1.1.1"]},
        SOP: {"Value": ["1.1.1.1"]},
        "00080016": {"Value": ["1.2.840.10008.5.1.4.1.1.2"]},
    }

    def respond(request: Request) -> Answer:
        parts = urlsplit(request.path)
        if "offset=0" not in parts.query:
            return json_answer()
        return json_answer(shown("1.1") if parts.path == "/studies" else instance)

    with ScriptedHttp(respond) as http:
        server = SourceServer(
            "archive", http.url, authorization.none(), timeout_s=20, max_connections=2
        )
        query = Query(Level.PATIENT, (Key(ID, "LO", ("P1",)),))
        found = list(filter(None, Archive(server, FakeClock()).instances(query)))
        server.close()
    assert [(study, one.uid) for study, one in found] == [("1.1", "1.1.1.1")]
    assert asked_for(http) == [{ID: "P1"}, {STUDY: "1.1"}]


def test_a_store_that_keeps_to_googles_rules_is_bridged_and_retrieved_from() -> None:
    with healthcare() as store:
        for name, date in (("DOE^JOHN", b"20240105"), ("ROE^JANE", b"20250607")):
            changes = {
                0x00100010: build.element(0x00100010, "PN", name),
                0x00080020: build.element(0x00080020, "DA", date),
            }
            store.put(build.ct(study=name, series=name, instance=name, changes=changes))
        named = dict(zip(_STORE_FIELDS, store.name.split("/")[1::2], strict=True))
        entity = {"name": "hc", "type": "google_healthcare", "base_url": f"{store.url}/v1", **named}
        archive = open_archive(
            GoogleHealthcareDestination.model_validate(entity), Secrets(), FakeClock()
        )
        try:
            keys = [Key(NAME, "PN", ("d*",)), Key("00180015", "CS", ("HEAD",)), Key(STUDY, "UI")]
            [study] = find(archive, *keys, Key("00201208", "IS"), Key("00080061", "CS"))
            wanted = Key(STUDY, "UI", (build.uid("DOE^JOHN"),))
            listed = list(filter(None, archive.instances(Query(Level.STUDY, (wanted,)))))
            [(uid, instance)] = listed
            retrieval = Retrieval(uid, (instance,), instance.series_instance_uid, is_whole=True)
            files = [b"".join(one.chunks) for one in archive.retrieve(retrieval)]
            stored = store.get(instance.uid)
        finally:
            archive.close()
    assert study.found[STUDY]["Value"] == [build.uid("DOE^JOHN")]
    assert study.found["00201208"]["Value"] == [1]
    assert study.found["00080061"]["Value"] == ["CT"]
    # The store does not tell the body part of a Study.
    assert not study.is_certain
    assert files == [stored]


_STORE_FIELDS = ("project_id", "location", "dataset_id", "dicom_store_id")
