"""DICOMweb servers as sources: those that keep to the Standard, and all the others."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.adapters.sources import qido
from shared.dicom.relative_dates import absolute
from shared.pipeline import ingest
from shared.pipeline.copies import Copies, Copy
from shared.pipeline.dicom_store_name import StoredInstanceName
from shared.pipeline.envelope import PushedMessage
from shared.pipeline.ingest import Places
from shared.pipeline.polling import Poller
from shared.pipeline.source_states import state_of
from tests.data import build
from tests.embedded_system import System
from tests.google.healthcare import STORE, HealthcareStore, healthcare

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)


class Archive:
    """A DICOMweb server over Part 10 files; a test replaces what it does."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str, str], bytes] = {}
        self.requests: list[tuple[str, dict[str, str], Mapping[str, str]]] = []
        self.url = ""
        self.authorization = ""
        self.most_per_page = 1000
        self.ignores_offset = self.ignores_limit = False
        self.is_chunked = True
        # Given a path, answers in the archive's place: status, Content-Type, body; or None.
        self.instead: Callable[[str], tuple[int, str, bytes] | None] = lambda path: None
        # Changes the body of what is retrieved.
        self.spoil: Callable[[bytes], bytes] = lambda body: body
        self.hangs = threading.Event()
        self.released = threading.Event()

    def put(self, instance: str, series: str = "s1", study: str = "study", **more: Any) -> str:
        uids = (build.uid(study), build.uid(series), build.uid(instance))
        self.stored[uids] = build.ct(instance=instance, series=series, study=study, **more)
        return uids[2]

    def answer(self, path: str, query: Mapping[str, str]) -> tuple[int, str, bytes]:
        words = path.strip("/").split("/")
        uids = words[1::2]
        fitting = [k for k in self.stored if k[: len(uids)] == tuple(uids)]
        level = words[-1] if len(words) % 2 else ""
        if level in ("studies", "series", "instances"):
            depth = ("studies", "series", "instances").index(level) + 1
            found = list(dict.fromkeys(k[:depth] for k in fitting))
            start = 0 if self.ignores_offset else int(query.get("offset", 0))
            count = len(found) if self.ignores_limit else int(query.get("limit", 100))
            page = found[start : start + min(count, self.most_per_page)]
            if not page:
                return 204, "", b""
            tags = ("0020000D", "0020000E", "00080018")
            shown = [
                {tag: {"vr": "UI", "Value": [uid]} for tag, uid in zip(tags, one, strict=False)}
                | {"00201208": {"vr": "IS", "Value": [sum(k[:1] == one[:1] for k in self.stored)]}}
                for one in page
            ]
            return 200, "application/dicom+json", json.dumps(shown).encode()
        if not fitting:
            return 404, "text/plain", b"gone"
        head = b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n"
        body = b"".join(head + self.stored[k] for k in fitting) + b"\r\n--b--\r\n"
        kind = 'multipart/related; type="application/dicom"; boundary=b'
        return 200, kind, self.spoil(body)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        archive: Archive = self.server.archive  # type: ignore[attr-defined]
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        archive.requests.append((parts.path, query, dict(self.headers)))
        if archive.authorization and self.headers.get("Authorization") != archive.authorization:
            self._send(401, "text/plain", b"")
            return
        if archive.hangs.is_set():
            archive.released.wait(30)
            self.close_connection = True
            return
        instead = archive.instead(parts.path)
        self._send(*(instead or archive.answer(parts.path, query)))

    def do_POST(self) -> None:
        archive: Archive = self.server.archive  # type: ignore[attr-defined]
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        archive.requests.append((self.path, dict(parse_qsl(form)), dict(self.headers)))
        token = {"access_token": f"t{len(archive.requests)}", "expires_in": 3600}
        archive.authorization = f"Bearer {token['access_token']}"
        self._send(200, "application/json", json.dumps(token).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        archive: Archive = self.server.archive  # type: ignore[attr-defined]
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        if archive.is_chunked and body:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(body), 700):
                piece = body[start : start + 700]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def archive() -> Iterator[Archive]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    archive = Archive()
    archive.url = f"http://127.0.0.1:{server.server_port}"
    server.archive = archive  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield archive
    archive.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


