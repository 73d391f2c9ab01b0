"""Who may call a function: tokens signed with real keys, certificates from a server of our own."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.rehearse.signing import SigningKey
from shared.adapters.cloud.callers import Certificates, TokenCheck
from shared.adapters.cloud.environment import Oidc
from shared.errors import StorageUnavailableError
from shared.pipeline.push import CallerRefusedError
from tests.fakes import FakeClock
from tests.unit.destinations.scripted_http import Answer, ScriptedHttp

AUDIENCE, CALLER = "axiom-validate-instance", "push@project.iam.gserviceaccount.com"


class Key(SigningKey):
    """Signs for our function and its caller unless told otherwise."""

    def token(self, audience: str = AUDIENCE, email: Any = CALLER, **changes: Any) -> str:
        """As Google signs one for a push; a claim of None is left out."""
        return super().token(audience, email, **changes)


KEY, OTHER_KEY = Key("k1"), Key("k2")


class Google:
    """Where the certificates are."""

    def __init__(self) -> None:
        self.certificates = {KEY.key_id: KEY.certificate}
        self.is_up = True
        self.http = ScriptedHttp(lambda _: self._answer())

    def _answer(self) -> Answer:
        if not self.is_up:
            return Answer(503)
        body = json.dumps(self.certificates).encode()
        return Answer(200, body, {"Cache-Control": "public, max-age=600"})

    @property
    def asked(self) -> int:
        return len(self.http.requests)


@pytest.fixture
def google() -> Iterator[Google]:
    found = Google()
    with found.http:
        yield found


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime.now(UTC))


@pytest.fixture
def check(google: Google, clock: FakeClock) -> TokenCheck:
    return make(google, clock)


def make(google: Google, clock: FakeClock, oidc: Oidc = Oidc.VERIFY) -> TokenCheck:
    certificates = Certificates(google.http.url, clock)
    return TokenCheck(oidc, [AUDIENCE, "other"], [CALLER], certificates, clock)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def status(check: TokenCheck, headers: dict[str, str]) -> int:
    with pytest.raises(CallerRefusedError) as caught:
        check(headers)
    return caught.value.status


class TestAToken:
    def test_of_pub_sub_lets_its_caller_in(self, check: TokenCheck) -> None:
        check(bearer(KEY.token()))
        check(bearer(KEY.token(iss="accounts.google.com")))

    @pytest.mark.parametrize(
        "changes",
        [
            {"aud": "https://elsewhere"},
            {"aud": None},
            {"aud": ["axiom-validate-instance"]},
            {"iss": "https://accounts.example"},
            {"exp": 1_000_000_000},
            {"exp": "never"},
            {"exp": None},
        ],
    )
    def test_that_is_not_for_us_is_none(self, check: TokenCheck, changes: dict[str, Any]) -> None:
        assert status(check, bearer(KEY.token(**changes))) == 401

    @pytest.mark.parametrize(
        "changes",
        [
            {"email": "other@project.iam.gserviceaccount.com"},
            {"email": None},
            {"email_verified": False},
            {"email_verified": "true"},
        ],
    )
    def test_of_somebody_else_is_refused(self, check: TokenCheck, changes: dict[str, Any]) -> None:
        assert status(check, bearer(KEY.token(**changes))) == 403

    def test_signed_with_another_key_under_the_same_key_id_is_none(self, check: TokenCheck) -> None:
        forger = Key(KEY.key_id)
        assert status(check, bearer(forger.token())) == 401

    def test_of_no_signature_is_none(self, check: TokenCheck) -> None:
        header = base64.urlsafe_b64encode(b'{"alg":"none","kid":"k1"}').decode().rstrip("=")
        payload = KEY.token().split(".")[1]
        assert status(check, bearer(f"{header}.{payload}.")) == 401

    def test_whose_claims_were_changed_is_none(self, check: TokenCheck) -> None:
        header, _, signature = KEY.token(email="other@x").split(".")
        payload = KEY.token().split(".")[1]
        assert status(check, bearer(f"{header}.{payload}.{signature}")) == 401

    @pytest.mark.parametrize("headers", [{}, {"authorization": ""}, {"authorization": "Basic x"}])
    def test_is_needed(self, check: TokenCheck, headers: dict[str, str]) -> None:
        assert status(check, headers) == 401

    @given(text=st.text(alphabet=st.characters(codec="ascii"), max_size=80))
    def test_of_any_other_form_is_none(self, text: str) -> None:
        check = TokenCheck(
            Oidc.PLATFORM, [], [], Certificates("http://[::1]:1", FakeClock()), FakeClock()
        )
        with pytest.raises((CallerRefusedError, StorageUnavailableError)):
            check(bearer(text))


class TestCertificates:
    def test_are_asked_for_once(self, google: Google, check: TokenCheck) -> None:
        for _ in range(5):
            check(bearer(KEY.token()))
        assert google.asked == 1

    def test_are_asked_for_again_when_they_are_old(
        self, google: Google, check: TokenCheck, clock: FakeClock
    ) -> None:
        check(bearer(KEY.token()))
        clock.advance(601)
        check(bearer(KEY.token()))
        assert google.asked == 2

    def test_new_keys_are_looked_for_but_not_at_every_token(
        self, google: Google, check: TokenCheck, clock: FakeClock
    ) -> None:
        """Strangers may name any key, and must not have us ask Google each time."""
        check(bearer(KEY.token()))
        google.certificates[OTHER_KEY.key_id] = OTHER_KEY.certificate
        assert status(check, bearer(OTHER_KEY.token())) == 401
        assert google.asked == 1
        clock.advance(61)
        check(bearer(OTHER_KEY.token()))
        assert google.asked == 2

    def test_known_ones_go_on_while_google_cannot_be_asked(
        self, google: Google, check: TokenCheck, clock: FakeClock
    ) -> None:
        check(bearer(KEY.token()))
        google.is_up = False
        clock.advance(700)
        check(bearer(KEY.token()))

    def test_without_any_a_call_is_tried_again(self, google: Google, check: TokenCheck) -> None:
        google.is_up = False
        with pytest.raises(StorageUnavailableError):
            check(bearer(KEY.token()))


class TestCloudRun:
    def test_may_have_taken_the_signature_that_it_checked(
        self, google: Google, clock: FakeClock
    ) -> None:
        check = make(google, clock, Oidc.PLATFORM)
        head = KEY.token().rpartition(".")[0]
        check(bearer(f"{head}.SIGNATURE_REMOVED_BY_GOOGLE"))
        other = KEY.token(email="other@x").rpartition(".")[0]
        assert status(check, bearer(f"{other}.SIGNATURE_REMOVED_BY_GOOGLE")) == 403
        assert status(check, bearer(f"{head}.AAAA")) == 401

    def test_is_not_believed_where_it_was_not_said_that_it_checks(self, check: TokenCheck) -> None:
        head = KEY.token().rpartition(".")[0]
        assert status(check, bearer(f"{head}.SIGNATURE_REMOVED_BY_GOOGLE")) == 401
