"""Routes of what was deleted because it was needed no more: /api/v1/clean-ups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from shared.pipeline import retention
from shared.web.listing import Listing, described_page, newest_response
from shared.web.problems import PROBLEM_RESPONSES

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports


def blueprint(ports: Ports) -> APIBlueprint:
    """The route."""
    routes = APIBlueprint(
        "clean_ups",
        __name__,
        url_prefix="/api/v1",
        abp_tags=[Tag(name="clean-ups", description="What was deleted as needed no more")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    @routes.get(
        "/clean-ups", operation_id="list_clean_ups", responses={200: described_page("Clean-ups")}
    )
    def list_clean_ups(query: Listing) -> Response:
        """What each clean-up deleted, and how much it kept for which reason; the newest first."""
        return newest_response(ports.documents, retention.COLLECTION, "ended_at", query)

    return routes