class Polled:
    """A system that polls the archive."""

    def __init__(self, home: Path, source: Mapping[str, Any]) -> None:
        self.system = System(home)
        self.configure(source)
        self.poller = Poller(self.system.ports)

    def configure(self, source: Mapping[str, Any]) -> None:
        whole = {"name": "pacs", "poll_interval": 60, "lookback": "1d", **source}
        self.system.ports.configuration.apply({"sources": [whole]}, by="test")

    def poll(self) -> Mapping[str, Any]:
        self.poller.run()
        self.system.clock.advance(60)
        return state_of("pacs", self.system.ports)

    def instances(self) -> list[str]:
        self.system.work()
        page = self.system.ports.documents.query("instances", limit=500)
        return sorted(document.data["sop_instance_uid"] for document in page.documents)

    def exceptions(self) -> list[Mapping[str, Any]]:
        self.system.work()
        return [one.data for one in self.system.ports.documents.query("exceptions").documents]


@pytest.fixture
def polled(archive: Archive, tmp_path: Path) -> Polled:
    return Polled(tmp_path / "home", {"type": "dicomweb", "base_url": archive.url, "page_size": 3})


class TestSearch:
    @pytest.mark.parametrize(
        "oddity", [{}, {"ignores_offset": True, "ignores_limit": True}, {"most_per_page": 2}]
    )
    def test_all_pages_are_seen_however_the_server_pages(
        self, archive: Archive, polled: Polled, oddity: Mapping[str, Any]
    ) -> None:
        for name, value in oddity.items():
            setattr(archive, name, value)
        uids = [archive.put(f"i{n}", study=f"study-{n}") for n in range(7)]
        uids += [archive.put(f"j{n}", study="study-0") for n in range(7)]
        polled.poll()
        assert polled.instances() == sorted(uids)

    def test_a_server_that_ignores_offset_alone_ends(
        self, archive: Archive, polled: Polled
    ) -> None:
        archive.ignores_offset = True
        for n in range(7):
            archive.put(f"i{n}", study=f"study-{n}")
        assert polled.poll()["totals"]["processed"] == 3

    def test_what_is_configured_is_asked_for(self, archive: Archive, polled: Polled) -> None:
        polled.configure(
            {
                "type": "dicomweb",
                "base_url": archive.url,
                "query_params": {"ModalitiesInStudy": ["CT", "MR"], "StudyDate": "-1d"},
            }
        )
        polled.poll()
        [path, query, headers] = archive.requests[0]
        assert path == "/studies"
        assert query["StudyDate"] == "20261120-"
        assert query["ModalitiesInStudy"] == "MR"  # the last of both
        assert headers["Accept"] == "application/dicom+json"

    @pytest.mark.parametrize(
        ("level", "expected"), [("SERIES", ["a", "b"]), ("IMAGE", ["a", "b", "c"])]
    )
    def test_lower_levels_bring_what_fits_itself(
        self, archive: Archive, polled: Polled, level: str, expected: list[str]
    ) -> None:
        for name, series in (("a", "s1"), ("b", "s1"), ("c", "s2")):
            archive.put(name, series=series)
        if level == "SERIES":
            shown = {"0020000D": build.uid("study"), "0020000E": build.uid("s1")}
            found = [{tag: {"vr": "UI", "Value": [uid]} for tag, uid in shown.items()}]
            answers = [(200, "application/dicom+json", json.dumps(found).encode())]
            archive.instead = lambda path: answers[0] if path == "/series" else None
        source = {"type": "dicomweb", "base_url": archive.url, "query_level": level}
        polled.configure(source)
        polled.poll()
        assert polled.instances() == sorted(build.uid(name) for name in expected)

    @pytest.mark.parametrize(
        ("given_", "expected"),
        [
            ("-1d", "20261120-"),
            ("-7d-", "20261114-"),
            ("-2w--1w", "20261107-20261114"),
            ("-12h", "20261120-"),
            ("20261101-", "20261101-"),
            ("CT", "CT"),
        ],
    )
    def test_relative_dates_count_back_from_now(self, given_: str, expected: str) -> None:
        assert absolute(given_, NOW) == expected

    @settings(max_examples=50, deadline=None)
    @given(
        st.recursive(
            st.none() | st.integers() | st.text(),
            lambda s: st.lists(s) | st.dictionaries(st.text(), s),
        )
    )
    def test_whatever_stands_in_an_answer_gives_a_text(self, value: Any) -> None:
        for found in ({"0020000D": value}, {"0020000D": {"Value": value}}):
            assert isinstance(qido.text(found, "0020000D"), str)
            assert set(qido.uid(found, "0020000D")) <= set("0123456789.")
            assert isinstance(qido.signature(found), str)


