"""The rules of a ruleset one by one: each change is checked with the whole, and is no other's."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.pipeline.ports import Ports
from tests.unit.test_pipeline import ports
from tests.unit.web_fakes import AUTHORIZED, client_over

__all__ = ["ports"]

RULESET = "/api/v1/config/rulesets/main"
RULES = f"{RULESET}/rules"


def rule(name: str, modality: str = "CT") -> dict[str, Any]:
    return {
        "name": name,
        "conditions": [{"type": "tag_equals", "tag": "Modality", "value": modality}],
        "actions": [{"type": "set", "tag": "StationName", "value": name.upper()}],
    }


@pytest.fixture
def client(ports: Ports) -> FlaskClient:
    ruleset = {"name": "main", "execution_mode": "FIRST_MATCH", "rules": [rule("a"), rule("b")]}
    ports.configuration.create("rulesets", ruleset, by="test")
    return client_over(ports)


def ask(
    client: FlaskClient, method: str, path: str, document: Any = None, status: int = 200, **h: str
) -> Any:
    headers = {**AUTHORIZED, **{name.replace("_", "-"): value for name, value in h.items()}}
    response = client.open(path, method=method, json=document, headers=headers)
    assert response.status_code == status, response.text
    return response.get_json(silent=True)


def names(client: FlaskClient) -> list[str]:
    return [one["name"] for one in ask(client, "GET", RULES)["items"]]


class TestRules:
    def test_are_listed_and_read(self, client: FlaskClient) -> None:
        assert names(client) == ["a", "b"]
        assert ask(client, "GET", f"{RULES}/a") == rule("a")
        ask(client, "GET", f"{RULES}/nobody", status=404)
        ask(client, "GET", "/api/v1/config/rulesets/nobody/rules", status=404)

    def test_are_added_behind_the_others_or_where_it_is_said(self, client: FlaskClient) -> None:
        assert ask(client, "POST", RULES, rule("last"), 201) == rule("last")
        response = client.post(f"{RULES}?position=1", json=rule("x y"), headers=AUTHORIZED)
        assert response.headers["Location"] == f"{RULES}/x%20y"
        assert names(client) == ["a", "x y", "b", "last"]
        assert ask(client, "GET", response.headers["Location"]) == rule("x y")
        ask(client, "POST", RULES, rule("a"), 409)

    def test_are_replaced_where_they_stand(self, client: FlaskClient) -> None:
        ask(client, "PUT", f"{RULES}/a", rule("renamed"))
        assert names(client) == ["renamed", "b"]
        ask(client, "PUT", f"{RULES}/a", rule("a"), 404)
        ask(client, "PUT", f"{RULES}/b", rule("renamed"), 422)

    def test_are_changed_in_part(self, client: FlaskClient) -> None:
        changed = ask(client, "PATCH", f"{RULES}/a", {"enabled": False, "actions": None})
        assert changed["enabled"] is False
        assert "actions" not in changed
        assert ask(client, "GET", f"{RULES}/b") == rule("b")

    def test_are_removed(self, client: FlaskClient) -> None:
        ask(client, "DELETE", f"{RULES}/a", status=204)
        assert names(client) == ["b"]
        ask(client, "DELETE", f"{RULES}/a", status=404)

    def test_are_not_overwritten_unseen(self, client: FlaskClient) -> None:
        """Somebody else's change of another rule is not in the way."""
        known = client.get(f"{RULES}/a", headers=AUTHORIZED).headers["ETag"]
        ask(client, "PATCH", f"{RULES}/b", {"enabled": False})
        ask(client, "PATCH", f"{RULES}/a", {"description": "one"}, If_Match=known)
        ask(client, "PATCH", f"{RULES}/a", {"description": "two"}, 412, If_Match=known)
        ask(client, "DELETE", f"{RULES}/a", status=412, If_Match=known)
        assert ask(client, "GET", f"{RULES}/a")["description"] == "one"

    def test_that_are_wrong_change_nothing_and_are_told_as_they_were_sent(
        self, client: FlaskClient
    ) -> None:
        wrong = {**rule("c"), "conditions": [{"type": "odd"}], "colour": "red"}
        faults = ask(client, "POST", RULES, wrong, 422)["faults"]
        assert {fault["path"] for fault in faults} == {"conditions[0].type", "colour"}
        faults = ask(client, "PATCH", f"{RULES}/b", {"destinations": ["nowhere"]}, 422)["faults"]
        assert [fault["path"] for fault in faults] == ["destinations[0]"]
        assert names(client) == ["a", "b"]

    def test_are_tried_without_a_change(self, client: FlaskClient) -> None:
        before = ask(client, "GET", RULESET)
        assert ask(client, "POST", f"{RULES}?dry_run=true", rule("c")) == rule("c")
        ask(client, "PUT", f"{RULES}/a?dry_run=true", rule("c"))
        ask(client, "PATCH", f"{RULES}/a?dry_run=true", {"enabled": False})
        ask(client, "DELETE", f"{RULES}/a?dry_run=true", status=204)
        assert ask(client, "GET", RULESET) == before
