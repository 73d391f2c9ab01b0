"""Every change of the configuration can be told, compared and taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.adapters.embedded.clock import SystemClock
from shared.adapters.embedded.document_store import SqliteDocumentStore
from shared.adapters.embedded.object_store import FolderObjectStore
from shared.adapters.embedded.secret_store import FileSecretStore
from shared.config.differences import Difference, differences
from shared.config.history import ConfigurationHistory
from shared.config.service import HISTORY, ConfigurationService
from shared.errors import (
    DocumentChangedError,
    DocumentMissingError,
    InvalidConfigurationError,
)

Parts = tuple[ConfigurationService, ConfigurationHistory, SqliteDocumentStore]


def ruleset(name: str = "main", destination: str = "a") -> dict[str, Any]:
    return {"name": name, "rules": [{"name": "all", "destinations": [destination]}]}


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    objects = FolderObjectStore(tmp_path / "objects")
    documents = SqliteDocumentStore(tmp_path / "documents.db")
    secrets = FileSecretStore(tmp_path / "secrets")
    service = ConfigurationService(objects, documents, secrets, SystemClock())
    destinations = [{"name": name, "type": "filesystem", "path": name} for name in "ab"]
    service.apply({"destinations": destinations}, by="ann", reason="begin")
    service.create("rulesets", ruleset(), by="bob", reason="route all")
    service.replace("rulesets", "main", ruleset(destination="b"), by="ann")
    return service, ConfigurationHistory(objects, documents, service), documents


def test_versions_say_who_when_and_why(parts: Parts) -> None:
    versions = parts[1].versions()
    assert [(one.version, one.by, one.reason) for one in versions] == [
        (3, "ann", ""),
        (2, "bob", "route all"),
        (1, "ann", "begin"),
    ]
    assert versions == sorted(versions, key=lambda one: one.at, reverse=True)
    assert [one.version for one in parts[1].versions(limit=1, before=3)] == [2]


def test_a_difference_names_the_rule_by_its_name(parts: Parts) -> None:
    assert parts[1].differences(2, 3) == [
        Difference("rulesets[main].rules[all].destinations", ["a"], ["b"])
    ]
    diff = parts[1].unified_diff(2, 3)
    assert "-    - a\n" in diff
    assert "+    - b\n" in diff
    assert parts[1].unified_diff(3, 3) == ""
    added = parts[1].differences(0, 1)
    assert [(one.path, one.before) for one in added] == [
        ("destinations[a]", None),
        ("destinations[b]", None),
    ]


def test_a_change_of_order_alone_is_told(parts: Parts) -> None:
    first, second = ruleset("x"), ruleset("y")
    assert differences({"rulesets": [first, second]}, {"rulesets": [second, first]}) == [
        Difference("rulesets (order)", ["x", "y"], ["y", "x"])
    ]


def test_rolling_back_is_a_new_version(parts: Parts) -> None:
    service, history, _ = parts
    restored = history.roll_back(2, by="cleo")
    assert restored["rulesets"] == [ruleset()]
    assert service.get().rulesets == (ruleset(),)
    newest = history.versions(limit=1)[0]
    assert (newest.version, newest.by, newest.reason) == (4, "cleo", "roll back to version 2")
    assert history.differences(2, 4) == []


def test_rolling_back_takes_what_came_later_away(parts: Parts) -> None:
    service, history, _ = parts
    history.roll_back(1, by="cleo")
    assert service.get().rulesets == ()
    assert len(service.get().destinations) == 2


def test_one_ruleset_is_rolled_back_and_all_else_stays(parts: Parts) -> None:
    """What others changed since is not theirs to lose."""
    service, history, _ = parts
    service.create("rulesets", ruleset("other"), by="dan")
    history.roll_back(2, by="cleo", ruleset="main")
    assert service.get().rulesets == (ruleset(), ruleset("other"))
    assert history.versions(limit=1)[0].reason == "roll main back to version 2"
    history.roll_back(2, by="cleo", ruleset="other")
    assert service.get().rulesets == (ruleset(),)
    history.roll_back(4, by="cleo", ruleset="other")
    assert service.get().rulesets == (ruleset(), ruleset("other"))
    with pytest.raises(DocumentMissingError):
        history.roll_back(2, by="cleo", ruleset="nobody")


def test_a_ruleset_is_not_rolled_back_over_somebody_else_s_change(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, history, _ = parts
    known = service.list("rulesets")
    service.create("rulesets", ruleset("other"), by="dan")
    monkeypatch.setattr(service, "list", lambda _: known)
    with pytest.raises(DocumentChangedError):
        history.roll_back(2, by="cleo", ruleset="main")
    assert [one["name"] for one in service.get().rulesets] == ["main", "other"]


def test_what_is_not_right_any_more_is_not_rolled_back_to(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, history, _ = parts
    wrong = history.document(2)
    wrong["rulesets"][0]["rules"][0]["destinations"] = ["gone"]
    monkeypatch.setattr(history, "document", lambda _: wrong)
    with pytest.raises(InvalidConfigurationError):
        history.roll_back(2, by="cleo")
    assert history.versions(limit=1)[0].version == 3
    assert service.get().rulesets == (ruleset(destination="b"),)


def test_the_history_of_one_ruleset_has_only_its_own_changes(parts: Parts) -> None:
    service, history, _ = parts
    service.create("rulesets", ruleset("other"), by="dan")
    service.delete("rulesets", "main", by="dan", reason="not wanted")
    found, following = history.of_entity("rulesets", "main")
    told = [(one.version, entity) for one, entity in found]
    assert told == [(5, None), (3, ruleset(destination="b")), (2, ruleset())]
    assert following is None
    assert history.of_entity("rulesets", "nobody") == ([], None)


def test_a_version_whose_author_ended_too_soon_is_told_all_the_same(parts: Parts) -> None:
    """The head is moved before the history is written."""
    service, history, documents = parts
    documents.delete(HISTORY, "00000003")
    assert history.version(3).by == "ann"
    service.create("rulesets", ruleset("other"), by="dan")
    assert [one.version for one in history.versions()] == [4, 3, 2, 1]


def test_a_version_that_never_was_is_missing(parts: Parts) -> None:
    for number in (-1, 9):
        with pytest.raises(DocumentMissingError):
            parts[1].version(number)
        with pytest.raises(DocumentMissingError):
            parts[1].differences(number, 1)
