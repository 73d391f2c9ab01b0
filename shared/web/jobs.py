"""Routes of what runs in the background, and of who did what: /api/v1/jobs and /api/v1/audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, Field

from shared.errors import DocumentMissingError
from shared.pipeline import jobs
from shared.pipeline.audit import AuditLog
from shared.web.documents_out import json_response
from shared.web.listing import Listing, Since, described, described_page, fetch, page_response
from shared.web.problems import PROBLEM_RESPONSES

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

URL_PREFIX = "/api/v1"


class AuditQuery(Listing):
    """Which entries to list."""

    since: Since | None = Field(default=None, description="At or after this")


class JobPath(BaseModel):
    """Path parameters of one job."""

    job_id: str


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "jobs",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="jobs", description="What runs in the background; who did what")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    @routes.get("/jobs", operation_id="list_jobs", responses={200: described_page("Jobs")})
    def list_jobs(query: Listing) -> Response:
        """Jobs, newest first."""
        page = fetch(
            lambda limit, cursor: ports.documents.query(
                jobs.COLLECTION,
                order_by="created_at",
                descending=True,
                limit=limit,
                cursor=cursor,
            ),
            query,
        )
        return page_response(page, dict)

    @routes.get(
        "/jobs/<job_id>",
        operation_id="read_job",
        responses={200: described("The job", {"type": "object"})},
    )
    def read_job(path: JobPath) -> Response:
        """How far a job is: `total`, `done`, `failed`, and `state` running or finished."""
        found = ports.documents.get(jobs.COLLECTION, path.job_id)
        if found is None:
            raise DocumentMissingError(jobs.COLLECTION, path.job_id)
        return json_response(found.data)

    @routes.get("/audit", operation_id="list_audit", responses={200: described_page("Entries")})
    def list_audit(query: AuditQuery) -> Response:
        """Who did what, when, to what; newest first."""
        log = AuditLog(ports.documents, ports.clock)
        page = fetch(
            lambda limit, cursor: log.list(since=query.since, limit=limit, cursor=cursor), query
        )
        return page_response(page, dict)

    return routes
