"""Who may make which request: every route as every role, and nobody more than they were given."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from shared import bootstrap
from shared.environment import Environment
from shared.identity.directory import Directory, Role, User
from shared.identity.keys import ApiKeys, KeyScope
from shared.identity.permissions import ALL, BUILT_IN_ROLES, Permission
from shared.identity.settings import IdentitySettings
from shared.pipeline.ports import Ports
from shared.web.permissions import NEEDS, OPEN_BLUEPRINTS, is_open
from shared.web.wsgi import create_app
from tests.unit.web_fakes import AUTHORIZED, KEY

NOBODY = "nobody"
ROLES = {**BUILT_IN_ROLES, NOBODY: frozenset[Permission]()}


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(tmp_path)}))
    yield ports
    ports.destinations.close()


@pytest.fixture
def app(ports: Ports) -> Flask:
    return create_app(ports, IdentitySettings(preset_key=KEY))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


class Users:
    """Makes users and keys, and signs in with them."""

    def __init__(self, ports: Ports) -> None:
        self.directory = Directory(ports.documents, ports.clock)
        self.keys = ApiKeys(ports.documents, ports.clock)

    def header(self, name: str, *roles: str, scope: KeyScope | None = None) -> dict[str, str]:
        self.directory.create_user(User(name=name, roles=roles), by="test")
        return self.key_of(name, scope)

    def key_of(self, name: str, scope: KeyScope | None = None) -> dict[str, str]:
        return {"Authorization": f"Api-Key {self.keys.create(name, scope, by='test').text}"}


@pytest.fixture
def users(ports: Ports) -> Users:
    return Users(ports)


def routes(app: Flask) -> list[tuple[Rule, str]]:
    """Every route with each of its methods."""
    return [
        (rule, method)
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]


def path_of(rule: Rule) -> str:
    return re.sub(r"<[^>]*>", "1", rule.rule)


class TestEveryRoute:
    def test_says_whom_it_is_for(self, app: Flask) -> None:
        endpoints = {rule.endpoint for rule, _ in routes(app)}
        undeclared = {one for one in endpoints if not is_open(one) and one not in NEEDS}
        assert not undeclared, "name what they need in shared/web/permissions.py"

    def test_in_the_table_is_there(self, app: Flask) -> None:
        endpoints = {rule.endpoint for rule, _ in routes(app)}
        # Aliases that are not served are what kinds bring by themselves.
        gone = {one for one in NEEDS if one not in endpoints}
        assert not gone

    def test_lets_each_role_in_exactly_where_it_may(self, app: Flask, users: Users) -> None:
        """The views themselves are put aside, so that access alone is judged."""
        for endpoint in app.view_functions:
            app.view_functions[endpoint] = lambda **_: Response(status=299)
        headers = {role: users.header(role, *([] if role == NOBODY else [role])) for role in ROLES}
        client = app.test_client()
        wrong = []
        for rule, method in routes(app):
            for role, permissions in ROLES.items():
                status = client.open(
                    path_of(rule), method=method, headers=headers[role]
                ).status_code
                is_allowed = is_open(rule.endpoint) or NEEDS[rule.endpoint] <= permissions
                if status != (299 if is_allowed else 403):
                    wrong.append((role, method, rule.rule, status))
            status = client.open(path_of(rule), method=method).status_code
            if status != (299 if is_open(rule.endpoint) else 401):
                wrong.append(("without a key", method, rule.rule, status))
        assert not wrong

    def test_that_declares_nothing_is_closed_to_the_administrator(self, app: Flask) -> None:
        app.add_url_rule("/api/v1/forgotten", "forgotten", lambda: "open")
        response = app.test_client().get("/api/v1/forgotten", headers=AUTHORIZED)
        assert response.status_code == 403

    def test_the_root_points_to_the_documentation_and_tells_no_more(
        self, client: FlaskClient
    ) -> None:
        response = client.get("/")
        assert response.get_json() == {"name": "Axiom Flow", "documentation": "/api/v1/docs"}

    def test_but_these_three_kinds_needs_a_key(self) -> None:
        """Whoever opens another changes this on purpose."""
        assert {"health", "documentation", "login"} == OPEN_BLUEPRINTS


class TestRefusals:
    def test_tell_nothing_of_what_exists(self, client: FlaskClient, users: Users) -> None:
        header = users.header("up", "uploader")
        here = client.get("/api/v1/config/destinations/primary-storage", headers=header)
        nowhere = client.get("/api/v1/config/destinations/nowhere", headers=header)
        assert here.status_code == 403
        assert (here.status_code, here.data) == (nowhere.status_code, nowhere.data)

    def test_are_the_same_for_known_and_unknown_paths_without_a_key(
        self, client: FlaskClient
    ) -> None:
        known, unknown = client.get("/api/v1/config"), client.get("/api/v1/nowhere")
        assert (known.status_code, known.data) == (unknown.status_code, unknown.data)
        assert known.status_code == 401
        assert "Api-Key" in known.headers["WWW-Authenticate"]

    def test_are_not_talked_round_by_headers(self, client: FlaskClient, users: Users) -> None:
        viewer = users.header("view", "viewer")
        path = "/api/v1/config/destinations/primary-storage"
        for headers in (
            {"X-HTTP-Method-Override": "DELETE"},
            {"X-HTTP-Method": "DELETE"},
            {"X-Original-URL": "/api/v1/users"},
            {"X-Forwarded-For": "10.0.0.1"},
            {"X-Forwarded-Host": "evil.example"},
            {"X-Goog-IAP-JWT-Assertion": "e30.e30.e30"},
            {"X-Goog-Authenticated-User-Email": "accounts.google.com:admin@example.org"},
        ):
            both = {**viewer, **headers}
            assert client.post("/api/v1/users", json={"name": "x"}, headers=both).status_code == 403
            assert client.get(path, headers=both).status_code == 200
            assert client.get(path, headers=headers).status_code == 401
        assert client.get(path, headers=AUTHORIZED).status_code == 200


class TestAnEditorOfRules:
    """May tune whom standardizers ask, and not have a secret of ours sent to any address."""

    PROVIDER: ClassVar = {
        "type": "openai",
        "base_url": "http://models.hospital.example/v1",
        "token_secret": "models",
        "model": "m",
    }
    PATH = "/api/v1/config/standardizers"

    @pytest.fixture
    def editor(self, client: FlaskClient, users: Users) -> dict[str, str]:
        body = {"name": "parts", "attributes": ["BodyPartExamined"], "providers": [self.PROVIDER]}
        assert client.post(self.PATH, json=body, headers=AUTHORIZED).status_code == 201
        return users.header("ed", "editor")

    @pytest.mark.parametrize(
        "wish",
        [
            {"base_url": "http://elsewhere.example/v1"},
            {"token_secret": "another"},
            {"base_url": ["http://elsewhere.example/v1"]},
        ],
    )
    def test_may_not_say_who_is_asked(
        self, client: FlaskClient, editor: dict[str, str], wish: dict[str, Any]
    ) -> None:
        providers = [{"type": "embedded"}, {**self.PROVIDER, **wish}]
        body = {"name": "parts", "attributes": ["BodyPartExamined"], "providers": providers}
        other = {**body, "name": "other"}
        one = f"{self.PATH}/parts"
        assert client.post(self.PATH, json=other, headers=editor).status_code == 403
        assert client.put(one, json=body, headers=editor).status_code == 403
        patched = client.patch(
            one,
            data=json.dumps({"providers": providers}),
            content_type="application/merge-patch+json",
            headers=editor,
        )
        assert patched.status_code == 403
        assert client.get(one, headers=editor).get_json()["providers"] == [self.PROVIDER]

    def test_may_use_and_tune_who_is_asked_already(
        self, client: FlaskClient, editor: dict[str, str]
    ) -> None:
        providers = [{"type": "embedded"}, {**self.PROVIDER, "threshold": 0.9}]
        body = {"name": "other", "attributes": ["Laterality"], "providers": providers}
        assert client.post(self.PATH, json=body, headers=editor).status_code == 201


class TestKeysAndUsers:
    def test_a_key_may_no_more_than_its_user_and_its_roles(
        self, client: FlaskClient, users: Users
    ) -> None:
        users.header("op", "operator")
        as_viewer = users.key_of("op", KeyScope(roles=("viewer",)))
        as_admin = users.key_of("op", KeyScope(roles=("admin",)))
        assert client.get("/api/v1/exceptions", headers=as_viewer).status_code == 200
        bulk = "/api/v1/exceptions/bulk"
        assert client.post(bulk, json={}, headers=as_viewer).status_code == 403
        assert client.get("/api/v1/users", headers=as_admin).status_code == 403

    def test_a_key_of_another_network_is_no_key(self, client: FlaskClient, users: Users) -> None:
        here = users.header("a", "viewer", scope=KeyScope(addresses=("127.0.0.0/8",)))
        there = users.header("b", "viewer", scope=KeyScope(addresses=("10.0.0.0/8",)))
        assert client.get("/api/v1/me", headers=here).status_code == 200
        assert client.get("/api/v1/me", headers=there).status_code == 401

    def test_a_user_who_is_switched_off_is_nobody(self, client: FlaskClient, users: Users) -> None:
        header = users.header("ada", "viewer")
        assert client.get("/api/v1/me", headers=header).status_code == 200
        off = {"roles": ["viewer"], "enabled": False}
        assert client.put("/api/v1/users/ada", json=off, headers=AUTHORIZED).status_code == 200
        assert client.get("/api/v1/me", headers=header).status_code == 401

    def test_a_user_who_is_removed_takes_their_keys_along(
        self, client: FlaskClient, users: Users
    ) -> None:
        header = users.header("ada", "viewer")
        assert client.delete("/api/v1/users/ada", headers=AUTHORIZED).status_code == 204
        users.directory.create_user(User(name="ada", roles=("viewer",)), by="test")
        assert client.get("/api/v1/me", headers=header).status_code == 401

    def test_an_administrator_adds_a_user_who_uses_a_key(self, client: FlaskClient) -> None:
        asked = {"name": "ct-1", "roles": ["uploader"]}
        made = client.post("/api/v1/users", json=asked, headers=AUTHORIZED)
        assert (made.status_code, made.headers["Location"]) == (201, "/api/v1/users/ct-1")
        key = client.post(
            "/api/v1/users/ct-1/keys",
            json={"label": "CT 1", "addresses": ["127.0.0.1"]},
            headers=AUTHORIZED,
        )
        assert key.status_code == 201
        me = client.get("/api/v1/me", headers={"X-API-Key": key.get_json()["key"]}).get_json()
        assert (me["name"], me["permissions"]) == ("ct-1", ["instances:store"])
        listed = client.get("/api/v1/users/ct-1/keys", headers=AUTHORIZED).get_json()["items"]
        assert [one["label"] for one in listed] == ["CT 1"]
        assert "sha256" not in listed[0]

    def test_own_keys_are_made_rotated_and_revoked(self, client: FlaskClient, users: Users) -> None:
        header = users.header("ada", "viewer")
        made = client.post("/api/v1/me/keys", json={"label": "laptop"}, headers=header).get_json()
        rotated = client.post(f"/api/v1/me/keys/{made['id']}/rotate", headers=header)
        assert rotated.status_code == 201
        assert client.get("/api/v1/me", headers={"X-API-Key": made["key"]}).status_code == 401
        new = rotated.get_json()
        assert client.get("/api/v1/me", headers={"X-API-Key": new["key"]}).status_code == 200
        assert client.delete(f"/api/v1/me/keys/{new['id']}", headers=header).status_code == 204
        assert client.get("/api/v1/me", headers={"X-API-Key": new["key"]}).status_code == 401

    def test_a_key_with_a_wrong_wish_names_every_fault(
        self, client: FlaskClient, users: Users
    ) -> None:
        asked = {"addresses": ["10.0.0.0/33"], "colour": "red", "roles": 7}
        response = client.post("/api/v1/me/keys", json=asked, headers=users.header("a", "viewer"))
        assert response.status_code == 422
        paths = {fault["path"] for fault in response.get_json()["faults"]}
        assert {"addresses.0", "colour", "roles"} <= paths


class TestNobodyRaisesThemselves:
    """A manager of users, who may do little else, tries to become an administrator."""

    @pytest.fixture
    def manager(self, users: Users) -> dict[str, str]:
        role = Role(
            name="user-manager",
            permissions=(Permission.USERS_READ, Permission.USERS_WRITE, Permission.METRICS_READ),
        )
        users.directory.create_role(role, by="test")
        users.header("root", "admin")
        return users.header("mallory", "user-manager")

    def test_and_is_refused(self, client: FlaskClient, manager: dict[str, str]) -> None:
        before = client.get("/api/v1/users", headers=AUTHORIZED).get_json()
        attempts: list[tuple[str, str, Any]] = [
            ("PUT", "users/mallory", {"roles": ["admin"]}),
            ("PUT", "users/mallory", {"roles": []}),
            ("DELETE", "users/mallory", None),
            ("POST", "users", {"name": "eve", "roles": ["admin"]}),
            ("POST", "users", {"name": "eve", "roles": ["viewer"]}),
            ("PUT", "users/root", {"roles": []}),
            ("PUT", "users/root", {"roles": ["admin"], "email": "mallory@example.org"}),
            ("DELETE", "users/root", None),
            ("POST", "users/root/keys", {}),
            ("POST", "users/root/end-sessions", None),
            ("POST", "roles", {"name": "all", "permissions": ["patients:read"]}),
            ("PUT", "roles/user-manager", {"permissions": ["users:write"]}),
            ("PUT", "roles/admin", {"permissions": []}),
            ("DELETE", "roles/admin", None),
        ]
        for method, path, document in attempts:
            response = client.open(f"/api/v1/{path}", method=method, json=document, headers=manager)
            assert response.status_code == 403, (method, path)
        assert client.get("/api/v1/users", headers=AUTHORIZED).get_json() == before

    def test_but_gives_others_what_they_may_themselves(
        self, client: FlaskClient, manager: dict[str, str]
    ) -> None:
        role = {"name": "watcher", "permissions": ["metrics:read"]}
        assert client.post("/api/v1/roles", json=role, headers=manager).status_code == 201
        user = {"name": "eve", "roles": ["watcher"]}
        assert client.post("/api/v1/users", json=user, headers=manager).status_code == 201
        assert client.post("/api/v1/users/eve/keys", headers=manager).status_code == 201
        assert client.delete("/api/v1/roles/watcher", headers=manager).status_code == 409

    def test_nor_by_names_that_are_not_theirs_to_set(
        self, client: FlaskClient, manager: dict[str, str]
    ) -> None:
        for extra in (
            {"sessions_end_at": ""},
            {"created_by": "x"},
            {"permissions": ["users:read"]},
        ):
            asked = {"name": "eve", "roles": [], **extra}
            response = client.post("/api/v1/users", json=asked, headers=manager)
            assert response.status_code == 422

    @pytest.mark.parametrize(
        "scope",
        [KeyScope(roles=("admin",)), KeyScope(addresses=("127.0.0.0/8",))],
    )
    def test_nor_by_a_limited_key_that_makes_one_without_limits(
        self, client: FlaskClient, users: Users, scope: KeyScope
    ) -> None:
        header = users.header("root", "admin", scope=scope)
        assert client.post("/api/v1/me/keys", headers=header).status_code == 403
        user = {"name": "eve", "roles": ["admin"]}
        assert client.post("/api/v1/users", json=user, headers=header).status_code == 403

    def test_nor_by_keys_of_others(self, client: FlaskClient, users: Users) -> None:
        """Another's key is as one that is not there."""
        mine = users.header("ada", "viewer")
        users.header("bob", "admin")
        theirs = users.keys.list("bob").documents[0].key
        for method, path in (("DELETE", ""), ("POST", "/rotate")):
            known = client.open(f"/api/v1/me/keys/{theirs}{path}", method=method, headers=mine)
            assert known.status_code == 404
        assert users.keys.list("bob").documents


