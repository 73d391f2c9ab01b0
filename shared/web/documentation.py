"""The API's documentation: its OpenAPI document, shown by Swagger UI and by ReDoc from here."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response, send_from_directory
from flask_openapi3.openapi import OpenAPI

from shared.web.documents_out import json_response

URL_PREFIX, REDOC_PREFIX = "/api/v1/docs", "/api/v1/redoc"

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

_REDOC_PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Axiom Flow API</title>
</head>
<body>
<redoc spec-url="{URL_PREFIX}/openapi.json" hide-hostname disable-search></redoc>
<script src="{REDOC_PREFIX}/redoc.standalone.js"></script>
</body>
</html>
"""

# Both write style attributes, and neither needs an inline script; ReDoc has a worker of its own.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; worker-src blob:; frame-ancestors 'none'"
)


def blueprint(app: OpenAPI) -> Blueprint:
    """The routes below both prefixes for what `app` serves."""
    assets = Path(str(files("flask_openapi3_swagger"))) / "templates" / "swagger"
    routes = Blueprint(
        "documentation",
        __name__,
        static_folder=assets,
        static_url_path=f"{URL_PREFIX}/assets",
    )
    redoc = Path(str(files("flask_openapi3_redoc"))) / "templates" / "redoc" / "js"

    @routes.get("/")
    def start_page() -> Response:
        return json_response({"name": "Axiom Flow", "documentation": URL_PREFIX})

    @routes.get(URL_PREFIX)
    def page() -> Response:
        return _page(_PAGE)

    @routes.get(REDOC_PREFIX)
    def redoc_page() -> Response:
        return _page(_REDOC_PAGE)

    @routes.get(f"{REDOC_PREFIX}/redoc.standalone.js")
    def redoc_script() -> Response:
        return send_from_directory(redoc, "redoc.standalone.js")

    @routes.get(f"{URL_PREFIX}/start.js")
    def start() -> Response:
        return Response(_START, mimetype="text/javascript")

    @routes.get(f"{URL_PREFIX}/openapi.json")
    def openapi() -> Response:
        return json_response(app.api_doc)

    return routes


def _page(text: str) -> Response:
    response = Response(text, mimetype="text/html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response
