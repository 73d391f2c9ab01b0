"""Every entity of the configuration has an example that is taken as it stands."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import bootstrap
from shared.config.kinds import KINDS, Kind
from shared.config.service import check
from shared.environment import Environment
from shared.errors import InvalidConfigurationError
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


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=5),
    st.recursive(st.text(max_size=5), lambda inner: st.lists(inner, max_size=2), max_leaves=3),
    st.dictionaries(st.text(max_size=5), st.none(), max_size=2),
)


def whole() -> dict[str, Any]:
    """All examples as one configuration."""
    collections = {path: kind.name for kind in KINDS for path in kind.paths}
    types = {path: kind.typed_paths.get(path) for kind in KINDS for path in kind.paths}
    document: dict[str, Any] = {}
    for method, path, text in examples():
        name = path.rpartition("/")[2]
        if method == "POST" and name in collections:
            typed = {"type": types[name]} if types[name] else {}
            document.setdefault(collections[name], []).append(json.loads(text) | typed)
    return document


def places(part: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """Where something stands in a document, at any depth."""
    if path:
        yield path
    for key in (
        part if isinstance(part, dict) else range(len(part) if isinstance(part, list) else 0)
    ):
        yield from places(part[key], *path, key)


def put(part: Any, place: tuple[str | int, ...], value: Any) -> None:
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value


WHOLE = whole()
PLACES = list(places(WHOLE))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(PLACES), ODD, min_size=1, max_size=3))
def test_whatever_stands_anywhere_is_taken_or_told_as_faults(
    changes: dict[tuple[str | int, ...], Any],
) -> None:
    """Nobody who mistypes a configuration is answered that we have a fault."""
    document = copy.deepcopy(WHOLE)
    for place, value in changes.items():
        with suppress(LookupError, TypeError):  # another change took it away
            put(document, place, value)
    with suppress(InvalidConfigurationError):
        check(document)


@pytest.mark.parametrize("place", [p for p in PLACES if p[-1] in ("name", "source", "members")])
def test_a_name_that_is_none_is_told_as_a_fault(place: tuple[str | int, ...]) -> None:
    odd: Any
    for odd in ([], {}, 5, [[]]):
        document = copy.deepcopy(WHOLE)
        put(document, place, odd)
        with pytest.raises(InvalidConfigurationError):
            check(document)


def _types(kind: Kind) -> list[str]:
    if not kind.has_types:
        return [""]
    union = get_args(kind.schema)[0]
    return [_type_of(model) for model in get_args(union)]


def _type_of(model: Any) -> str:
    fields: Mapping[str, Any] = model.model_fields
    name: str = get_args(fields["type"].annotation)[0]
    return name