class TestLimits:
    def test_too_many_requests_are_told_when_to_come_back(
        self, client: FlaskClient, ports: Ports
    ) -> None:
        ports.configuration.apply(
            {"settings": {"api_rate_limit_per_s": 0.01, "api_rate_limit_burst": 3}}, by="test"
        )
        answers = [client.get("/api/v1/me", headers=AUTHORIZED) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert answers[-1].get_json()["code"] == "too-many-requests"

    def test_guessing_keys_is_slowed_down_and_spares_other_addresses(
        self, client: FlaskClient
    ) -> None:
        guesses = {"Authorization": "Api-Key wrong"}
        statuses = [client.get("/api/v1/me", headers=guesses).status_code for _ in range(150)]
        assert set(statuses) == {401, 429}
        elsewhere = client.get(
            "/api/v1/me", headers=AUTHORIZED, environ_overrides={"REMOTE_ADDR": "10.9.9.9"}
        )
        assert elsewhere.status_code == 200


class TestBrowsers:
    ORIGIN = "https://viewer.example"

    @pytest.fixture
    def client(self, ports: Ports) -> FlaskClient:
        settings = IdentitySettings(preset_key=KEY, cors_origins=(self.ORIGIN,))
        return create_app(ports, settings).test_client()

    def test_pages_of_allowed_origins_may_ask(self, client: FlaskClient) -> None:
        asks = {"Origin": self.ORIGIN, "Access-Control-Request-Method": "PUT"}
        preflight = client.options("/api/v1/config/settings", headers=asks)
        assert preflight.status_code == 204
        assert preflight.headers["Access-Control-Allow-Origin"] == self.ORIGIN
        assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
        response = client.get("/api/v1/me", headers={**AUTHORIZED, "Origin": self.ORIGIN})
        assert response.headers["Access-Control-Allow-Origin"] == self.ORIGIN
        assert "ETag" in response.headers["Access-Control-Expose-Headers"]

    def test_pages_of_others_may_not(self, client: FlaskClient) -> None:
        for origin in ("https://evil.example", "null", "https://viewer.example.evil.example"):
            asks = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
            assert client.options("/api/v1/me", headers=asks).status_code == 401
            response = client.get("/api/v1/me", headers={**AUTHORIZED, "Origin": origin})
            assert "Access-Control-Allow-Origin" not in response.headers

    def test_an_administrator_may_everything(self, client: FlaskClient) -> None:
        me = client.get("/api/v1/me", headers=AUTHORIZED).get_json()
        assert set(me["permissions"]) == {str(one) for one in ALL}
