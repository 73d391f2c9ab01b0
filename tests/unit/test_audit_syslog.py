"""Audit messages at their repository: by syslog, and whatever happens to it meanwhile."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest

from shared import audit, metrics
from shared.adapters.syslog import SyslogCollector, SyslogSettings
from shared.audit import ORIGIN, SPOOL, AuditLog, Origin
from shared.pipeline import audit_forwarding
from shared.pipeline.audit_forwarding import Forwarder
from shared.ports import DocumentStore
from tests.certificates import Authority
from tests.embedded_system import System
from tests.syslog_repository import Repository

_LINE = re.compile(
    rb"<85>1 (\d{4}-\d\d-\d\dT[\d:.]+Z) (\S+) axiom-flow (\d+) DICOM\+RFC3881 - \xef\xbb\xbf(.*)"
)


@pytest.fixture
def repository() -> Iterator[Repository]:
    with closing(Repository()) as found:
        yield found


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path / "home")
    audit.spool_entries()
    yield system
    audit.spool_entries(False)


def add(system: System, id: str) -> None:
    AuditLog(system.ports.documents, system.clock).add(who="ada", what="instances.read", id=id)


def forwarder(system: System, collector: audit_forwarding.Collector) -> Forwarder:
    return Forwarder(system.ports.documents, system.clock, collector)


def spooled(documents: DocumentStore) -> int:
    return documents.count(SPOOL)


class TestSyslog:
    def test_brings_each_entry_with_its_purpose_in_the_order_of_time(
        self, system: System, repository: Repository
    ) -> None:
        token = ORIGIN.set(Origin("10.1.2.3", "a second opinion\nTREAT"))
        for number in range(3):
            add(system, f"receipt-{number}")
            system.clock.advance(1.0)
        ORIGIN.reset(token)
        settings = SyslogSettings.read({"AXIOM_AUDIT_SYSLOG": f"tcp://127.0.0.1:{repository.port}"})
        assert settings is not None
        forwarder(system, SyslogCollector(settings)).run(for_s=60)
        lines = [_LINE.fullmatch(message) for message in repository.wait_for(3)]
        assert spooled(system.ports.documents) == 0
        texts = [line[4].decode() for line in lines if line is not None]
        messages = [ElementTree.fromstring(text) for text in texts]
        told = [m.findall("ParticipantObjectIdentification")[-1] for m in messages]
        assert [one.get("ParticipantObjectID") for one in told] == [
            *("receipt-0", "receipt-1", "receipt-2")
        ]
        purposes = [m.find("EventIdentification/PurposeOfUse") for m in messages]
        assert all(
            p is not None and p.get("originalText") == "a second opinion\nTREAT" for p in purposes
        )

    def test_speaks_tls_both_ways_and_to_nobody_it_does_not_trust(
        self, system: System, tmp_path: Path
    ) -> None:
        authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
        certificate, key = authority.issue("repository")
        ours, our_key = authority.issue("ours")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(certificate, key)
        add(system, "receipt-1")
        with closing(Repository(context)) as repository:
            environ = {
                "AXIOM_AUDIT_SYSLOG": f"tls://127.0.0.1:{repository.port}",
                "AXIOM_AUDIT_SYSLOG_CA": str(stranger.file),
                "AXIOM_AUDIT_SYSLOG_CERTIFICATE": str(ours),
                "AXIOM_AUDIT_SYSLOG_KEY": str(our_key),
            }
            for trusted, left in ((stranger, 1), (authority, 0)):
                settings = SyslogSettings.read(
                    {**environ, "AXIOM_AUDIT_SYSLOG_CA": str(trusted.file)}
                )
                assert settings is not None
                forwarder(system, SyslogCollector(settings)).run(for_s=60)
                assert spooled(system.ports.documents) == left
            assert b"receipt-1" in repository.wait_for(1)[0]

    def test_goes_as_datagrams_too(self, system: System) -> None:
        add(system, "receipt-1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.settimeout(60)
            port = listener.getsockname()[1]
            settings = SyslogSettings.read({"AXIOM_AUDIT_SYSLOG": f"udp://127.0.0.1:{port}"})
            assert settings is not None
            forwarder(system, SyslogCollector(settings)).run(for_s=60)
            assert _LINE.fullmatch(listener.recv(65536))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"AXIOM_AUDIT_SYSLOG": "repository:6514"},
            {"AXIOM_AUDIT_SYSLOG": "http://repository"},
            {"AXIOM_AUDIT_SYSLOG": "tls://repository:port"},
            {"AXIOM_AUDIT_SYSLOG": "tls://r", "AXIOM_AUDIT_SYSLOG_CA": "/nowhere.pem"},
            {"AXIOM_AUDIT_SYSLOG": "tls://r", "AXIOM_AUDIT_SYSLOG_KEY": __file__},
        ],
    )
    def test_settings_that_are_wrong_are_named(self, wrong: dict[str, str]) -> None:
        with pytest.raises(ValueError, match=list(wrong)[-1]):
            SyslogSettings.read(wrong)

    def test_has_the_ports_of_its_standards(self) -> None:
        ports = {
            scheme: found.port
            for scheme in ("tls", "tcp", "udp")
            if (found := SyslogSettings.read({"AXIOM_AUDIT_SYSLOG": f"{scheme}://r"}))
        }
        assert ports == {"tls": 6514, "tcp": 601, "udp": 514}
        assert SyslogSettings.read({}) is None


class Moody:
    """A repository that is away until it is told otherwise."""

    def __init__(self) -> None:
        self.is_away = True
        self.asked = 0
        self.got: list[str] = []

    def send(self, messages: Sequence[tuple[str, str]]) -> None:
        self.asked += 1
        if self.is_away:
            raise ConnectionRefusedError(111, "Connection refused")
        self.got += [text for _, text in messages]


def lost() -> float:
    counted = metrics.PROCESS.snapshot().get("axiom_audit_messages", [])
    return float(sum(number for labels, number in counted if labels == ["lost"]))


class TestARepositoryThatIsAway:
    def test_gets_all_when_it_is_back(self, system: System) -> None:
        moody = Moody()
        sends = forwarder(system, moody)
        for number in range(3):
            add(system, f"receipt-{number}")
            sends.run(for_s=60)
            system.clock.advance(1.0)
        assert moody.asked == 1  # and is left alone for a while
        moody.is_away = False
        system.clock.advance(31.0)
        sends.run(for_s=60)
        assert [re.findall("receipt-.", text) for text in moody.got] == [
            *(["receipt-0"], ["receipt-1"], ["receipt-2"])
        ]
        assert spooled(system.ports.documents) == 0

    def test_costs_the_oldest_messages_once_the_spool_is_full(
        self, system: System, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit_forwarding, "MAX_SPOOLED", 2)
        before = lost()
        for number in range(5):
            add(system, f"receipt-{number}")
            system.clock.advance(1.0)
        moody = Moody()
        sends = forwarder(system, moody)
        sends.run(for_s=60)
        assert lost() - before == 3
        moody.is_away = False
        system.clock.advance(31.0)
        sends.run(for_s=60)
        assert [re.findall("receipt-.", text) for text in moody.got] == [
            *(["receipt-3"], ["receipt-4"])
        ]


def test_nothing_is_spooled_where_there_is_no_repository(tmp_path: Path) -> None:
    system = System(tmp_path / "home")
    add(system, "receipt-1")
    assert spooled(system.ports.documents) == 0


def test_a_second_archiving_is_not_audited_again(tmp_path: Path) -> None:
    from tests.unit.test_web_operations import record

    system = System(tmp_path / "home")
    entry = record(system.ports, 0)
    log = AuditLog(system.ports.documents, system.clock)
    first = system.ports.exceptions.archive(entry, by="ada", reason="seen")
    entries = len(log.list().documents)
    assert system.ports.exceptions.archive(entry, by="eve", reason="seen too") == first
    assert len(log.list().documents) == entries
