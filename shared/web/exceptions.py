"""Routes of the exception log: /api/v1/exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import Category
from shared.messages import Stage
from shared.web.access import acting
from shared.web.documents_in import received_document
from shared.web.documents_out import json_response
from shared.web.listing import (
    Listing,
    Since,
    described_page,
    fetch,
    page_response,
    search,
)
from shared.web.problems import PROBLEM_RESPONSES, ProblemError

if TYPE_CHECKING:
    from shared.pipeline.exceptions import ExceptionLog

URL_PREFIX = "/api/v1/exceptions"


class ExceptionQuery(Listing):
    """Which entries to list; several conditions must all hold."""

    status: Literal["open", "retried", "archived"] | None = None
    category: Category | None = None
    stage: Stage | None = None
    code: str | None = None
    destination: str | None = None
    study_uid: str | None = Field(default=None, description="Study Instance UID")
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


class ArchiveRequest(BaseModel):
    """Why an entry needs no more work."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=1000)


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


def blueprint(log: ExceptionLog) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "exceptions",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="exceptions", description="What could not be done, and what to do")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

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
            "receipt_id": query.receipt_id or "",
        }

        def entries(limit: int, cursor: str | None) -> Any:
            return log.list(where=where, since=query.since, limit=limit, cursor=cursor)

        page = search(entries, query, query.q, _words) if query.q else fetch(entries, query)
        return page_response(page, _shown)

    @routes.get("/<exception_id>", operation_id="read_exception", responses={200: ExceptionEntry})
    def read_exception(path: ExceptionPath) -> Response:
        """One entry."""
        return json_response(_shown(log.get(path.exception_id)))

    @routes.post(
        "/<exception_id>/retry", operation_id="retry_exception", responses={200: ExceptionEntry}
    )
    def retry_exception(path: ExceptionPath) -> Response:
        """Try what failed again, from the stage where it failed."""
        if not log.get(path.exception_id)["retry_topic"]:
            raise ProblemError(
                409,
                "nothing-to-retry",
                "The sender was refused, so there is nothing here to retry.",
                hint="Have the Instance sent again.",
            )
        return json_response(_shown(log.retry(path.exception_id, by=acting())))

    @routes.post(
        "/<exception_id>/archive",
        operation_id="archive_exception",
        responses={200: ExceptionEntry},
        openapi_extensions={
            "requestBody": {
                "content": {"application/json": {"schema": ArchiveRequest.model_json_schema()}}
            }
        },
    )
    def archive_exception(path: ExceptionPath) -> Response:
        """Mark an entry as dealt with; nothing else happens."""
        document = received_document() if request.content_length else {}
        reason = ArchiveRequest.model_validate(document).reason
        return json_response(_shown(log.archive(path.exception_id, by=acting(), reason=reason)))

    return routes


def _shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry without the message that a retry publishes: its header is patient data."""
    shown = {name: value for name, value in entry.items() if name != "retry_message"}
    del shown["retry_topic"]
    return {**shown, "can_retry": bool(entry["retry_topic"])}


def _words(entry: Mapping[str, Any]) -> list[object]:
    names = ("id", "code", "message", "peer_message", "destination", "receipt_id")
    uids = ("sop_class_uid", "sop_instance_uid", "study_instance_uid")
    source = entry.get("source") or {}
    return [entry[name] for name in names + uids] + list(source.values())
