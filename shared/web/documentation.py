"""The API's documentation: its OpenAPI document, shown by a Swagger UI that comes from here."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response
from flask_openapi3.openapi import OpenAPI

from shared.web.documents_out import json_response

URL_PREFIX = "/api/v1/docs"

_PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Axiom Flow API</title>
<link rel="stylesheet" href="{URL_PREFIX}/assets/css/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{URL_PREFIX}/assets/js/swagger-ui-bundle.js"></script>
<script src="{URL_PREFIX}/start.js"></script>
</body>
</html>
"""

_START = f"""SwaggerUIBundle({{
  url: "{URL_PREFIX}/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
}});
"""

# Swagger UI writes style attributes; it needs no inline script.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
)


def blueprint(app: OpenAPI) -> Blueprint:
    """The routes below `URL_PREFIX` for what `app` serves."""
    assets = Path(str(files("flask_openapi3_swagger"))) / "templates" / "swagger"
    routes = Blueprint(
        "documentation",
        __name__,
        url_prefix=URL_PREFIX,
        static_folder=assets,
        static_url_path="/assets",
    )

    @routes.get("")
    def page() -> Response:
        response = Response(_PAGE, mimetype="text/html")
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    @routes.get("/start.js")
    def start() -> Response:
        return Response(_START, mimetype="text/javascript")

    @routes.get("/openapi.json")
    def openapi() -> Response:
        return json_response(app.api_doc)

    return routes
