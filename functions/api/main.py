"""The API of configuration and operations: /api/v1/... and /health."""

from __future__ import annotations

from functools import cache, partial

import functions_framework
from flask import Request
from flask_openapi3.openapi import OpenAPI
from werkzeug.wrappers import Response

from shared import bootstrap, exporting
from shared.identity.settings import IdentitySettings
from shared.pipeline import readings
from shared.web.wsgi import API, create_app


@functions_framework.http
def api(request: Request) -> Response:
    """Answer one request."""
    return Response.from_app(_app(), request.environ)


@cache
def _app() -> OpenAPI:
    ports = bootstrap.from_environment()
    exporting.speak_for(partial(readings.read, ports))
    return create_app(ports, IdentitySettings.read(), serving=(API,))
