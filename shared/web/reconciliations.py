"""Routes of reconciliation: /api/v1/reconciliations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import DocumentMissingError
from shared.pipeline import reconcile
from shared.web.access import acting
from shared.web.documents_in import received_document
from shared.web.documents_out import json_response
from shared.web.listing import Listing, Since, described, described_page, newest_response
from shared.web.problems import PROBLEM_RESPONSES

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports

URL_PREFIX = "/api/v1/reconciliations"


class ReconciliationRequest(BaseModel):
    """What to compare."""

    model_config = ConfigDict(extra="forbid")

    destination: str
    source: str = Field(
        default="", description="Name of a listener or source, or a calling AE Title; all if empty"
    )
    since: Since | None = Field(default=None, description="Of what was received at or after this")
    requeue: bool = Field(default=False, description="Deliver anew what is missing")


class ReconciliationPath(BaseModel):
    """Path parameters of one reconciliation."""

    reconciliation_id: str


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "reconciliations",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="reconciliations", description="What came against what is there")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    @routes.post(
        "",
        operation_id="start_reconciliation",
        responses={202: described("It runs in the background", {"type": "object"})},
        openapi_extensions={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": ReconciliationRequest.model_json_schema()}
                },
            }
        },
    )
    def start_reconciliation() -> Response:
        """Compare what came from a source with what a destination holds."""
        asked = ReconciliationRequest.model_validate(received_document())
        data = reconcile.create(
            asked.source,
            asked.destination,
            ports,
            by=acting(),
            since=asked.since,
            requeue=asked.requeue,
        )
        reconcile.start(data["id"], ports)
        return json_response(data, 202)

    @routes.get(
        "",
        operation_id="list_reconciliations",
        responses={200: described_page("Reconciliations")},
    )
    def list_reconciliations(query: Listing) -> Response:
        """Reconciliations, the newest first."""
        return newest_response(ports.documents, reconcile.COLLECTION, "began_at", query)

    @routes.get(
        "/<reconciliation_id>",
        operation_id="read_reconciliation",
        responses={200: described("The reconciliation", {"type": "object"})},
    )
    def read_reconciliation(path: ReconciliationPath) -> Response:
        """How far it is, and once `state` is finished, what was found."""
        found = ports.documents.get(reconcile.COLLECTION, path.reconciliation_id)
        if found is None:
            raise DocumentMissingError(reconcile.COLLECTION, path.reconciliation_id)
        return json_response(found.data)

    return routes
