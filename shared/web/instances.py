"""Routes of what was received and where it went: /api/v1/instances and /api/v1/deliveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, Field

from shared.errors import DocumentMissingError
from shared.identity.permissions import Permission
from shared.pipeline import delivery_records
from shared.pipeline.jobs import Action
from shared.pipeline.timelines import follow, followed, page_of_instances, timeline
from shared.ports import Filter, Page
from shared.times import timestamp
from shared.web.access import may, note_access
from shared.web.actions import (
    ActionRoute,
    DiscardRequest,
    RerouteRequest,
    add_action_routes,
    add_bulk_route,
    carried_out,
)
from shared.web.documents_out import json_response
from shared.web.listing import (
    Listing,
    Since,
    described,
    described_page,
    fetch,
    page_response,
)
from shared.web.problems import PROBLEM_RESPONSES
from shared.web.studies import StudyPath

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

URL_PREFIX = "/api/v1"

_INSTANCES, _DELIVERIES = "instances", "deliveries"


class InstanceQuery(Listing):
    """Which Instances to list; several conditions must all hold."""

    state: (
        Literal["routed", "collecting", "held", "discarded", "released", "quarantined"] | None
    ) = None
    study_uid: str | None = Field(default=None, description="Study Instance UID")
    sop_instance_uid: str | None = None
    since: Since | None = Field(default=None, description="Received at or after this")


class FollowedListing(Listing):
    """How much to list of what is read together from several places."""

    limit: int = Field(default=50, ge=1, le=100, description="Instances on one page")


class DeliveryQuery(Listing):
    """Which Deliveries to list; several conditions must all hold."""

    state: (
        Literal["delivered", "retrying", "failed", "quarantined", "superseded", "discarded"] | None
    ) = None
    destination: str | None = None
    study_uid: str | None = Field(default=None, description="Study Instance UID")
    receipt_id: str | None = None
    since: Since | None = Field(default=None, description="Last tried at or after this")


class InstancePath(BaseModel):
    """Path parameters of one Instance."""

    receipt_id: str


_ACTIONS = (
    ActionRoute(
        "reprocess",
        "Have the current rules decide anew about an Instance that is held or was discarded.",
        action="release",
    ),
    ActionRoute(
        "release",
        "Have the current rules decide anew about an Instance that is held, quarantined or was "
        "discarded.",
    ),
    ActionRoute(
        "reroute",
        "Send an Instance that waits to the named destination instead.",
        RerouteRequest,
    ),
    ActionRoute("discard", "Give up for good an Instance that waits, and say why.", DiscardRequest),
)
_BULK = (
    "Release, reroute or discard all Instances that fit the filter, the held and quarantined ones "
    "unless it names a state. `dry_run` counts them; else a job does it."
)
_ON_ITS_WAY: Mapping[int | str, Any] = {
    202: described("It is on its way, or given up", {"type": "object"})
}


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "instances",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="instances", description="What was received, and where it went")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    def listed(
        collection: str,
        order_by: str,
        where: Mapping[str, str | None],
        listing: Listing,
        since: Any,
    ) -> Page:
        filters = [Filter(name, "==", value) for name, value in where.items() if value]
        if since is not None:
            filters.append(Filter(order_by, ">=", timestamp(since)))
        return fetch(
            lambda limit, cursor: ports.documents.query(
                collection,
                filters,
                order_by=order_by,
                descending=True,
                limit=limit,
                cursor=cursor,
            ),
            listing,
        )

    def done(action: Action, receipt_id: str) -> Response:
        return json_response(_summary(carried_out(action, receipt_id, ports)), 202)

    @routes.get(
        "/instances",
        operation_id="list_instances",
        responses={200: described_page("Instances")},
    )
    def list_instances(query: InstanceQuery) -> Response:
        """Instances that rules have decided about, the newest first, without their Changes."""
        where = {
            "state": query.state,
            "study_instance_uid": query.study_uid,
            "sop_instance_uid": query.sop_instance_uid,
        }
        page = listed(_INSTANCES, "received_at", where, query, query.since)
        return page_response(page, _summary)

    @routes.get(
        "/instances/<receipt_id>",
        operation_id="read_instance",
        responses={200: described("What is known of the Instance", {"type": "object"})},
    )
    def read_instance(path: InstancePath) -> Response:
        """One Instance: rules matched, Changes old and new, Deliveries, exceptions, and all of
        it in the order of time. `/explain` says why each rule matched or not.

        Values old and new are patients': without patients:read they are left out, and with it the
        audit log has that they were shown.
        Before rules decide, or if validation refuses it, only its exceptions are known.
        """
        found = ports.documents.get(_INSTANCES, path.receipt_id)
        known_of = follow(path.receipt_id, ports.documents)
        if found is None and not known_of.exceptions:
            raise DocumentMissingError(_INSTANCES, path.receipt_id)
        known: dict[str, Any] = {"receipt_id": path.receipt_id}
        if found is not None:
            known = _detail(found.data, known_of.deliveries)
        if not may(Permission.PATIENTS_READ):
            known = _without_values(known)
        elif found is not None:
            study_uid = found.data["study_instance_uid"]
            note_access(ports, "instances.read", path.receipt_id, study_uid)
        shown = [_exception(entry) for entry in known_of.exceptions]
        steps = timeline(found.data if found else None, known_of)
        return json_response(
            {"state": "undecided", **known, "exceptions": shown, "timeline": steps}
        )

    @routes.get(
        "/studies/<study_instance_uid>/instances",
        operation_id="list_study_instances",
        responses={200: described_page("Instances, each with its timeline")},
    )
    def list_study_instances(path: StudyPath, query: FollowedListing) -> Response:
        """What came of a Study, in the order in which it came, and what happened to each."""

        def entries(limit: int, cursor: str | None) -> Page:
            return page_of_instances(
                path.study_instance_uid, ports.documents, limit=limit, cursor=cursor
            )

        return page_response(
            fetch(entries, query), lambda instance: followed(instance, ports.documents)
        )

    add_action_routes(
        routes, "/instances/<id>", "instance", "instances", _ACTIONS, done, _ON_ITS_WAY
    )
    add_bulk_route(routes, "/instances", "instances", _BULK, ports)

    @routes.get(
        "/deliveries",
        operation_id="list_deliveries",
        responses={200: described_page("Deliveries")},
    )
    def list_deliveries(query: DeliveryQuery) -> Response:
        """Deliveries that were tried, the last tried first."""
        where = {
            "state": query.state,
            "destination": query.destination,
            "study_instance_uid": query.study_uid,
            "receipt_id": query.receipt_id,
        }
        page = listed(_DELIVERIES, "updated_at", where, query, query.since)
        return page_response(page, dict)

    return routes


# What an Instance leaves with is patient data: shown for each Delivery, or not at all.
_OF_ITS_OWN = ("deliveries", "changes", "otherwise")


def _summary(instance: Mapping[str, Any]) -> dict[str, Any]:
    destinations = [plan["destination"] for plan in instance["deliveries"]]
    return {**_without(instance, *_OF_ITS_OWN), "destinations": destinations}


def _detail(instance: Mapping[str, Any], deliveries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An Instance with each planned Delivery as it was decided, and as it went so far."""
    went = {delivery["destination"]: delivery for delivery in deliveries}
    planned = [
        {
            "state": "pending",
            **went.get(plan["destination"], {"destination": plan["destination"]}),
            "changes": [_without(c, "old_element", "new_element") for c in plan["changes"]],
            "transcoding": plan.get("transcoding"),
        }
        for plan in instance["deliveries"]
    ]
    left = delivery_records.left_at(instance, deliveries)
    return {**_without(instance, *_OF_ITS_OWN), "deliveries": planned, "left_at": left}


def _without_values(known: Mapping[str, Any]) -> dict[str, Any]:
    deliveries = [
        {**one, "changes": [_without(change, "old", "new") for change in one["changes"]]}
        for one in known.get("deliveries", ())
    ]
    return {**known, "deliveries": deliveries}


def _exception(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = ("id", "status", "category", "stage", "code", "message", "destination", "last_at")
    return {name: entry[name] for name in names}


def _without(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}
