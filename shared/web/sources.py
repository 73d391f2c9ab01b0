"""Routes of how sources are: /api/v1/sources. Their settings are in the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

from shared.audit import AuditLog
from shared.pipeline.peer_check import check_source
from shared.pipeline.source_states import request_poll, state_of
from shared.web.access import acting
from shared.web.documents_out import json_response
from shared.web.listing import Listing, described, described_page, listed_response
from shared.web.problems import PROBLEM_RESPONSES

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

URL_PREFIX = "/api/v1/sources"


class SourcePath(BaseModel):
    """Path parameters of one source."""

    name: str


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "sources",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="sources", description="How the sources are that are polled")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    @routes.get("", operation_id="list_source_states", responses={200: described_page("States")})
    def list_states(query: Listing) -> Response:
        """How each source is, in the order of the configuration."""
        names = [entity.name for entity in ports.configuration.get().sources]
        return listed_response(names, query, lambda name: state_of(name, ports))

    @routes.get(
        "/<name>/state",
        operation_id="read_source_state",
        responses={200: described("Its state", {"type": "object"})},
    )
    def read_state(path: SourcePath) -> Response:
        """When a source was polled and will be, what came of it (`found`, `queued`, `processed`,
        `failed`: in all and in the last poll), since when it fails, and what it said last.
        """
        return json_response(state_of(path.name, ports))

    @routes.post(
        "/<name>/poll",
        operation_id="poll_source",
        responses={202: described("Its state", {"type": "object"})},
    )
    def poll(path: SourcePath) -> Response:
        """Have a source polled within a second or two, whatever its interval and schedule."""
        request_poll(path.name, ports)
        AuditLog(ports.documents, ports.clock).add(who=acting(), what="source.poll", id=path.name)
        return json_response(state_of(path.name, ports), 202)

    @routes.post(
        "/<name>/check",
        operation_id="check_source",
        responses={200: described("Its answer", {"type": "object"})},
    )
    def check(path: SourcePath) -> Response:
        """Ask a source whether it is there; nothing is fetched. `ok` is false for one that is not,
        `answer` is what it says, within half a minute.
        """
        return json_response(check_source(path.name, ports, by=acting()))

    return routes
