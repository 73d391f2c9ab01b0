"""Where we connect to: not to metadata servers, whatever they are called and whoever names them."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from shared import bootstrap
from shared.adapters.cloud.gemini import GeminiModel
from shared.adapters.crosswalk.databases import engine_for
from shared.adapters.destinations.channel import connect
from shared.adapters.destinations.google_session import google_session
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.adapters.guarded_http import guarded_session
from shared.adapters.requestor import Requestor
from shared.addresses import AddressPolicy, AddressRefusedError, is_googles
from shared.config.crosswalks import MysqlSource, PostgresqlSource
from shared.config.service import check
from shared.environment import Environment
from shared.errors import InvalidConfigurationError, ProviderFailedError
from shared.standardize.remote import Prompt
from tests.unit.web_fakes import AUTHORIZED, client_over

MACHINE, CLOUD = AddressPolicy(), AddressPolicy(allows_loopback=False)
PACS = {"name": "pacs", "type": "dimse", "port": 104, "ae_title": "PACS"}


@pytest.fixture
def in_the_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy alone; the adapters stay those of one machine."""
    for module in (
        "shared.config.service",
        "shared.adapters.guarded_http",
        "shared.adapters.destinations.channel",
        "shared.adapters.crosswalk.databases",
        "shared.adapters.requestor",
        "shared.adapters.cloud.gemini",
    ):
        monkeypatch.setattr(f"{module}.policy", lambda: CLOUD)


@pytest.fixture
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """A server on loopback, and what reached it."""
    received: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                received.append(connection.recv(4096))
                if received[-1]:
                    connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1], received
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


class TestPolicy:
    @pytest.mark.parametrize(
        "host",
        [
            "169.254.169.254",
            "metadata.google.internal",
            "METADATA.google.internal.",
            "[fd20:ce::254]",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "2002:a9fe:a9fe::",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "169.254.1.1",
            "fe80::1",
            "fe80::1%eth0",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
        ],
    )
    def test_refuses_metadata_and_link_local_everywhere(self, host: str) -> None:
        assert MACHINE.refusal_of(host)
        assert CLOUD.refusal_of(host)

    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1", "localhost", "LOCALHOST.", "::1", "127.1", "0x7f000001", "0.0.0.0", "::"],
    )
    def test_refuses_its_own_machine_in_the_cloud_alone(self, host: str) -> None:
        assert CLOUD.refusal_of(host)
        assert MACHINE.refusal_of(host) is None

    @pytest.mark.parametrize(
        "host", ["10.1.2.3", "192.168.1.1", "8.8.8.8", "pacs.example", "fd12::1", "2001:db8::1", ""]
    )
    def test_lets_others_be(self, host: str) -> None:
        assert CLOUD.refusal_of(host) is None

    def test_has_exceptions_by_setting(self) -> None:
        environ = {"AXIOM_PLATFORM": "cloud", "AXIOM_ALLOWED_NETWORKS": "127.0.0.0/8, fe80::/64"}
        policy = AddressPolicy.read(environ)
        assert policy.refusal_of("localhost") is None
        assert policy.refusal(ipaddress.ip_address("fe80::1")) is None
        assert policy.refusal_of("169.254.169.254")
        with pytest.raises(ValueError, match="AXIOM_ALLOWED_NETWORKS"):
            AddressPolicy.read({"AXIOM_ALLOWED_NETWORKS": "here"})


class TestSaving:
    @pytest.mark.parametrize(
        ("part", "entity", "path"),
        [
            ("destinations", {**PACS, "host": "169.254.169.254"}, "destinations[0].host"),
            (
                "destinations",
                {"name": "a", "type": "dicomweb", "base_url": "http://metadata.google.internal/x"},
                "destinations[0].base_url",
            ),
            (
                "sources",
                {"name": "a", "type": "dicomweb", "base_url": "http://[fd20:ce::254]/x"},
                "sources[0].base_url",
            ),
            (
                "crosswalk_sources",
                {"name": "a", "type": "mysql", "host": "169.254.0.1", "database": "d"},
                "crosswalk_sources[0].host",
            ),
            (
                "listeners",
                {"name": "a", "commitment_peers": {"CT": {"host": "169.254.0.1", "port": 104}}},
                "listeners[0].commitment_peers.CT.host",
            ),
        ],
    )
    def test_refuses_what_is_spelled_out(self, part: str, entity: Any, path: str) -> None:
        with pytest.raises(InvalidConfigurationError) as refused:
            check({part: [entity]})
        assert path in {fault.path for fault in refused.value.faults}

    def test_takes_a_listener_on_any_address_of_ours(self) -> None:
        check({"listeners": [{"name": "a", "host": "0.0.0.0", "port": 104}]})

    @pytest.mark.usefixtures("in_the_cloud")
    def test_refuses_loopback_in_the_cloud(self, tmp_path: Path) -> None:
        ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(tmp_path)}))
        response = client_over(ports).post(
            "/api/v1/config/destinations", json={**PACS, "host": "127.0.0.1"}, headers=AUTHORIZED
        )
        assert response.status_code == 422
        assert response.get_json()["faults"][0]["path"] == "host"


