"""Routes of Studies, and of the rules that wait for them or their Series: /api/v1/studies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from shared.pipeline import studies, timelines
from shared.web.access import acting
from shared.web.documents_in import received_document
from shared.web.documents_out import json_response
from shared.web.listing import (
    Listing,
    Since,
    described,
    described_page,
    fetch,
    page_response,
)
from shared.web.problems import PROBLEM_RESPONSES, ProblemError

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

URL_PREFIX = "/api/v1/studies"


class StudyQuery(Listing):
    """Which Studies and Series to list; several conditions must all hold."""

    state: Literal["collecting", "complete", "timed_out"] | None = None
    study_uid: str | None = Field(default=None, description="Study Instance UID")
    rule: str | None = Field(default=None, description="`ruleset/rule`")
    since: Since | None = Field(default=None, description="First Instance at or after this")


class StudyPath(BaseModel):
    """Path parameters of one Study."""

    study_instance_uid: str


class CompleteRequest(BaseModel):
    """Which rules are to wait no longer."""

    model_config = ConfigDict(extra="forbid")

    rule: str = Field(default="", description="`ruleset/rule`; all of them without it")


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "studies",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[
            Tag(name="studies", description="What came, and what waits until its Study is complete")
        ],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    def shown(study: Mapping[str, Any]) -> dict[str, Any]:
        return studies.shown(ports.documents, study)

    @routes.get("", operation_id="list_studies", responses={200: described_page("Studies")})
    def list_studies(query: StudyQuery) -> Response:
        """Studies and Series that study and series rules wait for, or have decided about: one entry
        for each rule, the newest first.
        """
        where = {
            "state": query.state or "",
            "study_instance_uid": query.study_uid or "",
            "rule": query.rule or "",
        }

        def entries(limit: int, cursor: str | None) -> Any:
            return studies.find(
                ports.documents, where=where, since=query.since, limit=limit, cursor=cursor
            )

        return page_response(fetch(entries, query), shown)

    @routes.get(
        "/<study_instance_uid>",
        operation_id="read_study",
        responses={200: described("What came, and what each rule has of it", {"type": "object"})},
    )
    def read_study(path: StudyPath) -> Response:
        """One Study: how many Instances came, how many exceptions there are, and how far each rule
        is with it, or with its Series. `/instances` has what happened to each.
        """
        return json_response(timelines.study(path.study_instance_uid, ports.documents))

    @routes.post(
        "/<study_instance_uid>/complete",
        operation_id="complete_study",
        responses={202: described("It is decided about at once", {"type": "object"})},
        openapi_extensions={
            "requestBody": {
                "content": {"application/json": {"schema": CompleteRequest.model_json_schema()}}
            }
        },
    )
    def complete_study(path: StudyPath) -> Response:
        """Have the Study count as complete; one that was held or discarded is decided anew."""
        document = received_document() if request.content_length else {}
        rule = CompleteRequest.model_validate(document).rule
        try:
            changed = studies.complete(
                ports.documents, ports.clock, path.study_instance_uid, by=acting(), rule=rule
            )
        except studies.StudyDecidedError:
            raise ProblemError(
                409,
                "already-complete",
                "The Study is complete already, and nothing of it is held back.",
                hint="Have single Instances decided anew instead: POST /instances/{id}/reprocess.",
            ) from None
        rules = [shown(study) for study in changed]
        return json_response({"study_instance_uid": path.study_instance_uid, "rules": rules}, 202)

    return routes
