"""What somebody tries who means harm: injection, traversal, bombs, overrides, others' things."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared import bootstrap
from shared.environment import Environment
from shared.identity.keys import ApiKeys
from shared.pipeline.ports import Ports
from shared.web.permissions import is_open
from tests.unit.web_fakes import AUTHORIZED, STUDIES, client_over, part10

CONFIG = "/api/v1/config"
JSON = {**AUTHORIZED, "Content-Type": "application/json"}
ODD = [
    "' OR '1'='1",
    "1; DROP TABLE documents; --",
    "../../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "/etc/passwd",
    "a\x00b",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "${jndi:ldap://x}",
    "%0d%0aSet-Cookie:x=1",
    "\ud7ff\U0001f4a3",
    "a" * 5000,
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def ports(home: Path) -> Iterator[Ports]:
    ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(home)}))
    yield ports
    ports.destinations.close()


@pytest.fixture(scope="module")
def client(ports: Ports) -> FlaskClient:
    return client_over(ports)


class TestInjection:
    def test_odd_names_are_names_that_are_not_there(
        self, client: FlaskClient, ports: Ports
    ) -> None:
        before = ports.configuration.export()
        for text in ODD:
            for path in (
                f"{CONFIG}/destinations/{text}",
                f"/api/v1/instances/{text}",
                f"/api/v1/exceptions/{text}",
                f"/api/v1/users/{text}",
                f"/api/v1/jobs/{text}",
                f"/api/v1/docs/assets/{text}",
            ):
                response = client.get(path, headers=AUTHORIZED)
                assert response.status_code in (400, 404), path
                assert "root:" not in response.text
                assert response.content_type == "application/problem+json"
        assert ports.configuration.export() == before

    def test_odd_filters_find_nothing(self, client: FlaskClient) -> None:
        for text in ODD:
            for path, name in (
                ("/api/v1/instances", "sop_instance_uid"),
                ("/api/v1/exceptions", "q"),
                ("/api/v1/deliveries", "destination"),
                ("/api/v1/instances", "cursor"),
            ):
                found = client.get(path, query_string={name: text}, headers=AUTHORIZED)
                assert found.status_code in (200, 400)
                if found.status_code == 200:
                    assert found.get_json()["items"] == []

    def test_odd_names_name_no_new_thing(self, client: FlaskClient, home: Path) -> None:
        for text in ODD:
            entity = {"name": text, "type": "filesystem", "path": "x"}
            made = client.post(f"{CONFIG}/destinations", json=entity, headers=AUTHORIZED)
            assert made.status_code == 422
            user = client.post("/api/v1/users", json={"name": text}, headers=AUTHORIZED)
            assert user.status_code == 422
        path = {"name": "up", "type": "filesystem", "path": "../../outside"}
        assert (
            client.post(f"{CONFIG}/destinations", json=path, headers=AUTHORIZED).status_code == 422
        )
        assert not (home.parent / "outside").exists()

    def test_a_parameter_that_a_route_has_not_is_refused(
        self, client: FlaskClient, ports: Ports
    ) -> None:
        """`dry_run` above all: where there is none, it would be done."""
        refused = client.post(
            "/api/v1/users?dry_run=true", json={"name": "tried", "roles": []}, headers=AUTHORIZED
        )
        assert refused.status_code == 422
        assert refused.get_json()["faults"][0]["path"] == "dry_run"
        assert client.get("/api/v1/users/tried", headers=AUTHORIZED).status_code == 404
        for rule in client.application.url_map.iter_rules():
            if is_open(rule.endpoint) or rule.endpoint.startswith(("dicomweb.", "metrics.")):
                continue
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                names = dict.fromkeys(rule.arguments, "1")
                _, path = rule.build(names) or ("", "")
                response = client.open(f"{path}?no_such=1", method=method, headers=AUTHORIZED)
                assert response.status_code == 422, (method, rule.rule)
                faults = response.get_json()["faults"]
                assert "no_such" in [fault["path"] for fault in faults], (method, rule.rule)

    def test_a_header_breaks_into_no_other(self, client: FlaskClient) -> None:
        """Werkzeug refuses line ends in header fields; none may come from a document either."""
        role = {"name": "r", "description": "a\r\nSet-Cookie: x=1"}
        made = client.post("/api/v1/roles", json=role, headers=AUTHORIZED)
        assert made.status_code == 201
        assert "Set-Cookie" not in made.headers


class TestBombs:
    @pytest.mark.parametrize(
        ("body", "content_type"),
        [
            (b"[" * 1_000_000, "application/json"),
            (b'{"a":' * 200_000, "application/json"),
            (b'{"name":' + b"9" * 400_000 + b"}", "application/json"),
            (b'{"name":1e999999}', "application/json"),
            (b"a: &a [1]\nb: [*a, *a]", "application/yaml"),
            (b"- " * 100_000, "application/yaml"),
            (b"{" * 50_000, "application/yaml"),
        ],
    )
    def test_are_refused_and_cost_little(
        self, client: FlaskClient, body: bytes, content_type: str
    ) -> None:
        path = CONFIG if "yaml" in content_type else f"{CONFIG}/destinations"
        method = "PUT" if "yaml" in content_type else "POST"
        headers = {**AUTHORIZED, "Content-Type": content_type}
        response = client.open(path, method=method, data=body, headers=headers)
        assert response.status_code == 422

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP", "identity, gzip"])
    def test_that_are_compressed_are_not_unpacked(self, client: FlaskClient, encoding: str) -> None:
        headers = {**AUTHORIZED, "Content-Encoding": encoding}
        stow = client.post(
            STUDIES, data=part10(), headers={**headers, "Content-Type": "application/dicom"}
        )
        document = client.post(f"{CONFIG}/destinations", data=b"{}", headers={**JSON, **headers})
        assert (stow.status_code, document.status_code) == (415, 415)
        assert stow.get_json()["code"] == "unsupported-content-encoding"
        assert stow.headers["Accept-Encoding"] == "identity"


class TestOverrides:
    def test_the_method_is_the_one_that_was_sent(self, client: FlaskClient, ports: Ports) -> None:
        one = f"{CONFIG}/destinations/primary-storage"
        for headers in ({"X-HTTP-Method-Override": "DELETE"}, {"X-Method-Override": "DELETE"}):
            assert client.get(one, headers={**AUTHORIZED, **headers}).status_code == 200
        assert client.get(f"{one}?_method=DELETE", headers=AUTHORIZED).status_code == 422
        for method in ("TRACE", "CONNECT", "PROPFIND", "BREW"):
            assert client.open(one, method=method, headers=AUTHORIZED).status_code == 405
        assert ports.configuration.read("destinations", "primary-storage")

    def test_a_form_is_no_document(self, client: FlaskClient) -> None:
        """A page of another origin can send a form without asking."""
        for content_type in ("application/x-www-form-urlencoded", "text/plain", ""):
            response = client.post(
                "/api/v1/users",
                data='{"name": "eve", "roles": ["admin"]}',
                headers={**AUTHORIZED, "Content-Type": content_type},
            )
            assert response.status_code == 415

    def test_what_the_system_writes_itself_nobody_else_does(self, client: FlaskClient) -> None:
        for path, document in (
            ("/api/v1/users", {"name": "a", "created_by": "somebody"}),
            ("/api/v1/roles", {"name": "a", "built_in": True}),
            ("/api/v1/me/keys", {"user": "admin", "sha256": "0" * 64}),
            (f"{CONFIG}/destinations", {"name": "a", "type": "filesystem", "path": "a", "id": 1}),
            ("/api/v1/exceptions/bulk", {"action": "retry", "by": "somebody"}),
        ):
            response = client.post(path, json=document, headers=AUTHORIZED)
            assert response.status_code == 422, path
            assert response.get_json()["faults"]


class TestLeaks:
    def test_secrets_are_in_no_answer_and_no_audit_entry(self, client: FlaskClient) -> None:
        entity = {
            "name": "leaky",
            "type": "dicomweb",
            "base_url": "https://pacs.example/web",
            "auth_type": "basic",
            "credentials": {"username": "u", "password": "s3cr3t-value"},
        }
        made = client.post(f"{CONFIG}/destinations", json=entity, headers=AUTHORIZED)
        assert made.status_code == 201
        bad = {**entity, "name": "bad name", "auth_type": "bearer_token"}
        refused = client.post(f"{CONFIG}/destinations", json=bad, headers=AUTHORIZED)
        assert refused.status_code == 422
        shown = made.text + refused.text
        for path in (CONFIG, f"{CONFIG}/versions/2", f"{CONFIG}/versions/2/diff", "/api/v1/audit"):
            shown += client.get(path, headers=AUTHORIZED).text
        assert "s3cr3t-value" not in shown

    def test_an_address_takes_no_password(self, client: FlaskClient) -> None:
        entity = {"name": "a", "type": "dicomweb", "base_url": "https://u:hush@pacs.example/web"}
        refused = client.post(f"{CONFIG}/destinations", json=entity, headers=AUTHORIZED)
        assert refused.status_code == 422
        assert "hush" not in refused.text

    def test_keys_are_compared_in_a_time_that_tells_nothing(
        self, ports: Ports, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A near miss, a far one and a key that is not there: each is one comparison of digests."""
        lengths: list[tuple[int, int]] = []
        compare = hmac.compare_digest

        def noted(one: bytes, other: bytes) -> bool:
            lengths.append((len(one), len(other)))
            return compare(one, other)

        monkeypatch.setattr("shared.identity.keys.hmac.compare_digest", noted)
        keys = ApiKeys(ports.documents, ports.clock)
        text = keys.create("ada", by="test").text
        other = "B" if text[-1] == "A" else "A"
        unknown = f"axk_{'0' * 12}_{text[-43:]}"
        for wrong in (text[:-1] + other, text[:-43] + other * 43, unknown):
            assert keys.verify(wrong) is None
        assert keys.verify(text) is not None
        assert lengths == [(32, 32)] * 4


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]),
    path=st.sampled_from(
        [CONFIG, f"{CONFIG}/settings", f"{CONFIG}/rulesets", "/api/v1/users", "/api/v1/me/keys"]
    ),
    content_type=st.sampled_from(["application/json", "application/yaml", "a/b;c=", ""]),
    body=st.binary(max_size=60) | st.text(max_size=30).map(str.encode),
)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_strangers_send_is_answered_with_a_problem(
    client: FlaskClient, method: str, path: str, content_type: str, body: bytes
) -> None:
    headers = {**AUTHORIZED, "Content-Type": content_type}
    response = client.open(path, method=method, data=body, headers=headers)
    assert response.status_code < 500
    if response.status_code >= 400:
        assert response.content_type == "application/problem+json"
        assert {"type", "title", "status", "code", "detail"} <= response.get_json().keys()
