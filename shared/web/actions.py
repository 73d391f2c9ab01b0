"""What requests that act on entries and Instances have in common: on one, or on all by filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from shared.errors import DestinationMisconfiguredError, Fault
from shared.pipeline import jobs
from shared.web.access import acting
from shared.web.documents_in import received_document
from shared.web.documents_out import json_response
from shared.web.listing import described
from shared.web.problems import ProblemError

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)]


class ReasonRequest(BaseModel):
    """Why an entry needs no more work."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason = ""


class DiscardRequest(BaseModel):
    """Why something is given up for good."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[Reason, StringConstraints(min_length=1)]


class RerouteRequest(BaseModel):
    """Where to send an Instance instead."""

    model_config = ConfigDict(extra="forbid")

    destination: Annotated[str, StringConstraints(min_length=1)]


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


class BulkRequest(BaseModel):
    """One action on all that the filter means."""

    model_config = ConfigDict(extra="forbid")

    action: str
    filter: dict[str, Annotated[str, BeforeValidator(_as_text)]] | None = Field(
        default=None,
        description="Names and values as the list's query parameters take them; {} means all that "
        "wait. It may be left out with `dry_run` alone.",
    )
    dry_run: bool = Field(default=False, description="Count what the filter means, do nothing")
    destination: str = ""
    with_current_rules: bool = False
    reason: Reason = ""


_COUNT = {
    "type": "object",
    "properties": {"dry_run": {"type": "boolean"}, "count": {"type": "integer"}},
}
BULK_RESPONSES: dict[int | str, Any] = {
    200: described("How many it would be (`dry_run`)", _COUNT),
    202: described("The job that does it", {"type": "object"}),
}


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """The request body for the OpenAPI document."""
    return {"requestBody": {"content": {"application/json": {"schema": model.model_json_schema()}}}}


def received_if_any() -> Mapping[str, Any]:
    """The request's document; an empty one if it has no body."""
    has_body = request.content_length or "Transfer-Encoding" in request.headers
    return received_document() if has_body else {}


def carried_out(action: jobs.Action, key: str, ports: Ports) -> Mapping[str, Any]:
    """Do it to one; its document then. Raises: ProblemError for what cannot be."""
    _check(action, ports)
    return action.carry_out(key, by=acting(), ports=ports)


@dataclass(frozen=True, slots=True)
class ActionRoute:
    """One action on one thing: `POST .../{id}/<called>`."""

    called: str
    description: str
    # Its fields are those of `jobs.Action`; a body is not looked at if it is None.
    body: type[BaseModel] | None = None
    action: str = ""  # as jobs call it, where that is another word


class ActionPath(BaseModel):
    """Path parameters of one thing."""

    id: str


def add_action_routes(
    routes: APIBlueprint,
    of_one: str,
    noun: str,
    kind: str,
    actions: Iterable[ActionRoute],
    answer: Callable[[jobs.Action, str], Response],
    responses: Mapping[int | str, Any],
) -> None:
    """Add the routes of actions on one thing; `of_one` is its path, with `<id>`.

    Each is named after the action and the noun: `retry_exception`.
    """

    def add(route: ActionRoute) -> None:
        name = f"{route.called}_{noun}"

        @routes.post(
            f"{of_one}/{route.called}",
            endpoint=name,
            operation_id=name,
            description=route.description,
            responses=dict(responses),
            openapi_extensions=takes(route.body) if route.body else None,
        )
        def act(path: ActionPath) -> Response:
            asked = {} if route.body is None else _received(route.body)
            return answer(jobs.Action(kind, route.action or route.called, **asked), path.id)

    for route in actions:
        add(route)


def add_bulk_route(
    routes: APIBlueprint, of_all: str, kind: str, description: str, ports: Ports
) -> None:
    """Add the route of actions on all that a filter means."""

    @routes.post(
        f"{of_all}/bulk",
        endpoint=f"bulk_{kind}",
        operation_id=f"bulk_{kind}",
        description=description,
        responses=BULK_RESPONSES,
        openapi_extensions=takes(BulkRequest),
    )
    def bulk() -> Response:
        return bulk_response(kind, ports)


def _received(body: type[BaseModel]) -> dict[str, Any]:
    return body.model_validate(received_if_any()).model_dump()


def bulk_response(kind: str, ports: Ports) -> Response:
    """Count, or start the job, as the request's document says."""
    asked = BulkRequest.model_validate(received_document())
    action = jobs.Action(
        kind, asked.action, asked.destination, asked.with_current_rules, asked.reason
    )
    _check(action, ports)
    try:
        if asked.dry_run:
            count = jobs.preview(kind, asked.filter or {}, ports)
            return json_response({"dry_run": True, "action": asked.action, "count": count})
        if asked.filter is None:
            raise ValueError("say which are meant: {} means all that wait")
        job = jobs.start(action, asked.filter, by=acting(), ports=ports)
    except ValueError as error:
        raise _unfit("filter", str(error)) from None
    response = json_response(job, 202)
    response.headers["Location"] = f"/api/v1/jobs/{job['id']}"
    return response


def _check(action: jobs.Action, ports: Ports) -> None:
    try:
        action.check(ports)
    except DestinationMisconfiguredError as error:
        raise _unfit("destination", str(error)) from None
    except ValueError as error:
        raise _unfit("(document)", str(error)) from None


def _unfit(path: str, message: str) -> ProblemError:
    fault = Fault(path, message)
    return ProblemError(
        422, "invalid-request", "What the request says does not fit.", faults=[fault]
    )
