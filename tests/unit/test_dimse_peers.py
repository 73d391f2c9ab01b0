"""AEs that we associate with, under TLS and saying who we are: pynetdicom as the peer of a source,
a destination, a move and a report of storage commitment.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    StorageCommitmentPushModel,
    Verification,
)

from shared.adapters.archives import Archives
from shared.adapters.destinations import create
from shared.adapters.destinations.association import Association
from shared.adapters.destinations.commitment import report_commitment
from shared.adapters.destinations.upper_layer import Context
from shared.adapters.sources.dimse import DimseReader
from shared.config.entities import Configuration
from shared.config.peers import DimsePeer
from shared.config.query_retrieve import QueryRetrieve
from shared.dicom.commitment import CommitmentReport, Reference
from shared.errors import DestinationMisconfiguredError, SourceMisconfiguredError
from tests.certificates import Authority
from tests.fakes import FakeClock, MemorySecrets
from tests.peers import LOOPBACK

SECRETS = {"passcode": "the-passcode", "token": "e30.e30.c2ln"}


@dataclass
class Asked:
    """A peer that listens, and what it was shown."""

    port: int
    # Type, primary and secondary field of each user identity.
    identities: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    reports: list[Any] = field(default_factory=list)


@contextmanager
def peer(context: ssl.SSLContext | None = None) -> Iterator[Asked]:
    ae = AE("PEER")
    ae.add_supported_context(Verification)
    ae.add_supported_context(CTImageStorage)
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    asked = Asked(0)

    def identified(event: Any) -> tuple[bool, None]:
        asked.identities.append(
            (event.user_id_type, event.primary_field, event.secondary_field or b"")
        )
        return True, None

    def reported(event: Any) -> tuple[int, None]:
        asked.reports.append(event.event_information)
        return 0x0000, None

    server: Any = ae.start_server(
        (LOOPBACK, 0),
        block=False,
        ssl_context=context,
        evt_handlers=[(evt.EVT_USER_ID, identified), (evt.EVT_N_EVENT_REPORT, reported)],
    )
    asked.port = server.server_address[1]
    try:
        yield asked
    finally:
        server.shutdown()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def secured(authority: Authority, **issued: Any) -> ssl.SSLContext:
    """What a peer with a certificate of that authority listens with."""
    certificate, key = authority.issue("peer", **issued)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def entities(port: int, **more: Any) -> Configuration:
    """A source and a destination at that port."""
    place = {"host": LOOPBACK, "port": port, "ae_title": "PEER", "timeout_s": 20, **more}
    document = {
        "sources": [{"name": "pacs", "type": "dimse_qr", **place}],
        "destinations": [{"name": "pacs", "type": "dimse", **place}],
    }
    return Configuration.model_validate_json(json.dumps(document))


def ask_as_source(port: int, **more: Any) -> None:
    [source] = entities(port, **more).sources
    assert source.type == "dimse_qr"
    DimseReader(source, FakeClock(), MemorySecrets(**SECRETS)).check()


def ask_as_destination(port: int, **more: Any) -> None:
    [destination] = entities(port, **more).destinations
    assert destination.type == "dimse"
    to = create(destination, MemorySecrets(**SECRETS))
    try:
        to.check()
    finally:
        to.close()


def report(port: int, **more: Any) -> None:
    where = DimsePeer.model_validate_json(json.dumps({"host": LOOPBACK, "port": port, **more}))
    report_commitment(
        CommitmentReport("1.2.3", (Reference(str(CTImageStorage), "1.2.3.4"),), ()),
        where,
        MemorySecrets(**SECRETS),
        called_ae_title="PEER",
        calling_ae_title="AXIOM",
    )


def move_to(port: int, **more: Any) -> None:
    """Associate as a C-MOVE to a peer of a listener does."""
    place = {"host": LOOPBACK, "port": port, **more}
    services = QueryRetrieve.model_validate_json(
        json.dumps({"store": "any", "move_destinations": {"PEER": place}})
    )
    archives = Archives(Configuration, MemorySecrets(**SECRETS), FakeClock(), Path())
    found = archives.move_destination(services, "PEER", calling_ae_title="AXIOM", timeout_s=30)
    assert found is not None
    Association(found, [Context(str(CTImageStorage), "1.2.840.10008.1.2.1")]).release()


Ask = Callable[..., None]
EVERYBODY = pytest.mark.parametrize("ask", [ask_as_source, ask_as_destination, report, move_to])


@EVERYBODY
def test_each_way_out_is_under_tls_where_that_is_configured(ask: Ask, authority: Authority) -> None:
    with peer(secured(authority)) as asked:
        ask(asked.port, tls={"trusted_file": str(authority.file)})
        assert len(asked.reports) == (1 if ask is report else 0)


WITH_PASSCODE = (
    {"username": "axiom", "password_secret": "passcode"},
    (2, b"axiom", b"the-passcode"),
)


@pytest.mark.parametrize(
    ("ask", "credentials", "shown"),
    [
        (ask_as_source, {"username": "axiom"}, (1, b"axiom", b"")),
        (ask_as_source, {"token_secret": "token"}, (5, b"e30.e30.c2ln", b"")),
        (ask_as_source, *WITH_PASSCODE),
        (ask_as_destination, {"token_secret": "token"}, (5, b"e30.e30.c2ln", b"")),
        (ask_as_destination, *WITH_PASSCODE),
        (report, *WITH_PASSCODE),
        (move_to, *WITH_PASSCODE),
    ],
)
def test_each_way_out_says_who_we_are_where_that_is_configured(
    ask: Ask, credentials: dict[str, str], shown: tuple[int, bytes, bytes]
) -> None:
    with peer() as asked:
        ask(asked.port, credentials=credentials)
        assert asked.identities == [shown]


def test_whoever_has_no_place_among_the_peers_is_reached_as_a_destination(
    authority: Authority,
) -> None:
    """Its private key may be in clear, where a configuration was not saved."""
    certificate, key = authority.issue("axiom")
    with peer(secured(authority)) as asked:
        tls = {
            "trusted_file": str(authority.file),
            "certificate_file": str(certificate),
            "private_key": key.read_text(),
        }
        [destination] = entities(
            asked.port, tls=tls, credentials={"username": "axiom"}
        ).destinations
        assert destination.type == "dimse"
        report_commitment(
            CommitmentReport("1.2.3", (Reference(str(CTImageStorage), "1.2.3.4"),), ()),
            DimsePeer.at(destination),
            MemorySecrets(),
            called_ae_title="PEER",
            calling_ae_title="AXIOM",
        )
        assert asked.identities == [(1, b"axiom", b"")]
        assert len(asked.reports) == 1


def test_nothing_is_said_where_nothing_is_configured() -> None:
    with peer() as asked:
        ask_as_source(asked.port)
        ask_as_destination(asked.port)
        assert asked.identities == []


def test_an_expired_certificate_is_told_by_source_and_report(authority: Authority) -> None:
    with peer(secured(authority, began=3, days=-1)) as asked:
        tls = {"trusted_file": str(authority.file)}
        with pytest.raises(SourceMisconfiguredError, match="certificate is not trusted: expired"):
            ask_as_source(asked.port, tls=tls)
        with pytest.raises(
            DestinationMisconfiguredError, match="certificate is not trusted: expired"
        ):
            report(asked.port, tls=tls)
        assert asked.reports == []


def test_a_missing_secret_or_file_is_told_before_anybody_is_asked() -> None:
    with peer() as asked:
        missing = {"username": "axiom", "password_secret": "no-such"}
        with pytest.raises(SourceMisconfiguredError, match="secret"):
            ask_as_source(asked.port, credentials=missing)
        with pytest.raises(DestinationMisconfiguredError, match="secret"):
            report(asked.port, credentials=missing)
        with pytest.raises(SourceMisconfiguredError, match="TLS certificates"):
            ask_as_source(asked.port, tls={"trusted_file": "/no/such/file.pem"})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"credentials": {"password_secret": "passcode"}}, "needs a username"),
        ({"credentials": {"username": "a", "token_secret": "token"}}, "not both"),
        ({"credentials": {"username": "a", "password": "clear"}}, "not taken in clear"),
        (
            {"tls": {"certificate_file": "/c", "private_key": "clear"}},
            "tls.private_key is not taken in clear",
        ),
    ],
)
def test_what_a_peer_of_a_listener_may_not_say(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DimsePeer.model_validate_json(json.dumps({"host": "h", "port": 104, **wrong}))
