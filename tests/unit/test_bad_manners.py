"""Stores and receivers with bad manners behind Query/Retrieve, and sources that are no DICOM nodes:
each gets a status or a state with words, and the next request is answered.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    Verification,
)

from shared.adapters.archives import Archives
from shared.adapters.sources import open_source
from shared.adapters.sources.dimse import DimseReader
from shared.config.entities import Configuration
from shared.errors import SourceMisconfiguredError, SourceUnavailableError
from tests.certificates import Authority
from tests.data import build
from tests.fakes import FakeClock, MemorySecrets
from tests.gateway import MemoryReceiver, running_gateway
from tests.peers import LOOPBACK
from tests.unit.sources.test_dicomweb import Archive, _Handler
from tests.unit.sources.test_dicomweb import archive as archive_server

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{i}" for i in (1, 2, 3))
HTML = (200, "text/html", b"<html>log in</html>")

archive = archive_server


@contextmanager
def asking(store: str, receiver_port: int = 0, **more: Any) -> Iterator[tuple[AE, int]]:
    """A workstation, and the port of a gateway in front of that store."""
    entity = {"name": "store", "type": "dicomweb", "base_url": store, "timeout_s": 30, **more}
    document: dict[str, Any] = {"sources": [entity]}
    if receiver_port:
        place = {"host": LOOPBACK, "port": receiver_port, "ae_title": "THERE", "timeout_s": 1}
        document["destinations"] = [{"name": "there", "type": "dimse", **place}]
    configuration = Configuration.model_validate_json(json.dumps(document))
    archives = Archives(lambda: configuration, MemorySecrets(), FakeClock(), Path())
    ae = AE("WORKSTATION")
    for uid in (FIND, MOVE, GET, Verification, CTImageStorage):
        ae.add_requested_context(uid)
    with running_gateway(MemoryReceiver(), archives, query_retrieve={"store": "store"}) as (
        _,
        port,
    ):
        yield ae, port


def answers(
    ae: AE, port: int, service: str, taken: Callable[[], int] = lambda: 0
) -> tuple[Dataset, int]:
    """The final response, and how many matches there were; the association answers C-ECHO then."""
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", build.uid("study")
    association = ae.associate(
        LOOPBACK,
        port,
        ext_neg=[build_role(CTImageStorage, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, lambda _: taken())],
    )
    try:
        assert association.is_established
        if service == FIND:
            responses = list(association.send_c_find(query, FIND))
        elif service == MOVE:
            responses = list(association.send_c_move(query, "THERE", MOVE))
        else:
            responses = list(association.send_c_get(query, GET))
        assert association.send_c_echo().Status == 0
    finally:
        association.release()
    return responses[-1][0], len(responses) - 1


class TestAStore:
    @pytest.mark.parametrize("service", [FIND, GET])
    def test_that_hangs_is_given_up(self, archive: Archive, service: str) -> None:
        archive.put("one")
        archive.hangs.set()
        with asking(archive.url, timeout_s=1) as (ae, port):
            status, _ = answers(ae, port, service)
        assert status.Status == {FIND: 0xA700, GET: 0xA701}[service]
        assert "no answer in time" in status.ErrorComment

    @pytest.mark.parametrize("service", [FIND, GET])
    def test_that_answers_with_a_login_page_is_a_failure_in_words(
        self, archive: Archive, service: str
    ) -> None:
        archive.instead = lambda path: HTML
        with asking(archive.url) as (ae, port):
            status, _ = answers(ae, port, service)
        assert status.Status == 0xC001
        assert "DICOMweb" in status.ErrorComment

    @pytest.mark.parametrize(
        ("spoil", "completed"),
        [
            (lambda body: b"no boundary anywhere", 0),
            (lambda body: body[: len(body) // 2], 1),
            (lambda body: body.replace(b"--b--", b"--b-"), 2),
        ],
        ids=["wrong multipart", "dropped in the middle", "without an end"],
    )
    def test_whose_answer_is_broken_fails_what_did_not_come(
        self, archive: Archive, spoil: Callable[[bytes], bytes], completed: int
    ) -> None:
        for name in ("one", "two", "three"):
            archive.put(name)
        archive.spoil = spoil
        with asking(archive.url) as (ae, port):
            status, _ = answers(ae, port, GET)
        assert status.NumberOfCompletedSuboperations == completed
        assert status.NumberOfFailedSuboperations == 3 - completed
        assert status.Status == (0xB000 if completed else 0xA702)

    def test_that_gives_fewer_and_other_than_it_shows_fails_the_rest(
        self, archive: Archive
    ) -> None:
        for name in ("one", "two", "three"):
            archive.put(name)
        others = build.ct(instance="other")
        head = b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n"
        first = next(iter(archive.stored.values()))
        archive.spoil = lambda _: head + others + head + first + head + first + b"\r\n--b--\r\n"
        with asking(archive.url) as (ae, port):
            status, _ = answers(ae, port, GET)
        assert status.Status == 0xB000
        assert status.NumberOfCompletedSuboperations == 1
        assert status.NumberOfFailedSuboperations == 2

    def test_that_counts_more_than_it_shows_is_not_waited_for(self, archive: Archive) -> None:
        archive.put("one")
        answer = archive.answer

        def boasting(path: str, query: Any) -> tuple[int, str, bytes]:
            status, kind, body = answer(path, query)
            return status, kind, body.replace(b'"Value": [1]', b'"Value": [4711]')

        archive.answer = boasting  # type: ignore[method-assign]
        with asking(archive.url) as (ae, port):
            assert answers(ae, port, FIND)[0].Status == 0x0000
            status, _ = answers(ae, port, GET)
        assert (status.Status, status.NumberOfCompletedSuboperations) == (0x0000, 1)

    def test_whose_certificate_has_expired_is_said_to_have(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with expired(tmp_path, monkeypatch) as url, asking(url) as (ae, port):
            status, _ = answers(ae, port, FIND)
        assert status.Status == 0xC001
        assert "certificate is not trusted: expired" in status.ErrorComment


@contextmanager
def expired(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A DICOMweb server whose certificate is of an authority that we trust, and over."""
    authority = Authority(folder)
    certificate, key = authority.issue("store", began=3, days=-1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    server = ThreadingHTTPServer((LOOPBACK, 0), _Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.archive = Archive()  # type: ignore[attr-defined]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"https://{LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def listening(answer: bytes | None) -> Iterator[int]:
    """What takes connections and answers each with these bytes and an end, or never a word."""
    with socket.create_server((LOOPBACK, 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                if answer is not None:
                    with connection:
                        connection.recv(4096)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in held:
                connection.close()
            thread.join()


WEB_SERVER = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>what?</html>"


class TestAMoveDestination:
    @pytest.mark.parametrize("answer", [None, WEB_SERVER, b""], ids=["hangs", "HTTP", "closes"])
    def test_that_takes_no_association_fails_the_move(
        self, archive: Archive, answer: bytes | None
    ) -> None:
        archive.put("one")
        with listening(answer) as there, asking(archive.url, there) as (ae, port):
            status, _ = answers(ae, port, MOVE)
        assert status.Status == 0xA702
        assert status.NumberOfFailedSuboperations == 1


class TestAReceiverOfCGet:
    def test_that_refuses_is_counted(self, archive: Archive) -> None:
        for name in ("one", "two"):
            archive.put(name)
        taken = iter((0xA700, 0x0000))
        with asking(archive.url) as (ae, port):
            status, _ = answers(ae, port, GET, lambda: next(taken))
        assert status.Status == 0xB000
        assert status.NumberOfFailedSuboperations == 1

    def test_that_takes_with_a_warning_is_told_so(self, archive: Archive) -> None:
        for name in ("one", "two"):
            archive.put(name)
        taken = iter((0xB000, 0x0000))
        with asking(archive.url) as (ae, port):
            status, _ = answers(ae, port, GET, lambda: next(taken))
        assert status.Status == 0xB000
        assert status.NumberOfFailedSuboperations == 0
        assert status.NumberOfWarningSuboperations == 1


class TestASource:
    @pytest.mark.parametrize("answer", [None, WEB_SERVER, b""], ids=["hangs", "HTTP", "closes"])
    def test_that_is_no_dicom_node_says_so_in_time(self, answer: bytes | None) -> None:
        with listening(answer) as there:
            place = {"host": LOOPBACK, "port": there, "ae_title": "PACS", "timeout_s": 1}
            entity = {"name": "pacs", "type": "dimse_qr", **place}
            whole = Configuration.model_validate_json(json.dumps({"sources": [entity]}))
            source = whole.sources[0]
            assert source.type == "dimse_qr"
            reader = DimseReader(source, FakeClock(), MemorySecrets())
            with pytest.raises(SourceUnavailableError, match="pacs: "):
                list(reader.search(None))

    def test_whose_certificate_has_expired_is_said_to_have(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with expired(tmp_path, monkeypatch) as url:
            entity = {"name": "web", "type": "dicomweb", "base_url": url, "timeout_s": 20}
            whole = Configuration.model_validate_json(json.dumps({"sources": [entity]}))
            reader = open_source(whole.sources[0], MemorySecrets(), FakeClock())
            try:
                with pytest.raises(
                    SourceMisconfiguredError, match="certificate is not trusted: expired"
                ):
                    list(reader.search(None))
            finally:
                reader.close()
