"""C-STORE under TLS (PS3.15 B.12): to peers that show who they are, and to those that do not."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shared.adapters.destinations import create
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.adapters.tls import LOOK_EVERY_S, TlsContexts, TlsUnusableError
from shared.config.entities import DimseDestination
from shared.config.tls import ListenerTls, PeerTls
from shared.errors import (
    DestinationMisconfiguredError,
    DestinationUnavailableError,
)
from shared.ports import Destination
from tests.certificates import Authority
from tests.data import build
from tests.fakes import FakeClock
from tests.unit.destinations.received import outgoing

if TYPE_CHECKING:
    from tests.peers import StartStorescp, StorescpPeer

pytest_plugins = ("tests.peers",)

Make = Callable[..., Destination]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder)


@pytest.fixture
def secrets(tmp_path: Path) -> FileSecretStore:
    return FileSecretStore(tmp_path / "secrets")


@pytest.fixture
def destination(secrets: FileSecretStore) -> Iterator[Make]:
    made: list[Destination] = []

    def make(port: int, *, timeout_s: float = 10, **tls: Any) -> Destination:
        document = {
            "name": "pacs",
            "type": "dimse",
            "host": "127.0.0.1",
            "port": port,
            "ae_title": "STORESCP",
            "timeout_s": timeout_s,
            "tls": tls,
        }
        entity = DimseDestination.model_validate_json(json.dumps(document))
        made.append(create(entity, secrets))
        return made[-1]

    yield make
    for one in made:
        one.close()


def storescp_with_tls(
    start: StartStorescp, authority: Authority, *options: str, **issued: Any
) -> StorescpPeer:
    certificate, key = authority.issue("storescp", **issued)
    return start("+tls", str(key), str(certificate), "+cf", str(authority.file), *options)


def names(authority: Authority) -> dict[str, str]:
    certificate, key = authority.issue("axiom")
    return {
        "certificate_file": str(certificate),
        "private_key_file": str(key),
        "trusted_file": str(authority.file),
    }


class TestAPeerThatShowsWhoItIs:
    @pytest.mark.parametrize("profile", ["bcp195", "modified_bcp195"])
    def test_gets_every_byte(
        self,
        storescp: StartStorescp,
        authority: Authority,
        destination: Make,
        tmp_path: Path,
        profile: str,
    ) -> None:
        peer = storescp_with_tls(storescp, authority)
        received = build.ct(rows=600, columns=600)
        sent = outgoing(tmp_path / "certificates", received)
        to = destination(peer.port, profile=profile, **names(authority))
        assert to.check() == "C-ECHO 0000H"
        # The second comes on the same association, which has to be quiet: a session ticket is no
        # unasked answer.
        for _ in range(2):
            assert to.deliver(sent) == "0000H"
        assert peer.file(sent.sop_instance_uid).read_bytes()[-600 * 600 :] == received[-600 * 600 :]

    def test_may_be_one_of_orthanc_s(self, authority: Authority, destination: Make) -> None:
        from tests.peers import OrthancPeer

        if not OrthancPeer.is_installed():
            pytest.skip("Orthanc is not installed")
        certificate, key = authority.issue("orthanc")
        with OrthancPeer(
            authority.folder / "orthanc",
            DicomTlsEnabled=True,
            DicomTlsCertificate=str(certificate),
            DicomTlsPrivateKey=str(key),
            DicomTlsTrustedCertificates=str(authority.file),
            DicomTlsRemoteCertificateRequired=True,
        ) as peer:
            to = destination(peer.port, **names(authority))
            sent = outgoing(authority.folder, build.ct())
            assert to.deliver(sent).startswith("0000H")

    def test_names_another_host_only_where_that_is_allowed(
        self, storescp: StartStorescp, authority: Authority, destination: Make
    ) -> None:
        peer = storescp_with_tls(storescp, authority, host="10.9.9.9")
        with pytest.raises(DestinationMisconfiguredError):
            destination(peer.port, **names(authority)).check()
        to = destination(peer.port, check_name=False, **names(authority))
        assert to.check() == "C-ECHO 0000H"


class TestAPeerThatIsNotTrusted:
    def test_gets_nothing(
        self, storescp: StartStorescp, authority: Authority, destination: Make, tmp_path: Path
    ) -> None:
        other = tmp_path / "other"
        other.mkdir()
        peer = storescp_with_tls(storescp, authority)
        to = destination(peer.port, trusted_file=str(Authority(other, "stranger").file))
        with pytest.raises(DestinationMisconfiguredError) as caught:
            to.deliver(outgoing(authority.folder, build.ct()))
        assert "not trusted: unknown authority" in str(caught.value)
        assert not peer.files()

    def test_because_its_certificate_has_expired_is_told_so(
        self, storescp: StartStorescp, authority: Authority, destination: Make
    ) -> None:
        peer = storescp_with_tls(storescp, authority, days=-1, began=3)
        with pytest.raises(DestinationMisconfiguredError) as caught:
            destination(peer.port, **names(authority)).check()
        assert "not trusted: expired" in str(caught.value)

    def test_because_it_speaks_in_the_clear_is_an_outage(
        self, storescp: StartStorescp, authority: Authority, destination: Make
    ) -> None:
        with pytest.raises(DestinationUnavailableError):
            destination(storescp().port, **names(authority)).check()


def test_a_peer_that_hangs_in_the_handshake_is_given_up(
    authority: Authority, destination: Make
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []
        thread = threading.Thread(target=lambda: held.append(server.accept()[0]), daemon=True)
        thread.start()
        with pytest.raises(DestinationUnavailableError):
            destination(server.getsockname()[1], timeout_s=1, **names(authority)).check()
        thread.join()
        held[0].close()


class TestContexts:
    def test_follow_a_renewed_certificate(
        self, authority: Authority, secrets: FileSecretStore
    ) -> None:
        clock = FakeClock()
        contexts = TlsContexts(secrets, clock)
        certificate, key = authority.issue("axiom", days=2)
        tls = PeerTls(certificate_file=str(certificate), private_key_file=str(key))
        first = contexts.of(tls, "pacs")
        assert contexts.of(tls, "pacs") is first
        # It is being written: what is known stays in force.
        shutil.copy(authority.file, key)
        clock.advance(LOOK_EVERY_S)
        assert contexts.of(tls, "pacs") is first
        authority.issue("axiom", days=5)
        clock.advance(LOOK_EVERY_S)
        assert contexts.of(tls, "pacs") is not first

    def test_come_from_secrets_too(self, authority: Authority, secrets: FileSecretStore) -> None:
        certificate, key = authority.issue("axiom")
        secrets.put("certificate", certificate.read_text())
        secrets.put("key", key.read_text())
        secrets.put("trusted", authority.file.read_text())
        tls = ListenerTls(
            certificate_secret="certificate", private_key_secret="key", trusted_secret="trusted"
        )
        assert TlsContexts(secrets, FakeClock()).of(tls, "main").get_ca_certs()

    @pytest.mark.parametrize("ends_in_days", [5.0, -1.0])
    def test_warn_of_their_end(
        self,
        authority: Authority,
        secrets: FileSecretStore,
        caplog: pytest.LogCaptureFixture,
        ends_in_days: float,
    ) -> None:
        certificate, key = authority.issue("axiom", days=ends_in_days, began=3)
        tls = PeerTls(certificate_file=str(certificate), private_key_file=str(key))
        contexts = TlsContexts(secrets, _RealDay())
        contexts.of(tls, "pacs")
        contexts.of(tls, "pacs")
        words = "the TLS certificate " + ("expires" if ends_in_days > 0 else "has expired")
        assert [record.message for record in caplog.records] == [words]

    def test_say_what_cannot_be_used(
        self, authority: Authority, secrets: FileSecretStore, tmp_path: Path
    ) -> None:
        certificate, key = authority.issue("axiom")
        _, other_key = authority.issue("other")
        contexts = TlsContexts(secrets, FakeClock())
        missing = str(tmp_path / "missing.pem")
        for given, words in (
            ((str(certificate), missing), "missing.pem: No such file"),
            ((str(certificate), str(other_key)), "KEY_VALUES_MISMATCH"),
            ((str(key), str(key)), "certificate"),
        ):
            tls = PeerTls(certificate_file=given[0], private_key_file=given[1])
            with pytest.raises(TlsUnusableError, match=words):
                contexts.of(tls, "pacs")
        encrypted = tmp_path / "encrypted.key"
        subprocess.run(
            ["openssl", "pkey", "-aes256", "-passout", "pass:x", "-in", key, "-out", encrypted],
            check=True,
            capture_output=True,
        )
        tls = PeerTls(certificate_file=str(certificate), private_key_file=str(encrypted))
        with pytest.raises(TlsUnusableError, match="without a password"):
            contexts.of(tls, "pacs")


class _RealDay(FakeClock):
    """Certificates are made for today."""

    def __init__(self) -> None:
        from datetime import UTC, datetime

        super().__init__()
        self.advance((datetime.now(UTC) - self.now()).total_seconds())


class TestTheConfiguration:
    @pytest.mark.parametrize(
        ("tls", "words"),
        [
            ({"trusted_file": "a.pem"}, "absolute path"),
            ({"certificate_file": "/a"}, "certificate and private_key together"),
            (
                {
                    "certificate_file": "/a",
                    "certificate_secret": "b",
                    "private_key_file": "/c",
                },
                "says certificate twice",
            ),
        ],
    )
    def test_is_told_what_is_wrong(self, tls: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            PeerTls(**tls)

    def test_of_a_listener_says_who_it_is_and_whom_it_trusts(self) -> None:
        with pytest.raises(ValueError, match="a listener shows who it is"):
            ListenerTls()
        with pytest.raises(ValueError, match="to judge callers' certificates"):
            ListenerTls(certificate_file="/a", private_key_file="/b")
        ListenerTls(certificate_file="/a", private_key_file="/b", require_client_certificate=False)
