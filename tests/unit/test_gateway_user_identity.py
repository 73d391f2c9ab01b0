"""Who calls a listener that wants to know (PS3.7 D.3.3.7): dcmtk, pynetdicom, whatever bytes."""

from __future__ import annotations

import json
import logging
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pynetdicom import AE
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from scp_gateway.gateway import Gateway
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.audit import AuditLog
from shared.config.callers import UserIdentity
from shared.identity.callers import CallerRefusedError, Callers
from shared.identity.directory import User
from shared.identity.identity import Identity
from shared.identity.settings import IdentitySettings
from shared.identity.tokens import IdentityProviderUnavailableError
from tests.data import build
from tests.fakes import FakeClock, MemorySecrets
from tests.gateway import (
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    COMMAND,
    CT_IMAGE_STORAGE,
    DATA,
    EXPLICIT_VR_LITTLE_ENDIAN,
    LAST,
    MemoryReceiver,
    RawPeer,
    accepted_syntaxes,
    item,
    listener,
    p_data,
    pdv,
    store_rq,
)
from tests.peers import LOOPBACK
from tests.unit.identity.issuer import CLIENT_ID, Issuer

FIND, IMPLICIT = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.2"
PERMANENT, TRANSIENT = (0, 1, 2, 1), (0, 2, 2, 1)


class Site:
    """A gateway with users, secrets, an issuer of tokens and an audit log."""

    def __init__(self, home: Path) -> None:
        self.clock, self.issuer = FakeClock(), Issuer(algorithm="ES256")
        self.fetch = self.issuer.fetch
        self.documents = SqliteDocumentStore(home / "documents.db")
        self.secrets = MemorySecrets(workstation="the-passcode")
        self.identity = Identity(
            self.documents,
            self.secrets,
            self.clock,
            IdentitySettings(oidc_issuer=self.issuer.url, oidc_audiences=(CLIENT_ID,)),
            fetch=lambda url: self.fetch(url),
        )
        roles = {"ada": "operator", "loader": "uploader", "reader": "editor", "eve": "viewer"}
        for name, role in roles.items():
            user = User(name=name, email=f"{name}@example.org", roles=(role,))
            self.identity.directory.create_user(user, by="test")
        self.receiver = MemoryReceiver()
        self.callers = Callers(lambda: self.identity, self.documents, self.secrets, self.clock)

    def key_of(self, user: str) -> str:
        return self.identity.keys.create(user, by="test").text

    def token_of(self, user: str) -> str:
        return self.issuer.token(self.clock.now().timestamp(), email=f"{user}@example.org")

    @contextmanager
    def listening(self, **taken: Any) -> Iterator[int]:
        gateway = Gateway(self.receiver, archives=Nothing(), callers=self.callers)
        settings = {"user_identity": taken, "query_retrieve": {"store": "any"}}
        assert gateway.apply([listener(**settings)]) == {}
        try:
            yield gateway.ports()["test"]
        finally:
            gateway.stop(0)

    def refusals(self) -> list[dict[str, Any]]:
        page = AuditLog(self.documents, self.clock).list()
        found = [dict(one.data) for one in page.documents]
        return [one for one in found if one["what"] == "associations.refuse"]


class Nothing:
    """Archives that nobody gets as far as asking."""

    max_instance_bytes = 1

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


EVERYTHING: dict[str, Any] = {
    "passcodes": {"ws1": "workstation"},
    "api_keys": True,
    "tokens": True,
    "usernames": ["scanner"],
}


def shown(kind: int, primary: str | bytes, secondary: str = "", *, confirm: bool = False) -> bytes:
    """The user identity sub-item of a request."""
    first = primary.encode() if isinstance(primary, str) else primary
    fields = b"".join(struct.pack(">H", len(f)) + f for f in (first, secondary.encode()))
    return item(0x58, bytes((kind, confirm)) + fields)


def answer(port: int, user_items: bytes = b"") -> tuple[int, bytes]:
    """Type and body of what answers a request that shows this."""
    with RawPeer(port) as peer:
        contexts = [(CT_IMAGE_STORAGE, [EXPLICIT_VR_LITTLE_ENDIAN]), (FIND, [IMPLICIT])]
        return peer.associate(contexts, user_items=user_items)


