"""Documents that clients get, with the ETag that a later change may name in If-Match."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import yaml
from flask import Response, request

from shared.web.documents_in import YAML
from shared.web.media_types import JSON, negotiate
from shared.web.problems import ProblemError


def etag_of(document: Mapping[str, Any]) -> str:
    """Equal for equal documents, whatever the order of their names."""
    canonical = msgspec.json.encode(document, order="deterministic")
    return hashlib.sha256(canonical).hexdigest()[:32]


def is_what_client_knows(document: Mapping[str, Any]) -> bool:
    """Whether the If-Match of the request, if it has one, names `document` (RFC 9110 13.1.1)."""
    if "If-Match" not in request.headers:
        return True
    return request.if_match.contains(etag_of(document))


def document_response(
    document: Mapping[str, Any], status: int = 200, *, location: str = ""
) -> Response:
    """One document as JSON; 304 to a GET whose If-None-Match names it."""
    response = json_response(document, status)
    response.set_etag(etag_of(document))
    if location:
        response.headers["Location"] = location
    if "If-None-Match" in request.headers and request.method in ("GET", "HEAD"):
        response.make_conditional(request)
    return response


def json_response(value: object, status: int = 200) -> Response:
    """Any plain value as JSON."""
    # As json.dumps writes it, in a tenth of the time.
    text = msgspec.json.format(msgspec.json.encode(value), indent=0)
    return Response(text, status=status, mimetype=JSON)


def json_or_yaml_response(document: Mapping[str, Any]) -> Response:
    """A document as the Accept header likes it. Raises: ProblemError 406."""
    chosen = negotiate(request.headers.get("Accept", ""), (JSON, *YAML))
    if chosen is None:
        raise ProblemError(406, "not-acceptable", f"The response can be {JSON} or {YAML[0]}.")
    if chosen == JSON:
        return document_response(document)
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    response = Response(text, content_type=chosen)
    response.set_etag(etag_of(document))
    return response
