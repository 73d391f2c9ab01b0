"""Every entity of the configuration has an example that is taken as it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from shared import bootstrap
from shared.config.kinds import KINDS, Kind
from shared.environment import Environment
from shared.pipeline.ports import Ports
from tests.conftest import ROOT
from tests.unit.web_fakes import AUTHORIZED, client_over

PAGE = (ROOT / "docs" / "configuration-examples.md").read_text(encoding="utf-8")
_PART = re.compile(r"^`(POST|PATCH) (/\S+)`$|^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples() -> Iterator[tuple[str, str, str]]:
    """Method, path and the document as the page has it."""
    method = path = ""
    for found in _PART.finditer(PAGE):
        if found[1]:
            method, path = found[1], found[2]
        else:
            yield method, path, found[3]


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(tmp_path)}))
    yield ports
    ports.destinations.close()


def test_every_example_is_taken_word_for_word_and_shows_no_secret(ports: Ports) -> None:
    client = client_over(ports)
    headers = {**AUTHORIZED, "Content-Type": "application/json"}
    for method, path, text in examples():
        answer = client.open(path, method=method, data=text, headers=headers)
        assert answer.status_code == (201 if method == "POST" else 200), (path, answer.text)
        assert "shown-never-again" not in answer.text
    assert "shown-never-again" not in client.get("/api/v1/config", headers=AUTHORIZED).text


def test_every_kind_and_every_type_has_an_example() -> None:
    shown: set[tuple[str, str]] = set()
    for _, path, text in examples():
        document = json.loads(text)
        shown.add((path.rpartition("/")[2], document.get("type", "")))
    missing = {
        (kind.name, name)
        for kind in KINDS
        for name in _types(kind)
        if not any((path, name) in shown for path in kind.paths)
    }
    assert not missing


def _types(kind: Kind) -> list[str]:
    if not kind.has_types:
        return [""]
    union = get_args(kind.schema)[0]
    return [_type_of(model) for model in get_args(union)]


def _type_of(model: Any) -> str:
    fields: Mapping[str, Any] = model.model_fields
    name: str = get_args(fields["type"].annotation)[0]
    return name
