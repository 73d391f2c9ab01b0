"""Routes of pulls on demand: /api/v1/pulls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import DocumentMissingError, Fault
from shared.pipeline import pulls
from shared.web.access import acting
from shared.web.documents_in import received_document
from shared.web.documents_out import json_response
from shared.web.listing import Listing, described, described_page, fetch, page_response
from shared.web.media_types import JSON
from shared.web.problems import PROBLEM_RESPONSES, ProblemError

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

URL_PREFIX = "/api/v1/pulls"


class PullRequest(BaseModel):
    """What is to be fetched, from whom."""

    model_config = ConfigDict(extra="forbid")

    source: str
    studies: list[str] = Field(default=[], max_length=pulls.MAX_ROWS)
    accessions: list[str] = Field(default=[], max_length=pulls.MAX_ROWS)
    csv: str = Field(default="", description="A list with a header, as a text")
    again: bool = Field(default=False, description="Fetch what came already, too")


class PullPath(BaseModel):
    """Path parameters of one pull."""

    pull_id: str


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "pulls",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="pulls", description="Fetching from sources on demand")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )
    one: dict[Any, Any] = {200: described("The pull", {"type": "object"})}

    @routes.post(
        "",
        operation_id="start_pull",
        responses={202: one[200]},
        openapi_extensions={
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": PullRequest.model_json_schema()}},
            }
        },
    )
    def start_pull() -> Response:
        """Fetch Studies from a source, by UID, accession number or a list of these."""
        body = PullRequest.model_validate(received_document())
        try:
            wanted = [pulls.Wanted("StudyInstanceUID", uid) for uid in body.studies]
            wanted += [pulls.Wanted("AccessionNumber", number) for number in body.accessions]
            wanted += pulls.read_csv(body.csv)
            entity = ports.configuration.get().source(body.source)
            if entity is None or not entity.enabled:
                hint = "GET /api/v1/sources lists all."
                fault = Fault("source", "there is no enabled source of this name", hint)
                raise ProblemError(422, "invalid-document", "1 fault", faults=[fault])
            job = pulls.create(body.source, wanted, by=acting(), ports=ports, again=body.again)
        except ValueError as error:
            fault = Fault("(document)", str(error))
            raise ProblemError(422, "invalid-document", "1 fault", faults=[fault]) from None
        pulls.start(job["id"], ports)
        response = json_response(job, 202)
        response.headers["Location"] = f"{URL_PREFIX}/{job['id']}"
        return response

    @routes.get("/<pull_id>", operation_id="read_pull", responses=one)
    def read_pull(path: PullPath) -> Response:
        """How far a pull is: `total` rows, `done`, `failed`, `unknown` to the source; `instances`
        that came; `state` running, paused or finished.
        """
        return json_response(_pull(path.pull_id, ports))

    @routes.get(
        "/<pull_id>/rows", operation_id="list_pull_rows", responses={200: described_page("Rows")}
    )
    def list_pull_rows(path: PullPath, query: Listing) -> Response:
        """What became of each row, by its number in what was asked for."""
        _pull(path.pull_id, ports)
        page = fetch(
            lambda limit, cursor: pulls.rows(path.pull_id, ports, limit=limit, cursor=cursor), query
        )
        return page_response(page, pulls.shown)

    @routes.post("/<pull_id>/pause", operation_id="pause_pull", responses=one)
    def pause_pull(path: PullPath) -> Response:
        """Stop after the rows at hand."""
        return json_response(pulls.pause(path.pull_id, by=acting(), ports=ports))

    @routes.post("/<pull_id>/resume", operation_id="resume_pull", responses=one)
    def resume_pull(path: PullPath) -> Response:
        """Go on with a pull that was paused."""
        job = pulls.resume(path.pull_id, by=acting(), ports=ports)
        pulls.start(path.pull_id, ports)
        return json_response(job)

    return routes


def _pull(pull_id: str, ports: Ports) -> Any:
    found = ports.documents.get(pulls.JOBS, pull_id)
    if found is None or found.data.get("kind") != "pull":
        raise DocumentMissingError("pulls", pull_id)
    return found.data
