"""The DICOMweb routes: for now the Store transaction (PS3.18 10.5)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, Field

from shared.config.entities import Settings
from shared.errors import InstanceTooLargeError, TransientError
from shared.messages import Source
from shared.multipart import MultipartError, MultipartReader, TooManyPartsError
from shared.web import access
from shared.web.media_types import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    JSON,
    MULTIPART_RELATED,
    MediaType,
    negotiate,
)
from shared.web.problems import PROBLEM_RESPONSES, ProblemError
from shared.web.request_body import RequestBody, RequestTooLargeError, announced_length
from shared.web.store_response import DataSet, store_response, to_json, to_xml
from shared.web.stow import Reception, Store, is_uid

log = logging.getLogger(__name__)

URL_PREFIX = "/api/v1/dicomweb"
MAX_PARTS = 20_000

# What a response can be, the default first.
_ENCODERS: dict[str, Callable[[DataSet], bytes]] = {
    DICOM_JSON: to_json,
    DICOM_XML: to_xml,
    JSON: to_json,
}


class StudyPath(BaseModel):
    """Path parameters of one Study."""

    study: str = Field(description="Study Instance UID that every Instance must have")


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_OPERATION: dict[str, Any] = {
    "requestBody": {"required": True, "content": {MULTIPART_RELATED: _BINARY, DICOM: _BINARY}}
}
_RESPONSES: dict[int | str, Any] = {
    status: {
        "description": description,
        "content": {name: {"schema": {"type": "object"}} for name in (DICOM_JSON, DICOM_XML)},
    }
    for status, description in (
        (200, "All Instances are stored"),
        (202, "Some Instances are stored"),
        (409, "No Instance is stored"),
        (413, "No Instance is stored: too large"),
    )
}


def blueprint(reception: Reception, settings: Callable[[], Settings]) -> APIBlueprint:
    """The routes below `URL_PREFIX`. `settings` is asked anew with each request."""
    routes = APIBlueprint(
        "dicomweb",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="dicomweb", description="DICOMweb (PS3.18)")],
        abp_responses={**PROBLEM_RESPONSES, **_RESPONSES},
        abp_security=[{"apiKey": []}],
    )

    @routes.post("/studies", operation_id="store_instances", openapi_extensions=_OPERATION)
    def store_instances() -> Response:
        """Store Instances of any Study: one file, or several as multipart/related."""
        return store("")

    @routes.post(
        "/studies/<study>", operation_id="store_study_instances", openapi_extensions=_OPERATION
    )
    def store_study_instances(path: StudyPath) -> Response:
        """Store Instances of one Study; those of another are refused."""
        return store(path.study)

    def store(study: str) -> Response:
        encoding = _response_encoding()
        content_type = MediaType.parse(request.headers.get("Content-Type", ""))
        if study and not is_uid(study):
            raise ProblemError(400, "invalid-uid", "The path does not name a Study Instance UID.")
        body = _body(settings().max_request_bytes)
        transaction = Store(reception, _source(), study)
        try:
            if content_type.name == DICOM:
                limit = settings().max_instance_bytes
                if (request.content_length or 0) > limit:
                    transaction.refuse_unread(InstanceTooLargeError(limit))
                else:
                    transaction.take_body(body)
                    if not body.received:
                        raise ProblemError(400, "empty-body", "The request has no body.")
            else:
                boundary = _boundary(content_type)
                transaction.take_parts(MultipartReader(body.read, boundary, max_parts=MAX_PARTS))
        except TooManyPartsError as error:
            raise _broken_off(transaction, 413, "too-many-parts", error) from None
        except MultipartError as error:
            raise _broken_off(transaction, 400, "malformed-body", error) from None
        except RequestTooLargeError as error:
            raise _broken_off(
                transaction, 413, "request-too-large", f"more than {error.args[0]} bytes"
            ) from None
        except TransientError as error:
            problem = ProblemError.of(error)
            problem.detail += _already_stored(transaction)
            raise problem from None
        return _response(transaction, encoding)

    return routes


def _response_encoding() -> str:
    """The media type that the client likes best. Raises: ProblemError 406."""
    chosen = negotiate(request.headers.get("Accept", ""), tuple(_ENCODERS))
    if chosen is None:
        raise ProblemError(
            406,
            "not-acceptable",
            f"The response can be {', '.join(_ENCODERS)}.",
            hint="Leave the Accept header out to get DICOM JSON.",
        )
    return chosen


def _boundary(content_type: MediaType) -> str:
    """The boundary of a multipart request. Raises: ProblemError 415, 400."""
    root_type = content_type.parameters.get("type", DICOM).lower()
    if content_type.name != MULTIPART_RELATED or root_type != DICOM:
        raise ProblemError(
            415,
            "unsupported-media-type",
            "The Store transaction takes Part 10 files alone.",
            hint='Send `multipart/related; type="application/dicom"; boundary=...`, '
            "or one file as `application/dicom`.",
        )
    boundary = content_type.parameters.get("boundary", "")
    if not boundary:
        raise ProblemError(400, "malformed-body", "The Content-Type names no boundary.")
    return boundary


def _body(max_bytes: int) -> RequestBody:
    length = announced_length(
        request.content_length,
        request.headers.get("Transfer-Encoding", ""),
        request.environ.get("SERVER_PROTOCOL", ""),
    )
    try:
        # The server's own stream: Werkzeug's holds bodies to limits that are meant for forms, and
        # takes a chunked one for empty where the server does not say that it marks the end.
        return RequestBody(request.environ["wsgi.input"], length, max_bytes=max_bytes)
    except RequestTooLargeError as error:
        raise ProblemError(
            413, "request-too-large", f"The request is larger than {error.args[0]} bytes."
        ) from None


def _source() -> Source:
    return Source(
        type="stow",
        name="dicomweb",
        peer_address=request.remote_addr or "",
        principal=access.principal().name,
    )


def _broken_off(transaction: Store, status: int, code: str, reason: object) -> ProblemError:
    return ProblemError(
        status,
        code,
        f"The request cannot be read to its end: {reason}" + _already_stored(transaction),
        hint="Send it again; an Instance that is stored already is taken again unchanged.",
    )


def _already_stored(transaction: Store) -> str:
    count = len(transaction.outcome.stored)
    return f"; {count} Instances were stored before that" if count else ""


def _response(transaction: Store, encoding: str) -> Response:
    outcome = transaction.outcome
    module = store_response(outcome.stored, outcome.failed)
    response = Response(_ENCODERS[encoding](module), status=outcome.http_status)
    response.content_type = encoding
    if outcome.failed:
        # The module has numbers alone; PS3.18 8.6 lets a Warning header carry the words.
        words = re.sub(r"[^ !#-\[\]-~]", "?", outcome.summary)[:500]
        response.headers["Warning"] = f'299 axiom-flow "{words}"'
    log.info(
        "store request",
        extra={"stored": len(outcome.stored), "failed": len(outcome.failed)},
    )
    return response
