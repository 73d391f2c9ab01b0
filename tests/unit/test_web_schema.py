"""The OpenAPI document is true: schemathesis makes requests of it, right and wrong ones.

No answer is a 5xx, each has a status, a content type and a body that the document names, what the
document forbids is refused, and nothing is done without a key. Requests that the document allows
may still be refused: it cannot say all that the configuration checks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from shared import bootstrap
from shared.environment import Environment
from shared.identity.settings import IdentitySettings
from shared.web.wsgi import create_app
from tests.unit.web_fakes import AUTHORIZED, KEY

DOCUMENT = "/api/v1/docs/openapi.json"
EXAMPLES = 2


@schemathesis.serializer("multipart/related", "application/dicom")
def _as_it_is(_: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    home = tmp_path_factory.mktemp("home")
    ports = bootstrap.embedded(Environment.read({"AXIOM_HOME": str(home)}))
    yield create_app(ports, IdentitySettings(preset_key=KEY))
    ports.destinations.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_operation_answers_as_the_document_says(app: Flask, mode: GenerationMode) -> None:
    faults: list[str] = []
    schema = schemathesis.openapi.from_wsgi(DOCUMENT, app)
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def request(case: Any) -> None:
            case.call_and_validate(headers=AUTHORIZED, excluded_checks=[positive_data_acceptance])

        try:
            request()
        except Unsatisfiable:
            continue  # an operation without parameters cannot be called wrongly
        except BaseExceptionGroup as error:
            faults.append(f"{operation.label}: {error.exceptions}")
        except AssertionError as error:
            faults.append(f"{operation.label}: {error}")
    assert not faults, "\n".join(faults)


def test_the_document_is_valid_and_describes_every_route(app: Flask) -> None:
    document = app.test_client().get(DOCUMENT).get_json()
    assert document["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(document)
    described = {
        (path, method.upper())
        for path, operations in document["paths"].items()
        for method in operations
    }
    served = {
        (_as_template(rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.endpoint.startswith("documentation.")
    }
    assert described == served


def test_every_list_is_read_in_pages(app: Flask) -> None:
    """Nothing that grows is answered whole, and no cursor but a list's own is taken."""
    client = app.test_client()
    lists = 0
    for path, operations in client.get(DOCUMENT).get_json()["paths"].items():
        if "get" not in operations or path == DOCUMENT:
            continue
        operation = operations["get"]
        content = operation["responses"].get("200", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        assert schema.get("type") != "array", path
        named = {one["name"] for one in operation.get("parameters", ())}
        assert ("items" in schema.get("properties", {})) == ("cursor" in named), path
        if "cursor" not in named:
            if "{" not in path:
                answer = client.get(path, headers=AUTHORIZED)
                assert not (answer.is_json and "items" in answer.get_json()), path
            continue
        lists += 1
        assert "limit" in named, path
        assert "next_cursor" in schema["required"], path
        if "{" not in path:
            page = client.get(path, query_string={"limit": 1}, headers=AUTHORIZED)
            assert set(page.get_json()) == {"items", "next_cursor"}, path
            assert len(page.get_json()["items"]) <= 1 or "roles" in path, path
            foreign = client.get(path, query_string={"cursor": "nope"}, headers=AUTHORIZED)
            assert foreign.status_code == 400, path
    assert lists > 30


def _as_template(rule: str) -> str:
    return rule.replace("<int:", "<").replace("<", "{").replace(">", "}")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)
