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


def _as_template(rule: str) -> str:
    return rule.replace("<int:", "<").replace("<", "{").replace(">", "}")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)