class TestWhoIsLetIn:
    def test_with_a_passcode_from_the_secret_store(self, site: Site) -> None:
        with site.listening(passcodes={"ws1": "workstation"}) as port:
            assert answer(port, shown(2, "ws1", "the-passcode"))[0] == A_ASSOCIATE_AC
            site.secrets.put("workstation", "another")
            assert answer(port, shown(2, "ws1", "the-passcode"))[0] == A_ASSOCIATE_RJ
            assert answer(port, shown(2, "ws1", "another"))[0] == A_ASSOCIATE_AC

    def test_with_an_api_key_of_the_user_as_passcode(self, site: Site) -> None:
        with site.listening(api_keys=True) as port:
            key = site.key_of("ada")
            assert answer(port, shown(2, "ada", key))[0] == A_ASSOCIATE_AC
            assert answer(port, shown(2, "loader", key))[0] == A_ASSOCIATE_RJ

    def test_with_a_token_of_the_issuer(self, site: Site) -> None:
        with site.listening(tokens=True) as port:
            token = site.token_of("ada")
            assert answer(port, shown(5, token))[0] == A_ASSOCIATE_AC
            assert answer(port, shown(5, token[:-4] + "AAAA"))[0] == A_ASSOCIATE_RJ
            site.clock.advance(86400)
            assert answer(port, shown(5, token))[0] == A_ASSOCIATE_RJ

    def test_by_name_alone_where_that_is_enough(self, site: Site) -> None:
        with site.listening(usernames=["scanner"]) as port:
            assert answer(port, shown(1, "scanner"))[0] == A_ASSOCIATE_AC
            assert answer(port, shown(1, "ada"))[0] == A_ASSOCIATE_RJ

    def test_without_a_word_where_that_is_allowed(self, site: Site) -> None:
        with site.listening(usernames=["scanner"], required=False) as port:
            assert answer(port)[0] == A_ASSOCIATE_AC
            assert answer(port, shown(1, "ada"))[0] == A_ASSOCIATE_RJ

    def test_is_told_so_only_if_that_was_asked_for(self, site: Site) -> None:
        with site.listening(**EVERYTHING) as port:
            for kind, primary, secondary in (
                (1, "scanner", ""),
                (2, "ws1", "the-passcode"),
                (5, site.token_of("ada"), ""),
            ):
                asked = answer(port, shown(kind, primary, secondary, confirm=True))[1]
                assert item(0x59, b"\0\0") in asked
                assert b"\x59\0" not in answer(port, shown(kind, primary, secondary))[1]

    def test_may_do_what_the_user_may(self, site: Site) -> None:
        with site.listening(api_keys=True) as port:

            def contexts(user: str) -> list[int]:
                kind, body = answer(port, shown(2, user, site.key_of(user)))
                assert kind == A_ASSOCIATE_AC
                return [result for result, _ in accepted_syntaxes(body).values()]

            assert contexts("ada") == [0, 0]  # stores and queries
            assert contexts("loader") == [0, 3]  # stores
            assert answer(port, shown(2, "eve", site.key_of("eve")))[0] == A_ASSOCIATE_RJ

    def test_may_query_and_not_store_as_the_user_may(self, site: Site) -> None:
        key = site.key_of("reader")
        with site.listening(api_keys=True) as port, RawPeer(port) as peer:
            contexts = [(CT_IMAGE_STORAGE, [EXPLICIT_VR_LITTLE_ENDIAN]), (FIND, [IMPLICIT])]
            _, body = peer.associate(contexts, user_items=shown(2, "reader", key))
            assert [result for result, _ in accepted_syntaxes(body).values()] == [0, 0]
            peer.send(p_data(pdv(1, COMMAND | LAST, store_rq())))
            peer.send(p_data(pdv(1, DATA | LAST, build.ct()[-100:])))
            assert peer.receive_status() == 0x0122
        assert site.receiver.committed == []

    def test_is_named_with_what_they_send(self, site: Site) -> None:
        with site.listening(passcodes={"ws1": "workstation"}) as port, RawPeer(port) as peer:
            peer.associate(user_items=shown(2, "ws1", "the-passcode"))
            data = build.ct()
            peer.send(p_data(pdv(1, COMMAND | LAST, store_rq())))
            peer.send(p_data(pdv(1, DATA | LAST, data[-100:])))
            assert peer.receive_status() == 0
        assert [one.source.principal for one in site.receiver.committed] == ["ws1"]