@pytest.mark.usefixtures("in_the_cloud")
class TestConnecting:
    """A name was fine when it was saved, and stands for another address now."""

    def test_over_http_sends_nothing(self, listening: tuple[int, list[bytes]]) -> None:
        port, received = listening
        with guarded_session() as session, pytest.raises(requests.ConnectionError, match="refused"):
            session.get(f"http://localhost:{port}/latest/meta-data")
        assert received in ([], [b""])

    def test_by_dimse_sends_nothing(self, listening: tuple[int, list[bytes]]) -> None:
        port, received = listening
        with pytest.raises(AddressRefusedError, match="our own machine"):
            connect(("localhost", port), 5, None)
        assert received in ([], [b""])

    def test_of_a_database_sends_nothing(
        self, listening: tuple[int, list[bytes]], tmp_path: Path
    ) -> None:
        port, received = listening
        for source in (
            MysqlSource(name="ris", type="mysql", host="localhost", port=port, database="d"),
            PostgresqlSource(
                name="ris", type="postgresql", host="localhost", port=port, database="d"
            ),
        ):
            engine = engine_for(source, FileSecretStore(tmp_path), tmp_path, timeout_s=5)
            with pytest.raises(OperationalError) as refused:
                engine.connect()
            assert isinstance(refused.value.orig, AddressRefusedError)
        assert received in ([], [b""])

    def test_by_dimse_of_a_requestor_sends_nothing(
        self, listening: tuple[int, list[bytes]]
    ) -> None:
        port, received = listening
        requestor = Requestor("AXIOM", timeout_s=5)
        requestor.add_requested_context("1.2.840.10008.1.1")
        association = requestor.associate("localhost", port)
        assert not association.is_established
        assert isinstance(requestor.connection_error, AddressRefusedError)
        assert received in ([], [b""])

    def test_by_a_session_of_googles_sends_nothing(
        self, listening: tuple[int, list[bytes]]
    ) -> None:
        port, received = listening
        address = f"http://localhost:{port}/v1"
        with google_session("store", address) as session, pytest.raises(requests.ConnectionError):
            session.get(address)
        assert received in ([], [b""])

    def test_by_a_client_of_gemini_sends_nothing(self, listening: tuple[int, list[bytes]]) -> None:
        port, received = listening
        model = GeminiModel(
            project="p",
            location="europe-west4",
            model="m",
            timeout_s=5,
            base_url=f"http://localhost:{port}",
            is_shown_token=False,
        )
        with pytest.raises(ProviderFailedError):
            model.complete(Prompt("instruction", "data", {}))
        assert received == []


class TestTokensOfGoogles:
    @pytest.mark.parametrize(
        "url", ["https://healthcare.googleapis.com/v1", "https://x.p.googleapis.com:443/"]
    )
    def test_are_shown_to_its_services(self, url: str) -> None:
        assert is_googles(url)

    @pytest.mark.parametrize(
        "url",
        [
            "http://healthcare.googleapis.com/v1",
            "https://googleapis.com.evil.example/",
            "https://evilgoogleapis.com/",
            "https://x.googleapis.com@evil.example/",
            "https://[::1",
            "",
        ],
    )
    def test_are_shown_to_nobody_else(self, url: str) -> None:
        assert not is_googles(url)


def test_a_database_is_connected_to_where_its_name_was_looked_at(tmp_path: Path) -> None:
    """Whatever the name stands for a moment later."""
    source = PostgresqlSource(name="ris", type="postgresql", host="localhost", database="d")
    engine = engine_for(source, FileSecretStore(tmp_path), tmp_path, timeout_s=5)
    told: dict[str, Any] = {}

    def stop(*given: Any) -> None:
        told.update(given[-1])
        raise ConnectionAbortedError

    event.listen(engine, "do_connect", stop)
    with pytest.raises(ConnectionAbortedError):
        engine.connect()
    addresses = told["hostaddr"].split(",")
    assert set(addresses) <= {"127.0.0.1", "::1"}
    assert told["host"] == ",".join(["localhost"] * len(addresses))


def test_on_one_machine_loopback_is_fine(listening: tuple[int, list[bytes]]) -> None:
    port, received = listening
    with guarded_session() as session:
        assert session.get(f"http://127.0.0.1:{port}/").status_code == 204
    assert received[0].startswith(b"GET / ")
