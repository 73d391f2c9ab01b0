"""Searching sources and stores over HTTP: what is asked, shown, noted, and who hangs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind as Find,
)

from shared.adapters.sources import dimse_search
from shared.dicom.key_reading import read_query
from shared.dicom.query import Level
from shared.errors import Fault
from shared.pipeline.audit_message import audit_message
from shared.times import timestamp
from shared.web import data_browser
from tests.data import build
from tests.embedded_system import System
from tests.fakes import FakeClock
from tests.peers import LOOPBACK, OrthancPeer
from tests.unit.destinations.scripted_http import Answer, Request, ScriptedHttp
from tests.unit.web_fakes import AUTHORIZED, client_over

pytest_plugins = ("tests.peers",)

QUERY = "/api/v1/data-browser/query"
CANARY = "CANARY^YELLOW"
WAIT_S = 60.0


class Browser:
    """A system with sources, and whoever searches them."""

    def __init__(self, home: Path) -> None:
        self.system = System(home)
        self.client: FlaskClient = client_over(self.system.ports)
        self.since = ""

    def configure(self, *sources: Mapping[str, Any], **more: Any) -> None:
        self.system.ports.configuration.apply({"sources": list(sources), **more}, by="test")

    def post(self, accept: Any = "application/x-ndjson", **body: Any) -> Any:
        headers = {**AUTHORIZED, "Accept": accept, "Access-Purpose": "treatment"}
        return self.client.post(QUERY, json=body, headers=headers)

    def lines(self, **body: Any) -> list[dict[str, Any]]:
        response = self.post(**body)
        assert response.status_code == 200, response.text
        return [json.loads(line) for line in response.text.splitlines()]

    def found(self, **body: Any) -> list[dict[str, Any]]:
        """The Attributes of what is shown; all sources have to end well."""
        *lines, summary = self.lines(**body)
        assert {one["state"] for one in summary["sources"]} == {"done"}, lines
        return [one["attributes"] for one in lines if one["type"] == "match"]

    def audit(self, what: str) -> list[Mapping[str, Any]]:
        page = self.system.ports.documents.query("audit", order_by="when", limit=500)
        found = [one.data for one in page.documents if one.data["when"] >= self.since]
        return [one for one in found if one["what"] == what]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    browser = Browser(tmp_path_factory.mktemp("data-browser") / "home")
    system = browser.system
    system.receive("a", series="s1", study="st1", patient_id="P1")
    system.receive("b", series="s1", study="st1", patient_id="P1")
    system.receive("c", series="s2", study="st1", patient_id="P1")
    system.receive("d", series="s3", study="st2", patient_id="P2")
    system.work()
    return browser


@pytest.fixture
def browser(running: Browser) -> Browser:
    """One system for all tests, whose audit log begins with the test."""
    running.system.clock.advance(1)
    running.since = timestamp(running.system.clock.now())
    return running


def web_source(name: str, url: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "dicomweb", "base_url": url, "poll_interval": "1d", **more}


def shown(study: str, name: str = "DOE^JOHN", **more: Any) -> dict[str, Any]:
    return {
        "0020000D": {"vr": "UI", "Value": [study]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]},
        "00100020": {"vr": "LO", "Value": ["P1"]},
        "00080020": {"vr": "DA", "Value": ["20261118"]},
        "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
        "00201208": {"vr": "IS", "Value": [3]},
        **more,
    }


def server_of(*found: Any) -> ScriptedHttp:
    """A DICOMweb server that shows all that it has, whatever it is asked."""

    def respond(request: Request) -> Answer:
        is_first = dict(parse_qsl(urlsplit(request.path).query)).get("offset") in (None, "0")
        body = json.dumps(list(found if is_first else ())).encode()
        return Answer(200, body, {"Content-Type": "application/dicom+json"})

    return ScriptedHttp(respond)


class Pacs:
    """A Query/Retrieve SCP with Studies of two Series; a test replaces how it answers."""

    def __init__(self) -> None:
        self.queries: list[Dataset] = []
        self.find: Callable[[Any], Any] = self.found
        self.cancelled, self.released = threading.Event(), threading.Event()
        self.studies = 3
        ae = AE("PACS")
        ae.add_supported_context(Find)
        server: Any = ae.start_server(
            (LOOPBACK, 0),
            block=False,
            evt_handlers=[(evt.EVT_C_FIND, lambda event: self.find(event))],
        )
        self.server = server
        self.source = {
            "name": "pacs",
            "type": "dimse_qr",
            "ae_title": "PACS",
            "host": LOOPBACK,
            "port": server.server_address[1],
            "poll_interval": "1d",
        }

    def found(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        self.queries.append(query)
        level = query.QueryRetrieveLevel
        for number in range(self.studies) if level == "STUDY" else range(2):
            if event.is_cancelled:
                self.cancelled.set()
                yield 0xFE00, None
                return
            yield 0xFF00, self.one(query, level, number)

    def one(self, query: Dataset, level: str, number: int) -> Dataset:
        one = Dataset()
        one.QueryRetrieveLevel = level
        if level == "STUDY":
            one.StudyInstanceUID = f"1.2.{number}"
            one.PatientName, one.PatientID = "DOE^JANE", "P1"
            one.StudyDate, one.ModalitiesInStudy = "20261118", ["CT", "MR"]
            one.NumberOfStudyRelatedInstances = "4"
        else:
            one.StudyInstanceUID = query.StudyInstanceUID
            one.SeriesInstanceUID = f"{query.StudyInstanceUID}.{number}"
            one.Modality = "CT" if number else "MR"
        return one

    def hang(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        yield 0xFF00, self.one(event.identifier, "STUDY", 0)
        until = threading.Event()
        while not event.is_cancelled and not self.released.is_set():
            until.wait(0.01)
        self.cancelled.set()
        yield 0xFE00, None

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    pacs = Pacs()
    yield pacs
    pacs.close()


class TestWhatWasReceived:
    def test_is_found_at_every_level(self, browser: Browser) -> None:
        expected = {"patient": 2, "study": 2, "series": 3, "instance": 4}
        for level, count in expected.items():
            found = browser.found(sources=["@received"], level=level, filters={"PatientID": "P?"})
            assert len(found) == count, level

    def test_is_matched_counted_and_told_by_keyword(self, browser: Browser) -> None:
        [study] = browser.found(sources=["@received"], filters={"PatientID": "P1*"})
        assert study["StudyInstanceUID"] == build.uid("st1")
        assert study["ModalitiesInStudy"] == "CT"
        assert study["NumberOfStudyRelatedInstances"] == 3
        filters = {"StudyInstanceUID": [build.uid("st1"), build.uid("st2")], "Modality": "CT"}
        assert len(browser.found(sources=["@received"], level="series", filters=filters)) == 3
        assert browser.found(sources=["@received"], filters={"PatientID": "P3"}) == []
        [one] = browser.found(
            sources=["@received"],
            level="instance",
            filters={"SOPInstanceUID": build.uid("d")},
            **{"return": []},
        )
        assert set(one) == {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"}

    def test_is_not_shown_once_its_file_is_deleted(self, browser: Browser) -> None:
        receipt = browser.system.receive("gone", study="gone", patient_id="gone")
        browser.system.work()
        filters = {"StudyInstanceUID": build.uid("gone")}
        assert len(browser.found(sources=["@received"], filters=filters)) == 1
        browser.system.ports.objects.delete(receipt.file.object_name)
        assert browser.found(sources=["@received"], filters=filters) == []


class TestPages:
    def test_go_on_where_each_source_stopped(self, browser: Browser, pacs: Pacs) -> None:
        with server_of(*(shown(f"1.1.{n}") for n in range(5))) as http:
            browser.configure(web_source("web", http.url), pacs.source)
            seen, cursor = [], None
            while True:
                *lines, summary = browser.lines(
                    sources=["web", "pacs"], limit=2, **({"cursor": cursor} if cursor else {})
                )
                seen += [(one["source"], one["attributes"]["StudyInstanceUID"]) for one in lines]
                cursor = summary["next_cursor"]
                if cursor is None:
                    break
        assert len(seen) == len(set(seen)) == 8

    def test_end_where_nobody_reads_so_far(
        self, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(data_browser, "MAX_MATCHES", 2)
        with server_of(*(shown(f"1.1.{n}") for n in range(5))) as http:
            browser.configure(web_source("web", http.url))
            lines = browser.lines(sources=["web"], limit=2)
        assert lines[-2]["code"] == "too-many-matches"
        assert lines[-1]["next_cursor"] is None

    def test_take_no_cursor_of_another_search(self, browser: Browser) -> None:
        with server_of(shown("1.1"), shown("1.2")) as http:
            browser.configure(web_source("web", http.url))
            cursor = browser.lines(sources=["web"], limit=1)[-1]["next_cursor"]
            assert browser.post(cursor=cursor, level="series").status_code == 400
        for foreign in ("x", "W10=", "bnVsbA=="):
            assert browser.post(cursor=foreign).status_code == 400


class TestDicomweb:
    def test_shows_values_as_people_read_them(self, browser: Browser) -> None:
        with server_of(shown("1.1", "MÜLLER^ÄNNE")) as http:
            browser.configure(web_source("web", http.url))
            [study] = browser.found(sources=["web"], filters={"PatientName": "müll*"})
        assert study["PatientName"] == "MÜLLER^ÄNNE"
        assert study["ModalitiesInStudy"] == ["CT", "SR"]
        assert study["NumberOfStudyRelatedInstances"] == 3

    def test_relative_dates_count_back_from_now(self, browser: Browser) -> None:
        with server_of(shown("1.1")) as http:
            browser.configure(web_source("web", http.url))
            assert browser.found(sources=["web"], filters={"StudyDate": "-7d"})
            assert browser.found(sources=["web"], filters={"StudyDate": "-2d"}) == []
        assert "00080020=20261114-" in http.requests[0].path

    @pytest.mark.parametrize(
        ("answer", "code"),
        [
            (Answer(200, b"<html>log in</html>", {"Content-Type": "text/html"}), "misconfigured"),
            (Answer(503), "unavailable"),
            (Answer(403), "misconfigured"),
            (Answer(None), "unavailable"),
            (Answer(200, b'[{"0020000D": 5}, 7]'), "misconfigured"),
        ],
    )
    def test_that_lies_is_told_and_keeps_nobody_else_from_answering(
        self, browser: Browser, answer: Answer, code: str
    ) -> None:
        with ScriptedHttp(lambda _: answer) as bad, server_of(shown("1.1")) as good:
            browser.configure(web_source("bad", bad.url), web_source("good", good.url))
            lines = browser.lines(sources=["bad", "good"])
        [problem] = [one for one in lines if one["type"] == "problem"]
        assert (problem["source"], problem["code"]) == ("bad", f"source-{code}")
        assert [one["source"] for one in lines if one["type"] == "match"] == ["good"]
        assert [one["state"] for one in lines[-1]["sources"]] == ["failed", "done"]

    def test_that_hangs_is_not_waited_for_and_its_request_ends(self, browser: Browser) -> None:
        asked, released = threading.Event(), threading.Event()

        def hang(_: Request) -> Answer:
            asked.set()
            released.wait(WAIT_S)
            return Answer(None)

        with ScriptedHttp(hang) as bad, server_of(shown("1.1")) as good:
            browser.configure(web_source("bad", bad.url), web_source("good", good.url))
            response = browser.post(sources=["bad", "good"])
            lines = (json.loads(line) for line in response.response)
            assert next(lines)["source"] == "good"
            assert asked.wait(WAIT_S)
            browser.system.clock.advance(31)
            rest = list(lines)
            _wait_for_no_search()
            released.set()
        problem = next(one for one in rest if one["type"] == "problem")
        assert (problem["source"], problem["code"]) == ("bad", "timed-out")
        assert [one["state"] for one in rest[-1]["sources"]] == ["timed-out", "done"]

    def test_says_how_far_it_is_while_nothing_comes(self, browser: Browser) -> None:
        asked, released = threading.Event(), threading.Event()

        def hang(_: Request) -> Answer:
            asked.set()
            released.wait(WAIT_S)
            return Answer(200, b"[]", {"Content-Type": "application/dicom+json"})

        with ScriptedHttp(hang) as http:
            browser.configure(web_source("web", http.url))

            def let_time_pass() -> None:
                asked.wait(WAIT_S)
                browser.system.clock.advance(3)

            later = threading.Thread(target=let_time_pass)
            later.start()
            # Flask's client waits for the first line.
            response = browser.post(sources=["web"])
            later.join()
            lines = (json.loads(line) for line in response.response)
            assert next(lines) == {"type": "progress", "running": {"web": 0}}
            released.set()
            assert next(lines)["type"] == "summary"


def _wait_for_no_search() -> None:
    for thread in threading.enumerate():
        if thread.name == "browse":
            thread.join(WAIT_S)
            assert not thread.is_alive()


class TestQueryRetrieve:
    def test_goes_down_to_series_by_their_study(self, browser: Browser, pacs: Pacs) -> None:
        browser.configure(pacs.source)
        pacs.studies = 2
        found = browser.found(
            sources=["pacs"],
            level="series",
            filters={"Modality": "MR", "PatientName": "doe*"},
            **{"return": ["StudyDate"]},
        )
        assert [one["SeriesInstanceUID"] for one in found] == ["1.2.0.0", "1.2.1.0"]
        assert found[0]["StudyDate"] == "20261118"
        of_study, *of_series = pacs.queries
        assert (of_study.PatientName, "Modality" in of_study) == ("doe*", False)
        assert {one.StudyInstanceUID for one in of_series} == {"1.2.0", "1.2.1"}

    def test_a_list_is_asked_for_value_by_value_and_found_once(
        self, browser: Browser, pacs: Pacs
    ) -> None:
        browser.configure(pacs.source)
        filters = {"ModalitiesInStudy": ["CT", "MR"], "StudyInstanceUID": ["1.2.0", "1.2.1"]}
        assert len(browser.found(sources=["pacs"], filters=filters)) == 2
        assert [one.ModalitiesInStudy for one in pacs.queries] == ["CT", "MR"]
        assert list(pacs.queries[0].StudyInstanceUID) == ["1.2.0", "1.2.1"]

    def test_patients_are_those_of_the_studies(self, browser: Browser, pacs: Pacs) -> None:
        browser.configure(pacs.source)
        [patient] = browser.found(sources=["pacs"], level="patient")
        assert patient["PatientID"] == "P1"

    def test_what_is_not_shown_leaves_a_match_uncertain(self, browser: Browser, pacs: Pacs) -> None:
        browser.configure(pacs.source)
        line = browser.lines(sources=["pacs"], filters={"AccessionNumber": "A1"})[0]
        assert (line["type"], line["certain"]) == ("match", False)

    def test_enough_is_cancelled(self, browser: Browser, pacs: Pacs) -> None:
        browser.configure(pacs.source)
        pacs.studies = 100_000
        *lines, summary = browser.lines(sources=["pacs"], limit=3)
        assert len(lines) == 3
        assert summary["sources"][0]["more"]
        assert pacs.cancelled.wait(WAIT_S)

    def test_whoever_hangs_up_cancels(self, browser: Browser, pacs: Pacs) -> None:
        browser.configure(pacs.source)
        pacs.find = pacs.hang
        response = browser.post(sources=["pacs"])
        assert json.loads(next(iter(response.response)))["type"] == "match"
        assert not pacs.cancelled.is_set()
        response.close()
        assert pacs.cancelled.wait(WAIT_S)
        _wait_for_no_search()

    def test_a_peer_that_does_not_listen_is_hung_up_on(
        self, browser: Browser, pacs: Pacs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dimse_search, "_CANCEL_S", 0.05)
        browser.configure(pacs.source)

        def go_on(event: Any) -> Iterator[tuple[int, Dataset | None]]:
            for number in range(1_000_000):
                if pacs.released.wait(0.01):
                    return
                yield 0xFF00, pacs.one(event.identifier, "STUDY", number)

        pacs.find = go_on
        lines = browser.lines(sources=["pacs"], limit=2)
        assert [one["type"] for one in lines] == ["match", "match", "summary"]
        _wait_for_no_search()

    def test_what_is_no_uid_is_not_noted(self, browser: Browser) -> None:
        """A peer may put anything there, a patient's name for one."""
        with server_of(shown(CANARY)) as http:
            browser.configure(web_source("web", http.url))
            assert len(browser.found(sources=["web"])) == 1
        assert CANARY not in str(browser.audit("data-browser.show"))

    def test_a_failure_is_told(self, browser: Browser, pacs: Pacs) -> None:
        browser.configure(pacs.source)
        pacs.find = lambda event: iter([(0xA700, None)])
        problem, summary = browser.lines(sources=["pacs"])
        assert problem["code"] == "source-unavailable"
        assert summary["sources"][0]["state"] == "failed"


