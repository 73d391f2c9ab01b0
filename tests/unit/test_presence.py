"""The name that gateways share, and the port that says how one of them is."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from scp_gateway.health_port import HealthPort
from shared.adapters.cloud.name_record import CloudDnsRecord, own_address
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.errors import StorageUnavailableError
from shared.pipeline.presence import COLLECTION, EVERY_S, Presence
from tests.fakes import FakeClock

NAME = "gateway.axiom.internal."


class Record:
    """One name in memory."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.writes = 0
        self.is_down = False

    def read(self) -> Sequence[str]:
        if self.is_down:
            raise StorageUnavailableError("Cloud DNS: down")
        return list(self.addresses)

    def replace(self, before: Sequence[str], after: Sequence[str]) -> bool:
        if list(before) != self.addresses:
            return False
        self.addresses, self.writes = list(after), self.writes + 1
        return True


@pytest.fixture
def documents(tmp_path: Path) -> SqliteDocumentStore:
    return SqliteDocumentStore(tmp_path / "documents.db")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class TestPresence:
    def test_of_two_gateways_both_are_found(
        self, documents: SqliteDocumentStore, clock: FakeClock
    ) -> None:
        record = Record()
        for address in ("10.20.0.9", "10.20.0.5"):
            Presence(address, documents, record, clock).look_after()
        assert record.addresses == ["10.20.0.5", "10.20.0.9"]

    def test_of_one_that_died_the_name_is_forgotten(
        self, documents: SqliteDocumentStore, clock: FakeClock
    ) -> None:
        record = Record()
        lives = Presence("10.20.0.5", documents, record, clock)
        for one in (Presence("10.20.0.9", documents, record, clock), lives):
            one.look_after()
        for _ in range(4):
            clock.advance(EVERY_S)
            lives.look_after()
        assert record.addresses == ["10.20.0.5"]
        assert documents.get(COLLECTION, "10.20.0.9") is None

    def test_that_stops_withdraws_and_the_last_leaves_the_name(
        self, documents: SqliteDocumentStore, clock: FakeClock
    ) -> None:
        record = Record()
        first, second = (
            Presence(address, documents, record, clock) for address in ("10.20.0.5", "10.20.0.9")
        )
        first.look_after()
        second.look_after()
        first.withdraw()
        assert record.addresses == ["10.20.0.9"]
        second.withdraw()
        assert record.addresses == ["10.20.0.9"]

    def test_writes_no_record_that_is_so_already(
        self, documents: SqliteDocumentStore, clock: FakeClock
    ) -> None:
        record = Record()
        presence = Presence("10.20.0.5", documents, record, clock)
        for _ in range(5):
            presence.look_after()
            clock.advance(EVERY_S)
        assert record.writes == 1

    def test_survives_that_cloud_dns_is_down(
        self, documents: SqliteDocumentStore, clock: FakeClock
    ) -> None:
        record = Record()
        record.is_down = True
        presence = Presence("10.20.0.5", documents, record, clock)
        presence.look_after()
        record.is_down = False
        clock.advance(EVERY_S)
        presence.look_after()
        assert record.addresses == ["10.20.0.5"]


class Zone(ThreadingHTTPServer):
    """Cloud DNS's rules for one zone: a deletion must name the record as it is."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), _ZoneHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _ZoneHandler(BaseHTTPRequestHandler):
    server: Zone

    def do_GET(self) -> None:
        if self.path.startswith("/computeMetadata/"):
            assert self.headers["Metadata-Flavor"] == "Google"
            self._answer(200, b"10.20.0.5\n")
            return
        assert "/dns/v1/projects/demo/managedZones/axiom-gateway/rrsets?name=" in self.path
        self._answer(self.server.status, json.dumps({"rrsets": self.server.records}).encode())

    def do_POST(self) -> None:
        change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if change.get("deletions", []) != self.server.records:
            self._answer(412, b"{}")
            return
        self.server.records = change["additions"]
        self._answer(200, b"{}")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def zone() -> Iterator[Zone]:
    with Zone() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestCloudDnsRecord:
    @pytest.fixture
    def record(self, zone: Zone) -> CloudDnsRecord:
        return CloudDnsRecord(requests.Session(), "demo", "axiom-gateway", NAME, zone.url)

    def test_is_made_and_replaced(self, record: CloudDnsRecord, zone: Zone) -> None:
        assert record.read() == []
        assert record.replace([], ["10.20.0.5"])
        assert record.replace(record.read(), ["10.20.0.5", "10.20.0.9"])
        assert record.read() == ["10.20.0.5", "10.20.0.9"]
        assert zone.records[0]["name"] == NAME

    def test_is_not_replaced_where_another_was_quicker(self, record: CloudDnsRecord) -> None:
        assert record.replace([], ["10.20.0.5"])
        assert not record.replace(["10.20.0.7"], ["10.20.0.9"])
        assert record.read() == ["10.20.0.5"]

    def test_that_we_may_not_write_is_named_as_terraform_names_it(
        self, record: CloudDnsRecord, zone: Zone
    ) -> None:
        zone.status = 403
        with pytest.raises(StorageUnavailableError, match="google_dns_managed_zone"):
            record.read()

    def test_our_own_address_is_what_the_metadata_server_says(self, zone: Zone) -> None:
        assert own_address(zone.url) == "10.20.0.5"


class TestHealthPort:
    def test_says_that_all_is_well_or_what_is_not(self) -> None:
        words = ""
        with HealthPort("127.0.0.1", 0, lambda: words, lambda: "") as port:
            url = f"http://127.0.0.1:{port.port}/health"
            with urllib.request.urlopen(url, timeout=30) as answer:
                assert json.load(answer) == {"status": "ok", "fault": ""}
            words = "it is stopping"
            with pytest.raises(urllib.error.HTTPError, match="503"):
                urllib.request.urlopen(url, timeout=30)

    def test_has_nothing_else(self) -> None:
        with (
            HealthPort("127.0.0.1", 0, lambda: "", lambda: "") as port,
            pytest.raises(urllib.error.HTTPError, match="404"),
        ):
            urllib.request.urlopen(f"http://127.0.0.1:{port.port}/", timeout=30)