class TestWhoIsTurnedAway:
    @pytest.mark.parametrize(
        ("user_items", "reason"),
        [
            (b"", "no user identity is shown"),
            (shown(2, "ws1", "guessed"), "the passcode is not good"),
            (shown(2, "nobody", "guessed"), "the username or passcode is not good"),
            (shown(2, "ada", ""), "the username or passcode is not good"),
            (shown(1, "ada"), "the username is not one of those that are taken alone"),
            (shown(3, "ticket"), "a Kerberos service ticket is not taken here"),
            (shown(4, "<saml/>"), "a SAML assertion is not taken here"),
            (shown(5, "a.b.c"), "the token is not good"),
            (shown(5, "guessed"), "the token is not good"),
            (shown(1, b"\xff\xfe"), "the user identity is not text in UTF-8"),
        ],
    )
    def test_is_told_in_the_audit_log_why_without_what_was_shown(
        self,
        site: Site,
        user_items: bytes,
        reason: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with caplog.at_level(logging.DEBUG), site.listening(**EVERYTHING) as port:
            kind, body = answer(port, user_items)
        assert (kind, tuple(body)) == (A_ASSOCIATE_RJ, PERMANENT)
        [refusal] = site.refusals()
        assert refusal["who"] == "AE PEER"
        assert (refusal["id"], refusal["reason"]) == ("test", reason)
        assert refusal["address"] == LOOPBACK
        for told in (caplog.text, json.dumps(refusal)):
            assert "guessed" not in told
            assert "the-passcode" not in told

    def test_comes_again_later_while_the_issuer_does_not_answer(self, site: Site) -> None:
        def gone(url: str) -> Mapping[str, Any]:
            raise IdentityProviderUnavailableError(url, "no answer")

        token = site.token_of("ada")
        site.fetch = gone
        with site.listening(tokens=True) as port:
            kind, body = answer(port, shown(5, token))
        assert (kind, tuple(body)) == (A_ASSOCIATE_RJ, TRANSIENT)
        assert site.refusals() == []

    def test_too_often_is_not_looked_at_for_a_while(self, site: Site) -> None:
        with site.listening(usernames=["scanner"]) as port:
            for _ in range(100):
                with pytest.raises(CallerRefusedError):
                    site.callers.caller(
                        UserIdentity(usernames=("scanner",)),
                        None,
                        listener="test",
                        calling_ae_title="PEER",
                        address=LOOPBACK,
                    )
            kind, body = answer(port, shown(1, "scanner"))
            assert (kind, tuple(body)) == (A_ASSOCIATE_RJ, TRANSIENT)
            site.clock.advance(60)
            assert answer(port, shown(1, "scanner"))[0] == A_ASSOCIATE_AC

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.binary(max_size=40))
    def test_whatever_bytes_the_item_is_nobody_gets_in(self, site: Site, data: bytes) -> None:
        with site.listening(**EVERYTHING) as port:
            try:
                kind, _ = answer(port, item(0x58, data))
            except ConnectionError:
                return
            assert kind != A_ASSOCIATE_AC
            assert answer(port, shown(1, "scanner"))[0] in (A_ASSOCIATE_AC, A_ASSOCIATE_RJ)


class TestStrangers:
    @pytest.mark.peer("dcmtk")
    @pytest.mark.skipif(shutil.which("storescu") is None, reason="dcmtk is not installed")
    def test_storescu(self, site: Site, tmp_path: Path) -> None:
        path = tmp_path / "ct.dcm"
        path.write_bytes(build.ct())

        def sent(port: int, *options: str) -> int:
            command = ["storescu", *options, LOOPBACK, str(port), str(path)]
            return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode

        with site.listening(**EVERYTHING) as port:
            assert sent(port, "-usr", "ws1", "-pwd", "the-passcode", "-rsp") == 0
            assert sent(port, "-usr", "scanner", "-rsp") == 0
            (tmp_path / "token").write_text(site.token_of("loader"))
            assert sent(port, "--jwt", str(tmp_path / "token"), "-rsp") == 0
            assert sent(port, "-usr", "ws1", "-pwd", "guessed") != 0
            assert sent(port, "--saml", str(path)) != 0
            assert sent(port) != 0
        assert [one.source.principal for one in site.receiver.committed] == [
            *("ws1", "scanner", "loader")
        ]

    @pytest.mark.parametrize("kind", [1, 2, 5])
    def test_pynetdicom(self, site: Site, kind: int) -> None:
        token = site.token_of("ada").encode()
        primary, secondary = {
            1: (b"scanner", b""),
            2: (b"ws1", b"the-passcode"),
            5: (token, b""),
        }[kind]
        identity = UserIdentityNegotiation()
        identity.user_identity_type = kind
        identity.primary_field, identity.secondary_field = primary, secondary
        identity.positive_response_requested = True
        ae = AE("PEER")
        ae.add_requested_context(Verification)
        with site.listening(**EVERYTHING) as port:
            association = ae.associate(LOOPBACK, port, ext_neg=[identity])
            try:
                assert association.is_established
                assert association.acceptor.user_identity is not None
                assert association.send_c_echo().Status == 0
            finally:
                association.release()


def test_a_listener_that_asks_takes_somebody() -> None:
    with pytest.raises(ValidationError, match="takes nobody"):
        UserIdentity()


def test_a_gateway_that_knows_nobody_lets_nobody_in() -> None:
    gateway = Gateway(MemoryReceiver())
    gateway.apply([listener(user_identity={"usernames": ["scanner"]})])
    try:
        kind, body = answer(gateway.ports()["test"], shown(1, "scanner"))
        assert (kind, tuple(body)) == (A_ASSOCIATE_RJ, TRANSIENT)
    finally:
        gateway.stop(0)
