"""Changes of the configuration in part, on trial, and with an eye on who uses what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from shared import bootstrap
from shared.config.service import merged
from shared.environment import Environment
from shared.pipeline.ports import Ports
from tests.unit.web_fakes import AUTHORIZED, client_over

CONFIG = "/api/v1/config"
PACS = {
    "name": "pacs",
    "type": "dicomweb",
    "base_url": "https://pacs.example/dicom-web",
    "auth_type": "bearer_token",
    "credentials": {"token": "hush-hush"},
}
RULES = {
    "name": "main",
    "execution_mode": "ALL_MATCHES",
    "rules": [{"name": "all", "conditions": [], "destinations": ["pacs"]}],
}


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(tmp_path)}))
    ports.configuration.apply(
        {"destinations": [*ports.configuration.list("destinations"), PACS]}, by="test"
    )
    ports.configuration.create("rulesets", RULES, by="test")
    yield ports
    ports.destinations.close()


@pytest.fixture
def client(ports: Ports) -> FlaskClient:
    return client_over(ports)


def patch(client: FlaskClient, path: str, document: Any, **headers: str) -> Any:
    kind = {"Content-Type": "application/merge-patch+json"}
    return client.patch(
        f"{CONFIG}/{path}", json=document, headers={**AUTHORIZED, **kind, **headers}
    )


def shown_versions(client: FlaskClient) -> int:
    listed = client.get(f"{CONFIG}/versions", headers=AUTHORIZED).get_json()["items"]
    return int(listed[0]["version"])


class TestMergePatch:
    def test_changes_what_it_names_and_takes_away_what_is_null(self, client: FlaskClient) -> None:
        changed = patch(client, "destinations/pacs", {"timeout_s": 5, "max_concurrency": 2})
        assert changed.status_code == 200
        assert changed.get_json()["timeout_s"] == 5
        changed = patch(client, "destinations/pacs", {"timeout_s": None})
        assert "timeout_s" not in changed.get_json()
        assert changed.get_json()["max_concurrency"] == 2

    def test_is_refused_if_somebody_was_first(self, client: FlaskClient) -> None:
        etag = client.get(f"{CONFIG}/destinations/pacs", headers=AUTHORIZED).headers["ETag"]
        seen = {"If-Match": etag}
        assert patch(client, "destinations/pacs", {"timeout_s": 5}, **seen).status_code == 200
        assert patch(client, "destinations/pacs", {"timeout_s": 6}, **seen).status_code == 412

    def test_with_a_fault_changes_nothing(self, client: FlaskClient, ports: Ports) -> None:
        before = ports.configuration.export()
        response = patch(client, "destinations/pacs", {"timeout_s": -1, "colour": "red"})
        assert response.status_code == 422
        assert {f["path"] for f in response.get_json()["faults"]} == {"timeout_s", "colour"}
        assert patch(client, "destinations/nowhere", {}).status_code == 404
        assert ports.configuration.export() == before

    def test_changes_one_setting_and_keeps_the_others(self, client: FlaskClient) -> None:
        assert patch(client, "settings", {"retention_s": 60}).status_code == 200
        settings = patch(client, "settings", {"original_attributes": False}).get_json()
        assert (settings["retention_s"], settings["original_attributes"]) == (60, False)
        back = patch(client, "settings", {"retention_s": None}).get_json()
        assert back["retention_s"] == 7 * 86400

    def test_of_a_secret_moves_it_too(self, client: FlaskClient, ports: Ports) -> None:
        changed = patch(client, "destinations/pacs", {"credentials": {"token": "new-secret"}})
        name = changed.get_json()["credentials"]["token_secret"]
        assert ports.secrets.get(name) == "new-secret"
        assert "new-secret" not in changed.text + str(ports.configuration.export())

    @given(
        st.recursive(
            st.none() | st.integers() | st.text(max_size=3),
            lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=3),
            max_leaves=8,
        )
    )
    def test_of_a_document_on_nothing_is_that_without_its_nulls(self, document: Any) -> None:
        once = merged({}, document)
        assert merged(once, document) == once

    @pytest.mark.parametrize(
        ("before", "changes", "after"),
        [
            # RFC 7396, Appendix A.
            ({"a": "b"}, {"a": "c"}, {"a": "c"}),
            ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
            ({"a": "b"}, {"a": None}, {}),
            ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
            ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
            ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
            ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
            (["a", "b"], ["c", "d"], ["c", "d"]),
            ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
            ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
            ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ],
    )
    def test_does_what_its_rfc_says(self, before: Any, changes: Any, after: Any) -> None:
        assert merged(before, changes) == after


class TestDryRun:
    def test_says_what_would_be_and_stores_nothing(self, client: FlaskClient, ports: Ports) -> None:
        before, version = ports.configuration.export(), shown_versions(client)
        archive = {"name": "archive", "type": "filesystem", "path": "archive"}
        trial = {"query_string": {"dry_run": "true"}, "headers": AUTHORIZED}
        made = client.post(f"{CONFIG}/destinations", json=archive, **trial)
        assert (made.status_code, made.get_json()) == (200, archive)
        one = f"{CONFIG}/destinations/pacs"
        assert client.put(one, json=PACS, **trial).status_code == 200
        assert client.patch(one, json={"timeout_s": 1}, **trial).get_json()["timeout_s"] == 1
        assert (
            client.patch(f"{CONFIG}/settings", json={"retention_s": 1}, **trial).status_code == 200
        )
        assert client.put(CONFIG, json={"rulesets": []}, **trial).get_json()["rulesets"] == []
        assert client.delete(f"{CONFIG}/rulesets/main", **trial).status_code == 204
        assert client.delete(one, **trial).status_code == 409
        assert (ports.configuration.export(), shown_versions(client)) == (before, version)

    def test_names_every_fault(self, client: FlaskClient) -> None:
        response = client.post(
            f"{CONFIG}/destinations?dry_run=true", json={"name": "a b"}, headers=AUTHORIZED
        )
        assert response.status_code == 422

    def test_leaves_secrets_as_they_are_and_shows_none(
        self, client: FlaskClient, ports: Ports
    ) -> None:
        name = ports.configuration.read("destinations", "pacs")["credentials"]["token_secret"]
        tried = client.patch(
            f"{CONFIG}/destinations/pacs?dry_run=true",
            json={"credentials": {"token": "other"}},
            headers=AUTHORIZED,
        )
        assert "other" not in tried.text
        assert ports.secrets.get(name) == "hush-hush"


def test_what_is_named_like_something_with_secrets_may_be_a_word(client: FlaskClient) -> None:
    """`tls` of a database is one."""
    source = {"name": "ris", "type": "mysql", "host": "h", "database": "d", "tls": "require"}
    response = client.post(f"{CONFIG}/crosswalk-sources", json=source, headers=AUTHORIZED)
    assert (response.status_code, response.get_json()) == (201, source)


class TestReferences:
    def test_name_what_uses_an_entity(self, client: FlaskClient) -> None:
        found = client.get(f"{CONFIG}/destinations/pacs/references", headers=AUTHORIZED)
        assert found.get_json()["items"] == [
            {"kind": "rulesets", "name": "main", "path": "rules[0].destinations[0]"}
        ]
        path = f"{CONFIG}/storage-backends/primary-storage/references"
        assert client.get(path, headers=AUTHORIZED).get_json()["items"] == [
            {"kind": "settings", "name": None, "path": "settings.default_route[0]"}
        ]
        unused = client.get(f"{CONFIG}/rulesets/main/references", headers=AUTHORIZED)
        assert unused.get_json()["items"] == []
        nowhere = client.get(f"{CONFIG}/rulesets/nowhere/references", headers=AUTHORIZED)
        assert nowhere.status_code == 404

    def test_keep_it_from_being_removed(self, client: FlaskClient) -> None:
        refused = client.delete(f"{CONFIG}/destinations/pacs", headers=AUTHORIZED)
        assert (refused.status_code, refused.get_json()["code"]) == (409, "still-used")
        (fault,) = refused.get_json()["faults"]
        assert fault["path"] == "rulesets[0].rules[0].destinations[0]"
        assert fault["message"] == "uses the destination 'pacs'"
        assert client.delete(f"{CONFIG}/rulesets/main", headers=AUTHORIZED).status_code == 204
        assert client.delete(f"{CONFIG}/destinations/pacs", headers=AUTHORIZED).status_code == 204


class TestPages:
    def test_of_entities_follow_each_other(self, client: FlaskClient) -> None:
        names: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            query = {"limit": "1", **({"cursor": cursor} if cursor else {})}
            page = client.get(
                f"{CONFIG}/destinations", query_string=query, headers=AUTHORIZED
            ).get_json()
            names += [one["name"] for one in page["items"]]
            cursor = page["next_cursor"]
        assert names == ["primary-storage", "pacs"]

    def test_of_versions_follow_each_other(self, client: FlaskClient) -> None:
        found: list[int] = []
        query = {"limit": "2"}
        while True:
            page = client.get(
                f"{CONFIG}/versions", query_string=query, headers=AUTHORIZED
            ).get_json()
            found += [one["version"] for one in page["items"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert found == [3, 2, 1]
        foreign = client.get(f"{CONFIG}/versions?cursor=x", headers=AUTHORIZED)
        assert foreign.status_code == 400

    @pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "²"])
    def test_begin_at_no_foreign_cursor(self, client: FlaskClient, cursor: str) -> None:
        response = client.get(
            f"{CONFIG}/destinations", query_string={"cursor": cursor}, headers=AUTHORIZED
        )
        assert response.status_code == 400


class TestAudit:
    def test_has_who_changed_what_from_what_to_what_and_where_from(
        self, client: FlaskClient
    ) -> None:
        patch(client, "destinations/pacs", {"timeout_s": 5, "credentials": {"token": "s3cret"}})
        entry = client.get("/api/v1/audit", headers=AUTHORIZED).get_json()["items"][0]
        assert (entry["what"], entry["who"]) == ("configuration.change", "preset (key preset)")
        assert entry["address"] == "127.0.0.1"
        assert {"path": "destinations[pacs].timeout_s", "before": None, "after": 5} in entry[
            "changes"
        ]
        assert "s3cret" not in str(entry)

    def test_is_exported_as_json_lines(self, client: FlaskClient) -> None:
        response = client.get("/api/v1/audit/export", headers=AUTHORIZED)
        assert response.mimetype == "application/x-ndjson"
        lines = [yaml.safe_load(line) for line in response.text.splitlines()]
        # Who looked is in it too.
        assert [line["what"] for line in lines] == ["audit.export", *["configuration.change"] * 2]
        as_dicom = client.get("/api/v1/audit/export?format=dicom", headers=AUTHORIZED)
        assert all(line.startswith("<AuditMessage>") for line in as_dicom.text.splitlines())


def test_what_is_exported_as_yaml_and_imported_again_is_the_same(
    client: FlaskClient, ports: Ports
) -> None:
    """Nothing changes, so that there is not even a new version."""
    version = shown_versions(client)
    as_yaml = {**AUTHORIZED, "Accept": "application/yaml"}
    exported = client.get(CONFIG, headers=as_yaml)
    again = client.put(
        CONFIG,
        data=exported.data,
        headers={
            **as_yaml,
            "Content-Type": "application/yaml",
            "If-Match": exported.headers["ETag"],
        },
    )
    assert (again.status_code, again.data) == (200, exported.data)
    assert shown_versions(client) == version
    assert "hush-hush" not in exported.text