@pytest.mark.peer("orthanc")
def test_orthanc_shows_the_same_by_dicomweb_and_by_query(
    browser: Browser, orthanc: OrthancPeer
) -> None:
    for name in ("one", "two"):
        part10 = build.ct(instance=name, series=name, study=name, patient_id="P-" + name)
        requests.post(f"{orthanc.rest_url}/instances", data=part10, timeout=60).raise_for_status()
    browser.configure(
        web_source("web", orthanc.dicomweb_url),
        {
            "name": "query",
            "type": "dimse_qr",
            "ae_title": orthanc.ae_title,
            "host": LOOPBACK,
            "port": orthanc.port,
        },
    )
    for level, filters in (
        ("patient", {"PatientID": "P-o*"}),
        ("study", {"PatientID": "P-o*"}),
        ("series", {"StudyInstanceUID": build.uid("one"), "Modality": ["CT", "MR"]}),
        ("instance", {"PatientID": "P-one"}),
    ):
        by_source = [
            browser.found(sources=[name], level=level, filters=filters, **{"return": []})
            for name in ("web", "query")
        ]
        assert len(by_source[0]) == 1
        assert by_source[0] == by_source[1], level


class TestAccess:
    def test_is_noted_with_studies_and_purpose_before_it_is_shown(self, browser: Browser) -> None:
        with server_of(shown("1.1"), shown("1.2")) as http:
            browser.configure(web_source("web", http.url))
            response = browser.post(sources=["web"], filters={"PatientName": "*"}, limit=1)
            response.get_data()
        [asked] = browser.audit("data-browser.query")
        assert (asked["id"], asked["level"], asked["purpose"]) == ("web", "study", "treatment")
        [entry] = browser.audit("data-browser.show")
        assert (entry["id"], entry["study_instance_uids"]) == ("web", ["1.1"])
        assert entry["purpose"] == "treatment"
        assert 'ParticipantObjectID="1.1"' in audit_message(entry)

    def test_leaves_no_value_in_logs_or_the_audit_log(
        self, browser: Browser, pacs: Pacs, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(0)
        bad = Answer(500, CANARY.encode(), {"Content-Type": f"text/{CANARY}"})
        with server_of(shown("1.1", CANARY)) as http, ScriptedHttp(lambda _: bad) as other:
            browser.configure(
                web_source("web", http.url), web_source("bad", other.url), pacs.source
            )
            browser.lines(filters={"PatientName": CANARY})
            browser.post(filters={"PatientName": [CANARY, {}]})
        noted = json.dumps([browser.audit(f"data-browser.{w}") for w in ("query", "show")])
        ours = "".join(str(one.__dict__) for one in caplog.records if one.name.startswith("shared"))
        assert "CANARY" not in noted + ours

    def test_so_many_searches_at_once_and_no_more(self, browser: Browser, pacs: Pacs) -> None:
        browser.configure(pacs.source)
        pacs.find = pacs.hang
        going = [browser.post(sources=["pacs"]) for _ in range(3)]
        refused = browser.post(sources=["pacs"])
        assert (refused.status_code, refused.get_json()["code"]) == (429, "too-many-searches")
        assert refused.headers["Retry-After"]
        for response in going:
            response.close()
        pacs.find = pacs.found
        assert browser.found(sources=["pacs"])

    def test_all_in_one_document_where_that_is_wanted(self, browser: Browser) -> None:
        with server_of(shown("1.1")) as http:
            browser.configure(web_source("web", http.url))
            answer = browser.post("application/json", sources=["web"]).get_json()
        assert [one["attributes"]["StudyInstanceUID"] for one in answer["items"]] == ["1.1"]
        assert (answer["problems"], answer["next_cursor"]) == ([], None)
        assert browser.post("text/html").status_code == 406


class TestWhatCanBeSearched:
    def test_is_listed(self, browser: Browser) -> None:
        browser.configure(
            web_source("web", "http://127.0.0.1:9"),
            web_source("off", "http://127.0.0.1:9", enabled=False),
            {"name": "files", "type": "folder", "path": "files"},
            destinations=[
                {"name": "vna", "type": "dicomweb", "base_url": "http://127.0.0.1:9"},
                {"name": "primary-storage", "type": "filesystem", "path": "p"},
            ],
            listeners=[
                {
                    "name": "room",
                    "ae_title": "ARCHIVE",
                    "port": 11117,
                    "query_retrieve": {"store": "vna"},
                }
            ],
        )
        response = browser.client.get("/api/v1/data-browser/sources", headers=AUTHORIZED)
        assert [(one["name"], one["can_pull"]) for one in response.get_json()["items"]] == [
            ("web", True),
            ("vna", False),
            ("@received", False),
        ]
        assert browser.post(sources=["off"]).status_code == 422

    def test_what_is_wrong_is_told_whole_and_by_its_place(self, browser: Browser) -> None:
        response = browser.post(
            level="galaxy",
            sources=["nobody"],
            nope=1,
            filters={"PatientNam": "x", "StudyDate": "soon", "StudyInstanceUID": ["1.2", "*"]},
            **{"return": ["PixelData", "StudyDate"]},
        )
        assert response.status_code == 422
        paths = {fault["path"]: fault for fault in response.get_json()["faults"]}
        assert set(paths) == {
            "level",
            "nope",
            "sources[0]",
            "filters.PatientNam",
            "filters.StudyDate",
            "filters.StudyInstanceUID[1]",
            "return[0]",
        }
        assert paths["filters.PatientNam"]["hint"] == "PatientName?"

    def test_a_key_of_a_level_below_is_refused(self, browser: Browser) -> None:
        response = browser.post(filters={"Modality": "CT"})
        [fault] = response.get_json()["faults"]
        assert "ModalitiesInStudy" in fault["hint"]


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.one_of(
            st.text(max_size=20),
            st.sampled_from(["PatientName", "StudyDate", "StudyTime", "00100020", "0040A730"]),
        ),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
            lambda inner: st.lists(inner, max_size=3),
        ),
        max_size=4,
    ),
    st.lists(st.text(max_size=20), max_size=3),
    st.sampled_from(Level),
)
def test_whatever_is_asked_is_a_query_or_told_as_faults(
    filters: Any, wanted: list[str], level: Level
) -> None:
    faults: list[Fault] = []
    query = read_query(level, filters, wanted, FakeClock().now(), faults)
    assert all(len(key.tag) == 8 for key in query.keys)
    assert all("\\" not in value for key in query.keys for value in key.values)
