"""Routes of the exception log: /api/v1/exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import Category
from shared.messages import Stage
from shared.pipeline.exceptions import words_of
from shared.pipeline.jobs import Action
from shared.web.actions import (
    ActionRoute,
    DiscardRequest,
    ReasonRequest,
    add_action_routes,
    add_bulk_route,
    carried_out,
)
from shared.web.documents_out import json_response
from shared.web.listing import (
    Listing,
    Since,
    described_page,
    fetch,
    page_response,
    search,
)
from shared.web.problems import PROBLEM_RESPONSES

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

URL_PREFIX = "/api/v1/exceptions"


class ExceptionQuery(Listing):
    """Which entries to list; several conditions must all hold."""

    status: Literal["open", "retried", "archived", "discarded"] | None = None
    category: Category | None = None
    stage: Stage | None = None
    code: str | None = None
    destination: str | None = None
    study_uid: str | None = Field(default=None, description="Study Instance UID")
    sop_instance_uid: str | None = None
    receipt_id: str | None = None
    since: Since | None = Field(default=None, description="Last time at or after this")
    q: str | None = Field(
        default=None,
        description="Text in the message, the peer's words, UIDs or names; no patient data, "
        "because URLs end up in logs",
    )


class ExceptionPath(BaseModel):
    """Path parameters of one entry."""

    exception_id: str


class RetryRequest(BaseModel):
    """How to retry, other than as it was; not both."""

    model_config = ConfigDict(extra="forbid")

    destination: str = Field(default="", description="Deliver there instead")
    with_current_rules: bool = Field(
        default=False, description="Have the current rules decide about the received file anew"
    )


class ExceptionEntry(BaseModel):
    """One entry of the exception log."""

    model_config = ConfigDict(extra="allow")

    id: str
    status: str
    category: Category
    stage: Stage
    code: str
    message: str
    hint: str
    peer_message: str
    first_at: str
    last_at: str
    attempts: int
    can_retry: bool


_ACTIONS = (
    ActionRoute(
        "retry",
        "Try what failed again, from the stage where it failed; to another destination, or with "
        "the current rules, if the body says so.",
        RetryRequest,
    ),
    ActionRoute("archive", "Mark an entry as dealt with; nothing else happens.", ReasonRequest),
    ActionRoute("discard", "Give up for good what failed, and say why.", DiscardRequest),
)
_BULK = (
    "Retry, archive or discard all entries that fit the filter, the open ones unless it names a "
    "status. `dry_run` counts them; else a job does it: see /api/v1/jobs/{id}."
)


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    log = ports.exceptions
    routes = APIBlueprint(
        "exceptions",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="exceptions", description="What could not be done, and what to do")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    def done(action: Action, exception_id: str) -> Response:
        return json_response(_shown(carried_out(action, exception_id, ports)))

    @routes.get("", operation_id="list_exceptions", responses={200: described_page("Entries")})
    def list_exceptions(query: ExceptionQuery) -> Response:
        """Entries, newest first."""
        where = {
            "status": query.status or "",
            "category": query.category or "",
            "stage": query.stage or "",
            "code": query.code or "",
            "destination": query.destination or "",
            "study_instance_uid": query.study_uid or "",
            "sop_instance_uid": query.sop_instance_uid or "",
            "receipt_id": query.receipt_id or "",
        }

        def entries(limit: int, cursor: str | None) -> Any:
            return log.list(where=where, since=query.since, limit=limit, cursor=cursor)

        page = search(entries, query, query.q, words_of) if query.q else fetch(entries, query)
        return page_response(page, _shown)

    @routes.get("/<exception_id>", operation_id="read_exception", responses={200: ExceptionEntry})
    def read_exception(path: ExceptionPath) -> Response:
        """One entry."""
        return json_response(_shown(log.get(path.exception_id)))

    add_action_routes(
        routes, "/<id>", "exception", "exceptions", _ACTIONS, done, {200: ExceptionEntry}
    )
    add_bulk_route(routes, "", "exceptions", _BULK, ports)
    return routes


def _shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry without the message that a retry publishes: its header is patient data."""
    shown = {name: value for name, value in entry.items() if name != "retry_message"}
    del shown["retry_topic"]
    return {**shown, "can_retry": bool(entry["retry_topic"])}