class TestRetrieve:
    @pytest.mark.parametrize("is_chunked", [True, False])
    def test_series_come_whole_in_one_request(
        self, archive: Archive, polled: Polled, is_chunked: bool
    ) -> None:
        archive.is_chunked = is_chunked
        uids = [archive.put(f"i{n}", series=f"s{n % 2}", rows=40) for n in range(6)]
        polled.poll()
        assert polled.instances() == sorted(uids)
        retrieved = [headers for path, _, headers in archive.requests if len(path.split("/")) == 5]
        assert len(retrieved) == 2
        assert all("transfer-syntax=*" in headers["Accept"] for headers in retrieved)

    def test_a_server_that_gives_no_series_is_asked_for_each_instance(
        self, archive: Archive, polled: Polled
    ) -> None:
        uids = [archive.put(f"i{n}") for n in range(3)]
        archive.instead = lambda path: (501, "", b"") if len(path.split("/")) == 5 else None
        polled.poll()
        assert polled.instances() == sorted(uids)

    @pytest.mark.parametrize("status", [400, 406, 415])
    def test_a_server_that_knows_no_wild_card_of_syntaxes_is_asked_without(
        self, archive: Archive, polled: Polled, status: int
    ) -> None:
        archive.put("a")
        archive.put("b")

        def refusing(path: str) -> tuple[int, str, bytes] | None:
            accept = archive.requests[-1][2]["Accept"]
            return (status, "text/plain", b"what?") if "transfer-syntax" in accept else None

        archive.instead = refusing
        assert polled.poll()["totals"]["processed"] == 2
        assert len([1 for path, _, _ in archive.requests if path.endswith(build.uid("s1"))]) == 2

    def test_a_bare_instance_is_taken_too(self, archive: Archive, polled: Polled) -> None:
        uid = archive.put("one")
        [data] = archive.stored.values()
        archive.instead = lambda path: (
            (200, "application/dicom", data) if path.endswith(f"/instances/{uid}") else None
        )
        polled.poll()
        assert polled.instances() == [uid]


class TestSigningIn:
    def test_basic(self, archive: Archive, polled: Polled) -> None:
        archive.put("one")
        archive.authorization = "Basic " + base64.b64encode(b"me:pass").decode()
        credentials = {"username": "me", "password": "pass"}
        source = {"type": "dicomweb", "base_url": archive.url}
        polled.configure({**source, "auth_type": "basic", "credentials": credentials})
        assert polled.poll()["totals"]["processed"] == 1

    def test_oauth_client_credentials_and_a_token_that_ends_early(
        self, archive: Archive, polled: Polled
    ) -> None:
        archive.put("one")
        archive.authorization = "nobody yet"
        polled.configure(
            {
                "type": "dicomweb",
                "base_url": archive.url,
                "auth_type": "oauth2_client_credentials",
                "token_url": f"{archive.url}/token",
                "scope": "dicom",
                "credentials": {"client_id": "me", "client_secret": "pass"},
            }
        )
        assert polled.poll()["totals"]["processed"] == 1
        [form] = [form for path, form, _ in archive.requests if path == "/token"]
        assert form == {"grant_type": "client_credentials", "scope": "dicom"}
        archive.authorization = "another than was given"
        assert polled.poll()["state"] == "idle"

    def test_a_wrong_secret_is_said_and_not_shown(self, archive: Archive, polled: Polled) -> None:
        archive.authorization = "Bearer right"
        source = {"type": "dicomweb", "base_url": archive.url, "auth_type": "bearer_token"}
        polled.configure({**source, "credentials": {"token": "wrong-secret"}})
        state = polled.poll()
        assert state["state"] == "failing"
        assert state["last_error"] == "pacs: Unauthorized: HTTP 401"


