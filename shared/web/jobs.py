"""Routes of what runs in the background: /api/v1/jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

from shared.errors import DocumentMissingError
from shared.pipeline import jobs
from shared.web.documents_out import json_response
from shared.web.listing import Listing, described, described_page, newest_response
from shared.web.problems import PROBLEM_RESPONSES

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

URL_PREFIX = "/api/v1/jobs"


class JobPath(BaseModel):
    """Path parameters of one job."""

    job_id: str


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "jobs",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="jobs", description="What runs in the background")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    @routes.get("", operation_id="list_jobs", responses={200: described_page("Jobs")})
    def list_jobs(query: Listing) -> Response:
        """Jobs, newest first."""
        return newest_response(ports.documents, jobs.COLLECTION, "created_at", query)

    @routes.get(
        "/<job_id>",
        operation_id="read_job",
        responses={200: described("The job", {"type": "object"})},
    )
    def read_job(path: JobPath) -> Response:
        """How far a job is: `total`, `done`, `failed`, and `state` running or finished."""
        found = ports.documents.get(jobs.COLLECTION, path.job_id)
        if found is None:
            raise DocumentMissingError(jobs.COLLECTION, path.job_id)
        return json_response(found.data)

    return routes
