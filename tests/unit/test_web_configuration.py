"""The configuration over HTTP: whole or not at all, and every fault named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient

from shared import bootstrap
from shared.environment import Environment
from shared.pipeline.ports import Ports
from shared.web.documents_in import MAX_DOCUMENT_BYTES
from tests.unit.web_fakes import AUTHORIZED, KEY, client_over

CONFIG = "/api/v1/config"

# As issued by the people who use it, word for word.
CHEST = (
    '{"name":"ct-chest-routing","execution_mode":"FIRST_MATCH","rules":[{"name":"route-ct-chest",'
    '"conditions":[{"type":"tag_equals","tag":"(0x0008,0x0060)","value":"CT"},'
    '{"type":"tag_contains","tag":"(0x0018,0x0015)","value":"CHEST"}],'
    '"actions":[{"type":"set","tag":"(0x0008,0x103E)","value":"CHEST CT - PROCESSED"}],'
    '"storage_backends":["primary-storage"]}]}'
)
ARCHIVE = {"name": "archive", "type": "filesystem", "path": "archive"}
LISTENER = {
    "name": "main-listener",
    "ae_title": "AXIOM",
    "port": 11112,
    "host": "0.0.0.0",
    "max_pdu_size": 16384,
    "enabled": True,
    "instance_filter": "prod",
}
JSON = {**AUTHORIZED, "Content-Type": "application/json"}


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(tmp_path)}))
    yield ports
    ports.destinations.close()


@pytest.fixture
def client(ports: Ports) -> FlaskClient:
    return client_over(ports)


def fault_paths(response: Any) -> set[str]:
    assert response.content_type == "application/problem+json"
    return {fault["path"] for fault in response.get_json()["faults"]}


class TestEntities:
    def test_the_request_of_the_handbook_works_word_for_word(
        self, client: FlaskClient, ports: Ports
    ) -> None:
        response = client.post(f"{CONFIG}/rulesets", data=CHEST, headers=JSON)
        assert response.status_code == 201
        assert response.headers["Location"] == f"{CONFIG}/rulesets/ct-chest-routing"
        assert response.get_json()["rules"][0]["name"] == "route-ct-chest"
        assert ports.configuration.list("rulesets")[0]["name"] == "ct-chest-routing"

    @pytest.mark.parametrize(
        ("collection", "document"),
        [
            ("destinations", ARCHIVE),
            ("storage-backends", ARCHIVE),
            ("listeners", LISTENER),
            ("dimse-listeners", LISTENER),
        ],
    )
    def test_every_kind_is_created_read_listed_replaced_and_deleted(
        self, client: FlaskClient, collection: str, document: dict[str, Any]
    ) -> None:
        one = f"{CONFIG}/{collection}/{document['name']}"
        created = client.post(f"{CONFIG}/{collection}", json=document, headers=AUTHORIZED)
        assert (created.status_code, created.headers["Location"]) == (201, one)
        assert client.get(one, headers=AUTHORIZED).get_json() == document
        listed = client.get(f"{CONFIG}/{collection}", headers=AUTHORIZED).get_json()["items"]
        assert document in listed
        changed = {**document, "enabled": False}
        assert client.put(one, json=changed, headers=AUTHORIZED).get_json() == changed
        assert client.delete(one, headers=AUTHORIZED).status_code == 204
        assert client.get(one, headers=AUTHORIZED).status_code == 404

    def test_what_exists_is_not_created_again(self, client: FlaskClient) -> None:
        client.post(f"{CONFIG}/destinations", json=ARCHIVE, headers=AUTHORIZED)
        response = client.post(f"{CONFIG}/destinations", json=ARCHIVE, headers=AUTHORIZED)
        assert response.status_code == 409
        assert response.get_json()["code"] == "document-exists"

    def test_what_is_missing_is_neither_replaced_nor_deleted(self, client: FlaskClient) -> None:
        one = f"{CONFIG}/destinations/archive"
        assert client.put(one, json=ARCHIVE, headers=AUTHORIZED).status_code == 404
        assert client.delete(one, headers=AUTHORIZED).status_code == 404

    def test_what_is_used_is_not_deleted(self, client: FlaskClient) -> None:
        """The first configuration routes to it by default."""
        response = client.delete(f"{CONFIG}/destinations/primary-storage", headers=AUTHORIZED)
        assert response.status_code == 409
        assert fault_paths(response) == {"settings.default_route[0]"}

    def test_a_change_is_recorded_under_the_name_of_its_author(
        self, client: FlaskClient, ports: Ports
    ) -> None:
        client.post(f"{CONFIG}/destinations", json=ARCHIVE, headers=AUTHORIZED)
        history = ports.documents.query("configuration-history").documents
        assert history[-1].data["by"] == "preset (key preset)"

    def test_two_people_cannot_overwrite_each_other_unseen(self, client: FlaskClient) -> None:
        one = f"{CONFIG}/destinations/archive"
        created = client.post(f"{CONFIG}/destinations", json=ARCHIVE, headers=AUTHORIZED)
        seen = {**AUTHORIZED, "If-Match": created.headers["ETag"]}
        first = client.put(one, json={**ARCHIVE, "path": "one"}, headers=seen)
        second = client.put(one, json={**ARCHIVE, "path": "two"}, headers=seen)
        deletion = client.delete(one, headers=seen)
        assert (first.status_code, second.status_code, deletion.status_code) == (200, 412, 412)
        assert client.get(one, headers=AUTHORIZED).get_json()["path"] == "one"
        latest = {**AUTHORIZED, "If-Match": first.headers["ETag"]}
        assert client.delete(one, headers=latest).status_code == 204

    def test_what_the_client_knows_is_not_sent_again(self, client: FlaskClient) -> None:
        one = f"{CONFIG}/destinations/primary-storage"
        etag = client.get(one, headers=AUTHORIZED).headers["ETag"]
        response = client.get(one, headers={**AUTHORIZED, "If-None-Match": etag})
        assert (response.status_code, response.data) == (304, b"")


class TestBadDocuments:
    def test_every_fault_is_named_and_nothing_is_applied(
        self, client: FlaskClient, ports: Ports
    ) -> None:
        before = ports.configuration.export()
        bad = {**LISTENER, "port": 70_000, "ae_title": "", "colour": "red"}
        response = client.post(f"{CONFIG}/listeners", json=bad, headers=AUTHORIZED)
        assert response.status_code == 422
        assert response.get_json()["code"] == "invalid-configuration"
        assert fault_paths(response) == {"port", "ae_title", "colour"}
        assert ports.configuration.export() == before

    def test_a_rule_that_names_a_missing_destination_is_refused(self, client: FlaskClient) -> None:
        text = CHEST.replace("primary-storage", "primary-strage").replace("(0x0008,0x0060)", "(,)")
        response = client.post(f"{CONFIG}/rulesets", data=text, headers=JSON)
        assert response.status_code == 422
        assert len(fault_paths(response)) == 2

    @pytest.mark.parametrize(
        ("text", "content_type", "status"),
        [
            ('{"name": ', "application/json", 422),
            ("\xff", "application/json", 422),
            ('{"name": "a", "name": "b"}', "application/json", 422),
            ('{"name": NaN}', "application/json", 422),
            ("[" * 100_000, "application/json", 422),
            ('["name"]', "application/json", 422),
            ('"name"', "application/json", 422),
            ("", "application/json", 422),
            ("{}", "application/json", 422),
            ("{}", "application/x-www-form-urlencoded", 415),
            ("name: a", "application/yaml", 415),
        ],
    )
    def test_what_is_no_document_is_refused(
        self, client: FlaskClient, text: str, content_type: str, status: int
    ) -> None:
        response = client.post(
            f"{CONFIG}/rulesets",
            data=text.encode("latin-1"),
            headers={**AUTHORIZED, "Content-Type": content_type},
        )
        assert response.status_code == status
        assert response.content_type == "application/problem+json"
        if status == 422:
            assert fault_paths(response)

    def test_a_document_that_is_too_large_is_refused(self, client: FlaskClient) -> None:
        response = client.post(
            f"{CONFIG}/rulesets", data=b" " * (MAX_DOCUMENT_BYTES + 1), headers=JSON
        )
        assert response.status_code == 413


class TestSettings:
    def test_shows_defaults_and_replaces(self, client: FlaskClient) -> None:
        known = client.get(f"{CONFIG}/settings", headers=AUTHORIZED)
        assert known.get_json()["original_attributes"] is True
        response = client.put(
            f"{CONFIG}/settings",
            json={"original_attributes": False},
            headers={**AUTHORIZED, "If-Match": known.headers["ETag"]},
        )
        assert response.status_code == 200
        assert response.get_json()["original_attributes"] is False
        again = client.put(
            f"{CONFIG}/settings",
            json={},
            headers={**AUTHORIZED, "If-Match": known.headers["ETag"]},
        )
        assert again.status_code == 412

    def test_names_faults_as_the_client_knows_them(self, client: FlaskClient) -> None:
        bad = {"default_route": ["nowhere"], "max_instance_bytes": 0}
        response = client.put(f"{CONFIG}/settings", json=bad, headers=AUTHORIZED)
        assert response.status_code == 422
        assert "max_instance_bytes" in fault_paths(response)


class TestWhole:
    def test_what_is_exported_can_be_imported_elsewhere(
        self, client: FlaskClient, ports: Ports, tmp_path: Path
    ) -> None:
        client.post(f"{CONFIG}/rulesets", data=CHEST, headers=JSON)
        exported = client.get(CONFIG, headers={**AUTHORIZED, "Accept": "application/yaml"})
        assert exported.content_type.startswith("application/yaml")
        other = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(tmp_path / "other")}))
        response = client_over(other).put(
            CONFIG,
            data=exported.data,
            headers={**AUTHORIZED, "Content-Type": "application/yaml"},
        )
        assert response.status_code == 200
        assert other.configuration.export() == ports.configuration.export()

    def test_json_is_the_default(self, client: FlaskClient, ports: Ports) -> None:
        assert client.get(CONFIG, headers=AUTHORIZED).get_json() == ports.configuration.export()

    @pytest.mark.parametrize(
        "text",
        [
            "a: [1",
            "a: &x [1]\nb: *x",
            "!!python/object/apply:os.system [exit]",
            "a: !!binary aGFsbG8=",
            "[" * 5000,
        ],
    )
    def test_yaml_that_is_more_than_values_is_refused(self, client: FlaskClient, text: str) -> None:
        response = client.put(
            CONFIG, data=text, headers={**AUTHORIZED, "Content-Type": "application/yaml"}
        )
        assert response.status_code == 422

    def test_with_any_fault_nothing_is_applied(self, client: FlaskClient, ports: Ports) -> None:
        before = ports.configuration.export()
        text = yaml.safe_dump({"destinations": [ARCHIVE], "listeners": [{"name": "a b"}]})
        response = client.put(
            CONFIG, data=text, headers={**AUTHORIZED, "Content-Type": "application/yaml"}
        )
        assert response.status_code == 422
        assert ports.configuration.export() == before

    def test_a_secret_is_never_shown_again(self, client: FlaskClient) -> None:
        document = {
            "name": "pacs",
            "type": "dicomweb",
            "base_url": "https://pacs.example/dicom-web",
            "auth_type": "bearer_token",
            "credentials": {"token": "hush-hush"},
        }
        created = client.post(f"{CONFIG}/destinations", json=document, headers=AUTHORIZED)
        assert created.status_code == 201
        shown = created.data + client.get(CONFIG, headers=AUTHORIZED).data
        assert b"hush-hush" not in shown


class TestAccess:
    def test_every_route_but_health_documentation_and_sign_in_needs_a_key(
        self, client: FlaskClient
    ) -> None:
        """Whatever is added later is closed until somebody says otherwise."""
        opened = set()
        for rule in client.application.url_map.iter_rules():
            path = rule.rule.replace("<path:filename>", "x").replace("<", "").replace(">", "")
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                if client.open(path, method=method).status_code != 401:
                    opened.add(rule.endpoint.partition(".")[0])
        assert opened == {"health", "documentation", "login"}

    def test_answers_carry_the_headers_that_browsers_heed(self, client: FlaskClient) -> None:
        for path in ("/health", CONFIG, "/api/v1/docs"):
            headers = client.get(path).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert headers["Cache-Control"] == "no-store"

    def test_a_wrong_method_is_told_the_right_ones(self, client: FlaskClient) -> None:
        response = client.patch(f"{CONFIG}/rulesets", headers=AUTHORIZED)
        assert response.status_code == 405
        assert {"GET", "POST"} <= set(response.headers["Allow"].split(", "))
        options = client.options(f"{CONFIG}/rulesets", headers=AUTHORIZED)
        assert (options.status_code, "POST" in options.headers["Allow"]) == (200, True)

    def test_a_slash_at_the_end_is_no_redirect(self, client: FlaskClient) -> None:
        assert client.get(f"{CONFIG}/rulesets/", headers=AUTHORIZED).status_code == 200

    def test_a_bug_tells_the_client_nothing_but_where_to_look(
        self, client: FlaskClient, ports: Ports, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(_: str) -> None:
            raise KeyError("Doe^John")

        monkeypatch.setattr(ports.configuration, "list", broken)
        response = client.get(f"{CONFIG}/rulesets", headers=AUTHORIZED)
        assert response.status_code == 500
        assert "incident" in response.get_json()["detail"]
        assert "Doe" not in response.text


class TestDocumentation:
    def test_describes_every_operation_and_names_each_once(self, client: FlaskClient) -> None:
        document = client.get("/api/v1/docs/openapi.json").get_json()
        assert document["openapi"].startswith("3.1")
        operations = [
            operation["operationId"]
            for path in document["paths"].values()
            for operation in path.values()
        ]
        assert len(operations) == len(set(operations))
        assert {"create_rulesets", "health", "retry_exception"} <= set(operations)

    def test_refers_to_schemas_that_are_there(self, client: FlaskClient) -> None:
        document = client.get("/api/v1/docs/openapi.json").get_json()
        schemas = document["components"]["schemas"]

        def references(value: Any) -> Iterator[str]:
            if isinstance(value, dict):
                if isinstance(value.get("$ref"), str):
                    yield value["$ref"]
                for child in value.values():
                    yield from references(child)
            elif isinstance(value, list):
                for child in value:
                    yield from references(child)

        found = set(references(document))
        assert found
        assert {reference.rpartition("/")[2] for reference in found} <= set(schemas)

    def test_is_shown_by_pages_that_come_from_here_alone(self, client: FlaskClient) -> None:
        page = client.get("/api/v1/docs").text
        for path in ("assets/js/swagger-ui-bundle.js", "assets/css/swagger-ui.css", "start.js"):
            assert f"/api/v1/docs/{path}" in page
            assert client.get(f"/api/v1/docs/{path}").status_code == 200
        assert "http" not in page
        assert KEY not in page
