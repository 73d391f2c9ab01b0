"""ID tokens and Identity-Aware Proxy: good ones let in whom they name, all others nobody."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest

from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.identity.directory import User
from shared.identity.identity import Identity
from shared.identity.permissions import ALL, BUILT_IN_ROLES
from shared.identity.settings import IAP_ISSUER, IdentitySettings
from shared.identity.tokens import IdentityProviderUnavailableError
from tests.fakes import FakeClock
from tests.unit.identity.issuer import CLIENT_ID, Issuer, unsigned

HERE = "127.0.0.1"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


def identity_over(home: Path, clock: FakeClock, issuer: Issuer, **settings: Any) -> Identity:
    identity = Identity(
        SqliteDocumentStore(home / "documents.db"),
        FileSecretStore(home / "secrets"),
        clock,
        IdentitySettings(oidc_issuer=issuer.url, oidc_audiences=(CLIENT_ID,), **settings),
        fetch=issuer.fetch,
    )
    if identity.directory.user("ada") is None:
        ada = User(name="ada", email="Ada@Example.org", roles=("viewer",))
        identity.directory.create_user(ada, by="test")
    return identity


@pytest.fixture
def identity(tmp_path: Path, clock: FakeClock, issuer: Issuer) -> Identity:
    return identity_over(tmp_path, clock, issuer)


def now_s(clock: FakeClock) -> float:
    return clock.now().timestamp()


def in_base64(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


DEEP = b"[" * 5000
NESTED = b'{"alg": ' + DEEP
SIGNED = in_base64(b'{"alg": "RS256", "kid": "k"}')


@pytest.mark.parametrize(
    "token",
    [
        f"{in_base64(DEEP)}.e30.c2ln",
        f"{in_base64(NESTED)}.e30.c2ln",
        f"{SIGNED}.{in_base64(DEEP)}.c2ln",
        f"{SIGNED}.{in_base64(b'1' * 5000)}.c2ln",
        f"{SIGNED}.{in_base64(bytes(range(256)))}.c2ln",
        "é.é.é",
        "..",
    ],
)
def test_what_is_no_token_is_nobody(identity: Identity, token: str) -> None:
    """However it is made: nobody who has no key yet is to find a fault of ours."""
    assert identity.of_credential(token, HERE) is None


class TestIdTokens:
    def test_name_the_user_of_that_address(
        self, identity: Identity, issuer: Issuer, clock: FakeClock
    ) -> None:
        who = identity.of_credential(issuer.token(now_s(clock)), HERE)
        assert who is not None
        assert (who.label, who.permissions) == ("ada (ID token)", BUILT_IN_ROLES["viewer"])

    def test_of_service_accounts_are_as_good(
        self, identity: Identity, issuer: Issuer, clock: FakeClock
    ) -> None:
        email = "loader@project.iam.gserviceaccount.com"
        user = User(name="loader", email=email, roles=("uploader",))
        identity.directory.create_user(user, by="test")
        who = identity.of_credential(issuer.token(now_s(clock), email=email), HERE)
        assert who is not None
        assert who.name == "loader"

    @pytest.mark.parametrize(
        "claims",
        [
            {"aud": "somebody-else"},
            {"aud": None},
            {"iss": "https://evil.example"},
            {"iss": None},
            {"email": "eve@example.org"},
            {"email": None},
            {"email_verified": False},
            {"email_verified": "true"},
            {"email_verified": None},
            {"exp": 0},
            {"exp": None},
            {"exp": "never"},
            {"iat": 4_000_000_000},
            {"iat": None},
            {"nbf": 4_000_000_000},
            {"sub": None},
        ],
    )
    def test_in_doubt_name_nobody(
        self, identity: Identity, issuer: Issuer, clock: FakeClock, claims: dict[str, Any]
    ) -> None:
        assert identity.of_credential(issuer.token(now_s(clock), **claims), HERE) is None

    def test_signed_by_others_name_nobody(
        self, identity: Identity, issuer: Issuer, clock: FakeClock
    ) -> None:
        good = issuer.token(now_s(clock))
        claims = jwt.decode(good, options={"verify_signature": False})
        kid = {"kid": issuer.key_id}
        other = Issuer(issuer.url).token(now_s(clock))
        head, body, signature = good.split(".")
        # HMAC with the published key as its secret is the classic (RFC 8725 2.1).
        published = str(issuer.public_key["n"]).ljust(64, "x")
        forged = [
            other,
            unsigned(claims, issuer.key_id),
            jwt.encode(claims, published, "HS256", headers=kid),
            jwt.encode(claims, published, "HS256", headers={"kid": "unknown"}),
            f"{head}.{body}.",
            f"{head}.{body[:-2]}.{signature}",
            good + "x" * 20_000,
        ]
        assert not any(identity.of_credential(token, HERE) for token in forged)

    def test_are_refused_once_their_time_is_over(
        self, identity: Identity, issuer: Issuer, clock: FakeClock
    ) -> None:
        token = issuer.token(now_s(clock))
        assert identity.of_credential(token, HERE) is not None
        clock.advance(3600 + 61)
        assert identity.of_credential(token, HERE) is None

    def test_of_a_user_who_is_switched_off_name_nobody(
        self, identity: Identity, issuer: Issuer, clock: FakeClock
    ) -> None:
        off = User(name="ada", email="ada@example.org", roles=("viewer",), enabled=False)
        identity.directory.replace_user(off, by="test", if_unchanged=lambda _: True)
        assert identity.of_credential(issuer.token(now_s(clock)), HERE) is None

    def test_are_not_taken_where_none_are_configured(
        self, tmp_path: Path, issuer: Issuer, clock: FakeClock
    ) -> None:
        identity = Identity(
            SqliteDocumentStore(tmp_path / "documents.db"),
            FileSecretStore(tmp_path / "secrets"),
            clock,
            IdentitySettings(oidc_issuer=issuer.url),
            fetch=issuer.fetch,
        )
        assert identity.of_credential(issuer.token(now_s(clock)), HERE) is None
        assert not issuer.fetched


class TestFirstAdministrator:
    def test_is_whom_the_setting_names_once_the_issuer_vouches(
        self, tmp_path: Path, issuer: Issuer, clock: FakeClock
    ) -> None:
        identity = identity_over(tmp_path, clock, issuer, admin_email="root@example.org")
        token = issuer.token(now_s(clock), email="Root@Example.org")
        who = identity.of_credential(token, HERE)
        assert who is not None
        assert who.permissions == ALL
        doubtful = issuer.token(now_s(clock), email="root@example.org", email_verified=False)
        assert identity.of_credential(doubtful, HERE) is None

    def test_may_what_their_user_may_once_there_is_one(
        self, tmp_path: Path, issuer: Issuer, clock: FakeClock
    ) -> None:
        """Else nobody could take the rights from whoever the setting once named."""
        identity = identity_over(tmp_path, clock, issuer, admin_email="ada@example.org")
        who = identity.of_credential(issuer.token(now_s(clock)), HERE)
        assert who is not None
        assert who.permissions == BUILT_IN_ROLES["viewer"]


class TestIssuersKeys:
    def test_are_fetched_once_and_again_when_the_issuer_changes_them(
        self, identity: Identity, issuer: Issuer, clock: FakeClock
    ) -> None:
        for _ in range(3):
            clock.advance(2)
            assert identity.of_credential(issuer.token(now_s(clock)), HERE)
        assert len(issuer.fetched) == 2  # the discovery document, the keys
        issuer.rotate("key-2")
        clock.advance(31)
        assert identity.of_credential(issuer.token(now_s(clock)), HERE)
        assert len(issuer.fetched) == 3

    def test_are_not_fetched_for_every_stranger(
        self, identity: Identity, issuer: Issuer, clock: FakeClock
    ) -> None:
        identity.of_credential(issuer.token(now_s(clock)), HERE)
        for number in range(50):
            strange = jwt.encode(
                {"iss": issuer.url}, "x" * 32, "HS256", headers={"kid": f"{number}"}
            )
            header, _, rest = strange.partition(".")
            issuer.key_id = f"stranger-{number}"
            assert identity.of_credential(issuer.token(now_s(clock)), HERE) is None
            assert identity.of_credential(f"{header}.{rest}", HERE) is None
        assert len(issuer.fetched) == 2

    def test_that_cannot_be_had_are_an_outage_and_no_refusal(
        self, tmp_path: Path, issuer: Issuer, clock: FakeClock
    ) -> None:
        def fetch(url: str) -> Mapping[str, Any]:
            raise IdentityProviderUnavailableError(url, "ConnectionError")

        issuer.fetch = fetch  # type: ignore[method-assign]
        identity = identity_over(tmp_path, clock, issuer)
        with pytest.raises(IdentityProviderUnavailableError):
            identity.of_credential(issuer.token(now_s(clock)), HERE)

    def test_that_are_known_outlast_an_outage(
        self, identity: Identity, issuer: Issuer, clock: FakeClock
    ) -> None:
        assert identity.of_credential(issuer.token(now_s(clock)), HERE)

        def fetch(url: str) -> Mapping[str, Any]:
            raise IdentityProviderUnavailableError(url, "ConnectionError")

        identity.tokens._keys._fetch = fetch
        clock.advance(4000)
        assert identity.of_credential(issuer.token(now_s(clock)), HERE)


class TestIdentityAwareProxy:
    AUDIENCE = "/projects/1/global/backendServices/2"

    @pytest.fixture
    def issuer(self) -> Issuer:
        issuer = Issuer(algorithm="ES256")
        issuer.url = IAP_ISSUER
        return issuer

    @pytest.fixture
    def identity(self, tmp_path: Path, clock: FakeClock, issuer: Issuer) -> Identity:
        return identity_over(tmp_path, clock, issuer, iap_audience=self.AUDIENCE)

    def test_is_believed_whom_it_names(
        self, identity: Identity, issuer: Issuer, clock: FakeClock
    ) -> None:
        token = issuer.token(now_s(clock), aud=self.AUDIENCE, email_verified=None)
        who = identity.of_proxy(token)
        assert who is not None
        assert who.label == "ada (proxy)"

    def test_is_not_believed_for_another_audience(
        self, identity: Identity, issuer: Issuer, clock: FakeClock
    ) -> None:
        assert identity.of_proxy(issuer.token(now_s(clock))) is None
        assert identity.of_proxy("accounts.google.com:ada@example.org") is None
