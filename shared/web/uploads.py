"""The route of uploads past our own processes: /api/v1/uploads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.config.faults import field_fault
from shared.pipeline import uploads
from shared.times import timestamp
from shared.web.actions import received_if_any, takes
from shared.web.problems import PROBLEM_RESPONSES, ProblemError

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports


class NewUpload(BaseModel):
    """What a client says before it sends a file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    size: Annotated[int, Field(ge=1, le=5 << 40)] | None = None  # in bytes, if it is known


_UPLOAD: dict[str, Any] = {
    "description": "The session",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "upload_id": {"type": "string"},
                    "session_uri": {"type": "string"},
                    "expires_at": {"type": "string", "format": "date-time"},
                },
            }
        }
    },
}


def blueprint(ports: Ports) -> APIBlueprint:
    """The route."""
    routes = APIBlueprint(
        "uploads",
        __name__,
        url_prefix="/api/v1",
        abp_tags=[Tag(name="uploads", description="Files of any size, sent to Cloud Storage")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    @routes.post(
        "/uploads",
        operation_id="begin_upload",
        openapi_extensions=takes(NewUpload),
        responses={201: _UPLOAD},
    )
    def begin_upload() -> Response:
        """Begin a resumable upload of one Part 10 file: PUT it to `session_uri`, in pieces if
        wanted, as Cloud Storage describes. It is taken in once its last byte has come.
        """
        try:
            wanted = NewUpload.model_validate(received_if_any())
        except ValidationError as error:
            faults = [field_fault(".".join(map(str, one["loc"])), one) for one in error.errors()]
            raise ProblemError(
                422, "invalid-document", f"{len(faults)} faults", faults=faults
            ) from None
        upload = uploads.begin(wanted.size, ports.begin_upload, ports.clock)
        response = jsonify(
            upload_id=upload.upload_id,
            session_uri=upload.session_uri,
            expires_at=timestamp(upload.expires_at),
        )
        response.status_code = 201
        return response

    return routes
