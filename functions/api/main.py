"""The API of configuration and operations: /api/v1/... and /health."""

from __future__ import annotations

from functools import cache

import functions_framework
from flask import Request
from flask_openapi3.openapi import OpenAPI
from werkzeug.wrappers import Response

from shared import bootstrap
from shared.identity.settings import IdentitySettings
from shared.web.wsgi import API, create_app


@functions_framework.http
def api(request: Request) -> Response:
    """Answer one request."""
    return Response.from_app(_app(), request.environ)


@cache
def _app() -> OpenAPI:
    return create_app(bootstrap.from_environment(), IdentitySettings.read(), serving=(API,))