class TestBadServers:
    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            ((200, "text/html", b"<html>log in</html>"), "not as a DICOMweb server: HTTP 200"),
            ((200, "application/dicom+json", b"[{]"), "not as a DICOMweb server"),
            ((200, "application/dicom+json", b"7"), "not as a DICOMweb server"),
            ((503, "text/plain", b"later"), "server error: HTTP 503"),
            ((404, "text/plain", b"no"), "is this its DICOMweb address?"),
        ],
    )
    def test_what_is_no_answer_to_a_search_is_said(
        self, archive: Archive, polled: Polled, answer: tuple[int, str, bytes], words: str
    ) -> None:
        archive.instead = lambda path: answer
        state = polled.poll()
        assert state["state"] == "failing"
        assert words in state["last_error"]

    def test_one_that_hangs_fails_in_time(self, archive: Archive, polled: Polled) -> None:
        source = {"type": "dicomweb", "base_url": archive.url, "timeout_s": 0.3}
        polled.configure(source)
        archive.hangs.set()
        assert "no answer in time" in polled.poll()["last_error"]

    @pytest.mark.parametrize("is_chunked", [True, False])
    def test_one_that_drops_in_the_middle_is_asked_for_the_rest(
        self, archive: Archive, polled: Polled, is_chunked: bool
    ) -> None:
        archive.is_chunked = is_chunked
        uids = [archive.put(f"i{n}") for n in range(3)]
        archive.spoil = lambda body: body[: len(body) * 2 // 3]
        assert polled.poll()["totals"]["processed"] < 3
        archive.spoil = lambda body: body
        polled.poll()
        assert polled.instances() == sorted(uids)
        assert polled.exceptions() == []

    def test_wrong_multipart_goes_to_the_exception_log_in_the_end(
        self, archive: Archive, polled: Polled
    ) -> None:
        archive.put("one")
        polled.configure(
            {"type": "dicomweb", "base_url": archive.url, "limits": {"max_attempts": 2}}
        )
        archive.spoil = lambda body: b"no boundary anywhere"
        for _ in range(3):
            polled.poll()
            polled.system.clock.advance(600)
        [entry] = polled.exceptions()
        assert entry["code"] == "not-retrieved"
        assert "wrong multipart" in entry["message"]

    def test_html_in_the_place_of_an_instance_is_said_on_the_source(
        self, archive: Archive, polled: Polled
    ) -> None:
        archive.put("one")
        html = (200, "text/html", b"<html>your session has ended</html>")
        archive.instead = lambda path: html if "/instances/" in path else None
        assert "not as a DICOMweb server" in polled.poll()["last_error"]

    def test_one_that_gives_fewer_than_it_shows_is_asked_again(
        self, archive: Archive, polled: Polled
    ) -> None:
        for n in range(3):
            archive.put(f"i{n}")
        full = dict(archive.stored)
        original = archive.answer

        def fewer(path: str, query: Mapping[str, str]) -> tuple[int, str, bytes]:
            archive.stored = full
            if len(path.split("/")) == 5:
                archive.stored = dict(list(full.items())[:2])
            return original(path, query)

        archive.answer = fewer  # type: ignore[method-assign]
        assert polled.poll()["totals"]["processed"] == 2
        archive.answer = original  # type: ignore[method-assign]
        archive.stored = full
        assert polled.poll()["totals"]["processed"] == 3


def test_a_store_that_asks_for_patience_gets_it(tmp_path: Path) -> None:
    with healthcare() as store:
        names = ("project_id", "location", "dataset_id", "dicom_store_id")
        address = dict(zip(names, STORE.split("/")[1::2], strict=True))
        source = {"type": "google_healthcare", "base_url": f"{store.url}/v1", **address}
        polled = Polled(tmp_path / "home", source)
        store.answer_next(429, {"Retry-After": "600"})
        assert "Too Many Requests" in polled.poll()["last_error"]
        asked = len(store.requests)
        polled.poll()
        assert len(store.requests) == asked
        polled.system.clock.advance(600)
        assert polled.poll()["state"] == "idle"


def test_a_healthcare_store_is_polled_within_the_limits_of_its_statement(tmp_path: Path) -> None:
    """The fake refuses what Google's conformance statement does not list."""
    with healthcare() as store:
        project, location, dataset, dicom_store = STORE.split("/")[1::2]
        polled = Polled(
            tmp_path / "home",
            {
                "type": "google_healthcare",
                "project_id": project,
                "location": location,
                "dataset_id": dataset,
                "dicom_store_id": dicom_store,
                "base_url": f"{store.url}/v1",
                "lookback": "30000d",
            },
        )
        for n in range(3):
            store.put(build.ct(instance=f"i{n}", series=f"s{n % 2}"))
        state = polled.poll()
        assert state["totals"]["processed"] == 3, state
        store.put(build.ct(instance="late"))
        polled.poll()
        assert polled.instances() == sorted(build.uid(n) for n in ("i0", "i1", "i2", "late"))


class TestAHealthcareStoreThatTellsOfWhatIsStored:
    """Notifications and polls of one store, and what went there from here."""

    def address(self, store: HealthcareStore) -> dict[str, str]:
        names = ("project_id", "location", "dataset_id", "dicom_store_id")
        address = dict(zip(names, STORE.split("/")[1::2], strict=True))
        return {"type": "google_healthcare", "base_url": f"{store.url}/v1", **address}

    def polled(self, store: HealthcareStore, home: Path) -> Polled:
        return Polled(home, {**self.address(store), "lookback": "30000d"})

    def notify(self, polled: Polled, store: HealthcareStore, path: str) -> None:
        @contextmanager
        def fetched(stored: StoredInstanceName) -> Iterator[Iterator[bytes]]:
            part10 = store.get(stored.sop_instance_uid)
            assert part10 is not None
            yield iter([part10])

        def none(_: Any) -> Any:
            raise AssertionError

        places = Places(frozenset(), none, none, fetched)
        pushed = PushedMessage(path.encode(), "m1", {"versionId": "1"})
        ingest.take_stored(pushed, polled.system.ports, places)

    def test_is_asked_only_for_what_no_notification_brought(self, tmp_path: Path) -> None:
        with healthcare() as store:
            polled = self.polled(store, tmp_path / "home")
            told = [store.put(build.ct(instance=f"i{n}", series="s1")) for n in range(3)]
            for path in told:
                self.notify(polled, store, path)
            store.put(build.ct(instance="missed", series="s1"))
            assert polled.poll()["totals"]["found"] == 1
            assert polled.poll()["totals"]["found"] == 1
            assert polled.instances() == sorted(build.uid(n) for n in ("i0", "i1", "i2", "missed"))

    def test_is_not_asked_for_what_went_there_from_here(self, tmp_path: Path) -> None:
        """Else each Instance that is delivered there would come back."""
        with healthcare() as store:
            polled = self.polled(store, tmp_path / "home")
            ports = polled.system.ports
            there = {"name": "there", **self.address(store)}
            document = {"destinations": [there], "settings": {"default_route": ["there"]}}
            ports.configuration.apply(document, by="test")
            store.put(build.ct(instance="ours"))
            store.put(build.ct(instance="theirs"))
            destination = ports.configuration.get().destination("there")
            assert destination is not None
            copies = Copies(ports.documents, ports.clock)
            copy = Copy("there", destination.address, build.uid("ours"), "f", "r", NOW.isoformat())
            copies.claim(copy)
            assert polled.poll()["totals"]["found"] == 1, "while it is on its way"
            copies.confirm(copy)
            polled.system.clock.advance(3600)
            assert polled.poll()["totals"]["found"] == 1
            assert polled.instances() == [build.uid("theirs")]
