"""Routes of who did what: /api/v1/audit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from shared.audit import AuditLog
from shared.pipeline.audit_message import audit_message
from shared.web.access import acting
from shared.web.listing import Listing, Since, described_page, fetch, page_response
from shared.web.media_types import JSON_LINES
from shared.web.problems import PROBLEM_RESPONSES

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

URL_PREFIX = "/api/v1/audit"
XML_LINES = "text/plain"

_EXPORT_PAGE = 500
_LINES: dict[str, Any] = {
    "description": "One entry a line",
    "content": {name: {"schema": {"type": "string"}} for name in (JSON_LINES, XML_LINES)},
}


class AuditQuery(Listing):
    """Which entries to list."""

    since: Since | None = Field(default=None, description="At or after this")


class ExportQuery(BaseModel):
    """Which entries to export."""

    model_config = ConfigDict(extra="forbid")

    since: Since | None = Field(default=None, description="At or after this")
    format: Literal["json", "dicom"] = Field(
        default="json", description="JSON, or an audit message of PS3.15 A.5 in XML"
    )


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
        """All entries, one a line, newest first; they are read as they are sent."""
        log.add(who=acting(), what="audit.export", id=query.format)

        is_dicom = query.format == "dicom"
        line_of = audit_message if is_dicom else _as_json

        def lines() -> Iterator[str]:
            cursor = None
            while True:
                page = log.list(since=query.since, limit=_EXPORT_PAGE, cursor=cursor)
                for document in page.documents:
                    yield line_of(document.data) + "\n"
                cursor = page.cursor
                if cursor is None:
                    return

        return Response(lines(), mimetype=XML_LINES if is_dicom else JSON_LINES)

    return routes


def _as_json(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False)
