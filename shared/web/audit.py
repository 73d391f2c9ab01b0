"""Routes of who did what: /api/v1/audit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from shared.pipeline.audit import AuditLog
from shared.web.listing import Listing, Since, described_page, fetch, page_response
from shared.web.problems import PROBLEM_RESPONSES

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

URL_PREFIX = "/api/v1/audit"
JSON_LINES = "application/x-ndjson"

_EXPORT_PAGE = 500
_LINES: dict[str, Any] = {
    "description": "One JSON object a line",
    "content": {JSON_LINES: {"schema": {"type": "string"}}},
}


class AuditQuery(Listing):
    """Which entries to list."""

    since: Since | None = Field(default=None, description="At or after this")


class ExportQuery(BaseModel):
    """Which entries to export."""

    model_config = ConfigDict(extra="forbid")

    since: Since | None = Field(default=None, description="At or after this")


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "audit",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="audit", description="Who did what, and who saw what of patients")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )
    log = AuditLog(ports.documents, ports.clock)

    @routes.get("", operation_id="list_audit", responses={200: described_page("Entries")})
    def list_audit(query: AuditQuery) -> Response:
        """Who did what, when, to what; newest first."""
        page = fetch(
            lambda limit, cursor: log.list(since=query.since, limit=limit, cursor=cursor), query
        )
        return page_response(page, dict)

    @routes.get("/export", operation_id="export_audit", responses={200: _LINES})
    def export_audit(query: ExportQuery) -> Response:
        """All entries as JSON lines, newest first; they are read as they are sent."""

        def lines() -> Iterator[str]:
            cursor = None
            while True:
                page = log.list(since=query.since, limit=_EXPORT_PAGE, cursor=cursor)
                for document in page.documents:
                    yield json.dumps(document.data, ensure_ascii=False) + "\n"
                cursor = page.cursor
                if cursor is None:
                    return

        return Response(lines(), mimetype=JSON_LINES)

    return routes
