"""Signing in with a browser, and what the session that comes of it is good for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import bootstrap
from shared.environment import Environment
from shared.identity.directory import Directory, User
from shared.identity.settings import IdentitySettings
from shared.web.wsgi import create_app
from tests.fakes import FakeClock
from tests.unit.identity.issuer import CLIENT_ID, CLIENT_SECRET, Issuer, served
from tests.unit.web_fakes import KEY

AUTH = "/api/v1/auth"


@dataclass
class Site:
    """A system that people sign in to, and its provider."""

    issuer: Issuer
    clock: FakeClock
    directory: Directory
    browser: FlaskClient

    def log_in(self, after: str = "") -> TestResponse:
        """As a person does it."""
        begun = self.browser.get(f"{AUTH}/login", query_string={"next": after})
        assert begun.status_code == 302
        url = begun.headers["Location"]
        assert url.startswith(self.issuer.url)
        code = self.issuer.let_in(url)
        state = self.issuer._codes[code]["state"]
        return self.browser.get(f"{AUTH}/callback", query_string={"code": code, "state": state})


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    clock = FakeClock()
    issuer = Issuer()
    with served(issuer, clock):
        environment = Environment.read({"AXIOM_HOME": str(tmp_path)})
        ports = bootstrap.embedded(environment, clock)
        ports.secrets.put("oidc-client", CLIENT_SECRET)
        settings = IdentitySettings.read(
            {
                "AXIOM_API_KEY": KEY,
                "AXIOM_OIDC_ISSUER": issuer.url,
                "AXIOM_OIDC_CLIENT_ID": CLIENT_ID,
                "AXIOM_OIDC_CLIENT_SECRET": "oidc-client",
            }
        )
        directory = Directory(ports.documents, clock)
        user = User(name="ada", email="ada@example.org", roles=("operator",))
        directory.create_user(user, by="test")
        yield Site(issuer, clock, directory, create_app(ports, settings).test_client())
        ports.destinations.close()


class TestLogin:
    def test_gives_a_session_that_the_browser_keeps(self, site: Site) -> None:
        answer = site.log_in()
        assert answer.status_code == 200
        token = answer.get_json()["token"]
        me = site.browser.get("/api/v1/me").get_json()
        assert (me["name"], me["credential"]) == ("ada", "session")
        cookie = next(c for c in answer.headers.getlist("Set-Cookie") if "axiom_session" in c)
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
        elsewhere = site.browser.application.test_client()
        bearer = {"Authorization": f"Bearer {token}"}
        assert elsewhere.get("/api/v1/me", headers=bearer).get_json()["name"] == "ada"

    def test_goes_on_to_a_path_of_ours_alone(self, site: Site) -> None:
        assert site.log_in("/console?tab=1").headers["Location"] == "/console?tab=1"
        for elsewhere in ("//evil.example", "https://evil.example", "/\\evil.example", "evil"):
            assert site.log_in(elsewhere).status_code == 200

    def test_of_somebody_unknown_is_refused(self, site: Site) -> None:
        site.issuer.email = "eve@example.org"
        answer = site.log_in()
        assert (answer.status_code, answer.get_json()["code"]) == (403, "unknown-user")
        assert site.browser.get("/api/v1/me").status_code == 401

    def test_is_not_finished_for_whom_it_was_not_begun(self, site: Site) -> None:
        """Else somebody could have another's browser signed in as themselves."""
        begun = site.browser.get(f"{AUTH}/login")
        code = site.issuer.let_in(begun.headers["Location"])
        state = site.issuer._codes[code]["state"]
        other = site.browser.application.test_client()
        query = {"code": code, "state": state}
        assert other.get(f"{AUTH}/callback", query_string=query).status_code == 401
        wrong = {"code": code, "state": "guessed"}
        assert site.browser.get(f"{AUTH}/callback", query_string=wrong).status_code == 401

    def test_is_not_finished_twice_or_late_or_with_an_error(self, site: Site) -> None:
        begun = site.browser.get(f"{AUTH}/login")
        code = site.issuer.let_in(begun.headers["Location"])
        state = site.issuer._codes[code]["state"]
        denied = {"error": "access_denied", "state": state}
        assert site.browser.get(f"{AUTH}/callback", query_string=denied).status_code == 401
        unknown = {"code": "guessed", "state": state}
        assert site.browser.get(f"{AUTH}/callback", query_string=unknown).status_code == 401
        site.clock.advance(601)
        late = {"code": code, "state": state}
        assert site.browser.get(f"{AUTH}/callback", query_string=late).status_code == 401

    def test_is_not_there_where_it_is_not_configured(self, site: Site, tmp_path: Path) -> None:
        environment = Environment.read({"AXIOM_HOME": str(tmp_path / "other")})
        ports = bootstrap.embedded(environment)
        response = create_app(ports).test_client().get(f"{AUTH}/login")
        assert response.status_code == 404


class TestSession:
    def test_is_renewed_and_ends_with_log_out(self, site: Site) -> None:
        token = site.log_in().get_json()["token"]
        client = site.browser.application.test_client()
        bearer = {"Authorization": f"Bearer {token}"}
        site.clock.advance(3000)
        renewed = client.post(f"{AUTH}/session", headers=bearer).get_json()["token"]
        site.clock.advance(3000)
        assert client.get("/api/v1/me", headers=bearer).status_code == 401
        bearer = {"Authorization": f"Bearer {renewed}"}
        assert client.get("/api/v1/me", headers=bearer).status_code == 200
        assert client.post(f"{AUTH}/logout", headers=bearer).status_code == 204
        assert client.get("/api/v1/me", headers=bearer).status_code == 401
        site.clock.advance(1)
        assert site.log_in().status_code == 200

    def test_comes_of_an_id_token_too(self, site: Site) -> None:
        client = site.browser.application.test_client()
        token = site.issuer.token(site.clock.now().timestamp())
        answer = client.post(f"{AUTH}/session", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200
        session = {"Authorization": f"Bearer {answer.get_json()['token']}"}
        assert client.get("/api/v1/me", headers=session).get_json()["credential"] == "session"

    def test_is_not_what_a_key_needs(self, site: Site) -> None:
        client = site.browser.application.test_client()
        answer = client.post(f"{AUTH}/session", headers={"X-API-Key": KEY})
        assert answer.get_json()["code"] == "no-session"

    def test_of_a_cookie_changes_something_from_pages_of_ours_alone(self, site: Site) -> None:
        """Pages of others come with the cookie as well."""
        site.log_in()
        for headers, status in (
            ({}, 401),
            ({"Origin": "https://evil.example"}, 401),
            ({"Sec-Fetch-Site": "cross-site"}, 401),
            ({"Origin": "http://localhost"}, 201),
            ({"Sec-Fetch-Site": "same-origin"}, 201),
        ):
            response = site.browser.post("/api/v1/me/keys", json={}, headers=headers)
            assert response.status_code == status
