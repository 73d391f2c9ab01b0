"""The configuration on the disk of a gateway on premises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.audit import AuditLog
from shared.config.entities import Configuration
from shared.edge.mirror import secrets_of
from shared.errors import SecretMissingError
from tests.edge_system import CutLinkError, EdgeSystem

LISTENER = {"name": "main", "ae_title": "AXIOM", "port": 0}
RULESET = {
    "name": "reception",
    "stage": "reception",
    "rules": [
        {
            "name": "no-mr",
            "conditions": [{"type": "tag_equals", "tag": "Modality", "value": "CT"}],
            "actions": [{"type": "reject", "reason": "not here"}],
        }
    ],
}


@pytest.fixture
def edge(tmp_path: Path) -> EdgeSystem:
    return EdgeSystem(tmp_path)


def test_reception_goes_on_by_the_last_configuration_when_the_link_is_cut(
    edge: EdgeSystem,
) -> None:
    edge.cloud.configuration.apply({"rulesets": [RULESET]}, by="test")
    edge.mirror.look()
    edge.cloud.is_cut = True
    edge.start()
    assert edge.mirror.version == 2
    assert [one["name"] for one in edge.configuration.get().rulesets] == ["reception"]
    with pytest.raises(CutLinkError):
        edge.mirror.look()


def test_secrets_of_listeners_are_kept_and_no_others(edge: EdgeSystem) -> None:
    tls = {
        "certificate_secret": "our-certificate",
        "private_key_secret": "our-key",
        "trusted_secret": "trusted",
    }
    destination = {
        "name": "pacs",
        "type": "dicomweb",
        "base_url": "https://pacs.example.org/dicom",
        "auth_type": "bearer_token",
        "credentials": {"token_secret": "of-the-pacs"},
    }
    for name in ("our-certificate", "our-key", "trusted", "of-the-pacs"):
        edge.cloud.secrets.put(name, f"value of {name}")
    edge.cloud.configuration.apply(
        {"listeners": [{**LISTENER, "tls": tls}], "destinations": [destination]}, by="test"
    )
    edge.mirror.look()
    assert edge.secrets.get("our-key") == "value of our-key"
    with pytest.raises(SecretMissingError):
        edge.secrets.get("of-the-pacs")


def test_a_secret_that_is_not_there_keeps_nobody_else_out(edge: EdgeSystem) -> None:
    """The rest of a new configuration counts, and a person is told; once it is there, at once."""
    tls = {"certificate_secret": "certificate", "private_key_secret": "key"}
    tls["trusted_secret"] = "trusted"
    edge.cloud.secrets.put("certificate", "ours")
    edge.cloud.configuration.apply(
        {"listeners": [{**LISTENER, "tls": tls}], "rulesets": [RULESET]}, by="test"
    )
    edge.mirror.look()
    assert edge.mirror.fault == "secrets that are not there: key, trusted"
    assert [one["name"] for one in edge.configuration.get().rulesets] == ["reception"]
    assert edge.secrets.get("certificate") == "ours"
    for name in ("key", "trusted"):
        edge.cloud.secrets.put(name, name)
    edge.mirror.look()
    assert edge.mirror.fault == ""
    assert edge.secrets.get("key") == "key"


def test_a_secret_that_changes_is_fetched_in_time(edge: EdgeSystem) -> None:
    tls = {
        "certificate_secret": "certificate",
        "private_key_secret": "key",
        "require_client_certificate": False,
    }
    for name in ("certificate", "key"):
        edge.cloud.secrets.put(name, "old")
    edge.cloud.configuration.apply({"listeners": [{**LISTENER, "tls": tls}]}, by="test")
    edge.mirror.look()
    edge.cloud.secrets.put("key", "new")
    edge.clock.advance(601)
    edge.mirror.look()
    assert edge.secrets.get("key") == "new"


def test_queries_at_a_listener_need_what_signs_in_at_archives() -> None:
    document = json.dumps(
        {
            "listeners": [{**LISTENER, "query_retrieve": {"store": "pacs"}}],
            "destinations": [
                {
                    "name": "pacs",
                    "type": "dicomweb",
                    "base_url": "https://pacs.example.org/dicom",
                    "auth_type": "bearer_token",
                    "credentials": {"token_secret": "of-the-pacs"},
                }
            ],
        }
    )
    assert secrets_of(Configuration.model_validate_json(document)) == {"of-the-pacs"}


def test_users_and_keys_are_kept_where_callers_are_asked_who_they_are(edge: EdgeSystem) -> None:
    edge.cloud.secrets.put("of-ct1", "passcode")
    asks = {"passcodes": {"ct1": "of-ct1"}, "api_keys": True}
    edge.cloud.put("users", "anna", {"name": "anna"})
    edge.cloud.put("users", "bert", {"name": "bert"})
    edge.mirror.look()
    assert edge.documents.get("users", "anna") is None
    edge.cloud.configuration.apply({"listeners": [{**LISTENER, "user_identity": asks}]}, by="test")
    edge.mirror.look()
    assert edge.documents.get("users", "anna") is not None
    assert edge.secrets.get("of-ct1") == "passcode"
    edge.cloud.delete("users", "bert")
    edge.clock.advance(601)
    edge.mirror.look()
    assert edge.documents.get("users", "bert") is None


def test_who_was_turned_away_is_in_the_audit_log_of_the_cloud(edge: EdgeSystem) -> None:
    AuditLog(edge.documents, edge.clock).add(who="AE X", what="associations.refuse", id="main")
    edge.move()
    entries = edge.cloud.query("audit", order_by="when", descending=True).documents
    assert ("AE X", "associations.refuse") in [(e.data["who"], e.data["what"]) for e in entries]


def test_a_configuration_of_a_newer_release_is_not_followed_and_said_so(edge: EdgeSystem) -> None:
    head = edge.cloud.get("configuration", "head")
    name = "configuration/00000002-newer.json"
    with edge.cloud.objects.create(name) as writer:
        writer.write(json.dumps({"settings": {"of_next_year": True}}).encode())
        writer.commit()
    edge.cloud.put("configuration", "head", {**head.data, "version": 2, "object": name})
    edge.mirror.look()
    assert "too new" in edge.mirror.fault
    assert edge.mirror.version == 1
    edge.configuration.get()


def test_old_versions_do_not_fill_the_disk(edge: EdgeSystem) -> None:
    for number in range(5):
        edge.cloud.configuration.patch_settings({"min_free_bytes": number + 1}, by="test")
        edge.mirror.look()
    assert len(list(edge.objects.list("configuration/"))) == 2
