"""Routes of how destinations are: /api/v1/destinations. Their settings are in the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

from shared.errors import DestinationMisconfiguredError, DocumentMissingError
from shared.pipeline.destination_states import state_of
from shared.pipeline.peer_check import check_destination
from shared.web.access import acting
from shared.web.documents_out import json_response
from shared.web.listing import Listing, described, described_page, listed_response
from shared.web.problems import PROBLEM_RESPONSES

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

URL_PREFIX = "/api/v1/destinations"

_CHECKED = {
    "type": "object",
    "required": ["destination", "ok", "answer", "code", "hint", "ms"],
    "properties": {
        "destination": {"type": "string"},
        "ok": {"type": "boolean", "description": "It would take what is sent to it"},
        "answer": {"type": "string", "description": "What it says, in short"},
        "code": {"type": "string", "description": "Empty if `ok`, else as in the exception log"},
        "hint": {"type": "string"},
        "ms": {"type": "integer", "description": "How long it took to answer"},
    },
}


class DestinationPath(BaseModel):
    """Path parameters of one destination."""

    name: str


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "destinations",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="destinations", description="How destinations are")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    @routes.get(
        "", operation_id="list_destination_states", responses={200: described_page("States")}
    )
    def list_states(query: Listing) -> Response:
        """How each destination is, in the order of the configuration."""
        names = [entity.name for entity in ports.configuration.get().destinations]
        return listed_response(names, query, lambda name: state_of(name, ports))

    @routes.get(
        "/<name>/state",
        operation_id="read_destination_state",
        responses={200: described("Its state", {"type": "object"})},
    )
    def read_state(path: DestinationPath) -> Response:
        """What waits for a destination, since when it fails, what it said last, when it is tried
        next; `circuit` is open while one delivery at a time is tried until one goes through.
        """
        try:
            return json_response(state_of(path.name, ports))
        except DestinationMisconfiguredError:
            raise DocumentMissingError("destinations", path.name) from None

    @routes.post(
        "/<name>/check",
        operation_id="check_destination",
        responses={200: described("Its answer, or why there is none", _CHECKED)},
    )
    def check(path: DestinationPath) -> Response:
        """Ask a destination whether it is there, for half a minute at most: C-ECHO, a search for
        one Study, a file that is written and deleted, an upload begun. Nothing stays stored there.
        """
        try:
            return json_response(check_destination(path.name, ports, by=acting()))
        except DestinationMisconfiguredError:
            raise DocumentMissingError("destinations", path.name) from None

    return routes
