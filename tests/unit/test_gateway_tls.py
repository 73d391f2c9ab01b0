"""A listener under TLS (PS3.15 B.12): dcmtk and Python's own TLS knock."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from scp_gateway.gateway import Gateway
from shared.adapters.embedded.clock import SystemClock
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.adapters.tls import LOOK_EVERY_S, TlsContexts
from tests.certificates import Authority
from tests.data import build
from tests.fakes import FakeClock
from tests.gateway import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
    MemoryReceiver,
    associate_rq,
    listener,
)
from tests.running import wait_until

_REQUEST = associate_rq([(VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN])])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def receiver() -> MemoryReceiver:
    return MemoryReceiver()


@contextmanager
def gateway_with_tls(
    receiver: MemoryReceiver, authority: Authority, clock: FakeClock | None = None, **tls: Any
) -> Iterator[int]:
    certificate, key = authority.issue("gateway")
    settings = {
        "certificate_file": str(certificate),
        "private_key_file": str(key),
        "trusted_file": str(authority.file),
        **tls,
    }
    contexts = TlsContexts(FileSecretStore(authority.folder / "secrets"), clock or SystemClock())
    gateway = Gateway(receiver, tls=contexts)
    assert gateway.apply([listener(tls=settings)]) == {}
    try:
        yield gateway.ports()["test"]
    finally:
        gateway.stop(0)


def client(authority: Authority, *, shows: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if shows:
        certificate, key = authority.issue("modality-7")
        context.load_cert_chain(certificate, key)
    return context


def connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    connection = socket.create_connection(("127.0.0.1", port), 20)
    return context.wrap_socket(connection, server_hostname="127.0.0.1")


def answer(port: int, context: ssl.SSLContext) -> bytes:
    """The type of the PDU that answers a request, nothing if TLS stands before it."""
    with suppress(ssl.SSLError, ConnectionError), connect(port, context) as connection:
        # In TLS 1.3 a client hears only now that its certificate was not good.
        connection.sendall(_REQUEST)
        return connection.recv(1)
    return b""


def storescu(port: int, file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("storescu") is None:
        pytest.skip("storescu is not installed")
    return subprocess.run(
        ["storescu", *options, "-aec", "AXIOM", "127.0.0.1", str(port), str(file)],
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestDcmtk:
    def test_stores_every_byte_and_proves_who_it_is(
        self, receiver: MemoryReceiver, authority: Authority, tmp_path: Path
    ) -> None:
        file = tmp_path / "ct.dcm"
        # More than one TLS record, and more than the gateway's buffer.
        file.write_bytes(build.ct(rows=700, columns=700))
        certificate, key = authority.issue("modality-7")
        with gateway_with_tls(receiver, authority) as port:
            done = storescu(
                port, file, "+tls", str(key), str(certificate), "+cf", str(authority.file)
            )
        assert done.returncode == 0, done.stderr
        assert len(receiver.committed) == 1
        assert receiver.committed[0].source.principal == "modality-7"
        pixels = 2 * 700 * 700
        assert bytes(receiver.committed[0].data[-pixels:]) == file.read_bytes()[-pixels:]

    def test_may_be_anonymous_where_that_is_allowed(
        self, receiver: MemoryReceiver, authority: Authority, tmp_path: Path
    ) -> None:
        file = tmp_path / "ct.dcm"
        file.write_bytes(build.ct())
        options = "+tla", "+cf", str(authority.file)
        with gateway_with_tls(receiver, authority) as port:
            assert storescu(port, file, *options).returncode != 0
        assert not receiver.committed
        with gateway_with_tls(receiver, authority, require_client_certificate=False) as port:
            assert storescu(port, file, *options).returncode == 0
        assert [kept.source.principal for kept in receiver.committed] == [""]

    def test_in_the_clear_gets_nothing(
        self, receiver: MemoryReceiver, authority: Authority, tmp_path: Path
    ) -> None:
        file = tmp_path / "ct.dcm"
        file.write_bytes(build.ct())
        with gateway_with_tls(receiver, authority) as port:
            assert storescu(port, file).returncode != 0
        assert not receiver.committed


class TestAStranger:
    def test_without_a_certificate_gets_no_association(
        self, receiver: MemoryReceiver, authority: Authority
    ) -> None:
        with gateway_with_tls(receiver, authority) as port:
            assert not answer(port, client(authority, shows=False))

    def test_with_an_expired_certificate_gets_no_association(
        self, receiver: MemoryReceiver, authority: Authority
    ) -> None:
        context = client(authority, shows=False)
        context.load_cert_chain(*authority.issue("old", days=-1, began=3))
        with gateway_with_tls(receiver, authority) as port:
            assert not answer(port, context)
            assert answer(port, client(authority)) == b"\x02"

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
    def test_of_an_old_version_is_refused(
        self, receiver: MemoryReceiver, authority: Authority
    ) -> None:
        context = client(authority)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with gateway_with_tls(receiver, authority) as port, pytest.raises((ssl.SSLError, OSError)):
            connect(port, context)

    def test_who_sends_rubbish_holds_nobody_up(
        self, receiver: MemoryReceiver, authority: Authority
    ) -> None:
        with gateway_with_tls(receiver, authority) as port:
            silent = socket.create_connection(("127.0.0.1", port), 20)
            rubbish = socket.create_connection(("127.0.0.1", port), 20)
            rubbish.sendall(b"\x16\x03\x01\xff\xff" + b"x" * 1000)
            with connect(port, client(authority)) as honest:
                honest.sendall(_REQUEST)
                assert honest.recv(1) == b"\x02"  # A-ASSOCIATE-AC
            silent.close()
            rubbish.close()


def test_an_open_association_is_silent_for_as_long_as_it_may(
    receiver: MemoryReceiver, authority: Authority
) -> None:
    certificate, key = authority.issue("gateway")
    contexts = TlsContexts(FileSecretStore(authority.folder / "secrets"), SystemClock())
    gateway = Gateway(receiver, tls=contexts)
    tls = {
        "certificate_file": str(certificate),
        "private_key_file": str(key),
        "require_client_certificate": False,
    }
    gateway.apply([listener(tls=tls, network_timeout_s=0.3)])
    try:
        with connect(gateway.ports()["test"], client(authority)) as connection:
            connection.sendall(_REQUEST)
            answer = b""
            # A-ASSOCIATE-AC, and then A-ABORT when nothing more comes.
            while piece := connection.recv(4096):
                answer += piece
        assert answer[0] == 2
        assert answer[-10] == 7
    finally:
        gateway.stop(0)


def test_a_renewed_certificate_counts_for_the_next_association(
    receiver: MemoryReceiver, authority: Authority, clock: FakeClock
) -> None:
    def serial(port: int) -> object:
        with connect(port, client(authority)) as connection:
            return (connection.getpeercert() or {})["serialNumber"]

    with gateway_with_tls(receiver, authority, clock) as port:
        first = serial(port)
        assert serial(port) == first
        authority.issue("gateway")
        clock.advance(LOOK_EVERY_S)
        wait_until(lambda: serial(port) != first, what="the new certificate")


def test_stopping_ends_an_association_that_waits(
    receiver: MemoryReceiver, authority: Authority
) -> None:
    with gateway_with_tls(receiver, authority) as port:
        connection = connect(port, client(authority))
        connection.sendall(_REQUEST)
        assert connection.recv(1) == b"\x02"
    received = b"\x02"
    while piece := connection.recv(4096):
        received += piece
    assert received[-10] == 7  # A-ABORT
    connection.close()


def test_a_listener_that_cannot_say_who_it_is_does_not_listen(
    receiver: MemoryReceiver, tmp_path: Path
) -> None:
    gateway = Gateway(receiver, tls=TlsContexts(FileSecretStore(tmp_path), SystemClock()))
    tls = {
        "certificate_file": str(tmp_path / "gone.crt"),
        "private_key_secret": "gone",
        "require_client_certificate": False,
    }
    failed = gateway.apply([listener(tls=tls)])
    gateway.stop(0)
    assert "gone.crt: No such file" in failed["test"]
    assert not gateway.ports()
