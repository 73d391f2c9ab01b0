"""`axiom keys`: the way back in, and keys for machines, without a running system."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.cli import main
from shared import bootstrap
from shared.identity.identity import Identity
from shared.identity.permissions import ALL, BUILT_IN_ROLES
from shared.identity.settings import IdentitySettings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AXIOM_HOME", str(tmp_path))
    bootstrap.from_environment.cache_clear()
    yield
    bootstrap.from_environment().destinations.close()
    bootstrap.from_environment.cache_clear()


@pytest.fixture
def identity() -> Identity:
    ports = bootstrap.from_environment()
    return Identity(ports.documents, ports.secrets, ports.clock, IdentitySettings())


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    status = main(["keys", *words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_makes_an_administrators_key_in_a_home_that_has_none(
    capsys: pytest.CaptureFixture[str], identity: Identity
) -> None:
    status, made = run(capsys, "create", "--label", "laptop")
    assert status == 0
    who = identity.of_credential(made["key"], "127.0.0.1")
    assert who is not None
    assert (who.name, who.permissions) == ("admin", ALL)


def test_makes_a_limited_key_for_a_machine(
    capsys: pytest.CaptureFixture[str], identity: Identity
) -> None:
    words = ("--user", "ct-1", "--role", "uploader", "--address", "10.1.0.0/16", "--days", "30")
    _, made = run(capsys, "create", *words)
    who = identity.of_credential(made["key"], "10.1.2.3")
    assert who is not None
    assert (who.permissions, who.limited) == (BUILT_IN_ROLES["uploader"], True)
    assert identity.of_credential(made["key"], "10.2.0.1") is None
    _, listed = run(capsys, "list")
    assert [(key["user"], key["addresses"]) for key in listed["keys"]] == [
        ("ct-1", ["10.1.0.0/16"])
    ]
    assert made["key"].split("_", 2)[2] not in str(listed)


def test_rotates_and_revokes(capsys: pytest.CaptureFixture[str], identity: Identity) -> None:
    _, old = run(capsys, "create")
    _, new = run(capsys, "rotate", old["id"])
    assert identity.of_credential(old["key"], "") is None
    assert identity.of_credential(new["key"], "") is not None
    assert run(capsys, "revoke", new["id"])[0] == 0
    identity.forget()
    assert identity.of_credential(new["key"], "") is None


@pytest.mark.parametrize(
    "words",
    [
        ("create", "--user", "stranger"),
        ("create", "--role", "no-such-role"),
        ("create", "--user", "a b", "--role", "viewer"),
        ("create", "--address", "10.0.0.0/99"),
        ("rotate", "000000000000"),
        ("revoke", "000000000000"),
    ],
)
def test_says_what_is_wrong(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    status, answer = run(capsys, *words)
    assert status in (1, 2)
    assert answer["error"]["message"]


def test_the_list_says_what_each_key_is_good_for(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "create", "--user", "bob", "--role", "viewer", "--role", "uploader")
    run(capsys, "create", "--user", "bob", "--role", "uploader", "--label", "ct")
    assert main(["keys", "list"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "bob" in line]
    assert ["viewer" in row for row in rows] == [" ct " not in row for row in rows]
    assert all("uploader" in row for row in rows)
