"""Errors as the API shows them: problem details (RFC 9457) with a stable code and a hint.

The one table from our errors to HTTP status is here. No problem quotes what the client sent.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from flask import Flask, Response
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import HTTPException

from shared.errors import (
    AxiomError,
    DocumentChangedError,
    DocumentExistsError,
    DocumentMissingError,
    Fault,
    InstanceTooLargeError,
    InvalidConfigurationError,
    ObjectMissingError,
    OverloadedError,
    RateLimitedError,
    TransientError,
)
from shared.logs import describe
from shared.web.media_types import PROBLEM_JSON

log = logging.getLogger(__name__)

# The first class that fits counts.
STATUSES: tuple[tuple[type[AxiomError], int], ...] = (
    (InvalidConfigurationError, 422),
    (DocumentMissingError, 404),
    (DocumentExistsError, 409),
    (DocumentChangedError, 412),
    (ObjectMissingError, 410),
    (InstanceTooLargeError, 413),
    (OverloadedError, 503),
    (RateLimitedError, 429),
    (TransientError, 503),
    (AxiomError, 409),
)

_HINTS = {
    "document-missing": "List the collection to see what there is.",
    "document-exists": "Choose another name, or PUT to replace it.",
    "document-changed": "GET it again and repeat the change with the new ETag in If-Match.",
    "not-found": "See /api/v1/docs for what there is.",
    "method-not-allowed": "The Allow header names the methods of this resource.",
    "unsupported-media-type": "See /api/v1/docs for the Content-Type that this resource takes.",
}
_DEFAULT_RETRY_AFTER_S = 5.0


class FaultDetails(BaseModel):
    """One thing that is wrong with what was sent."""

    path: str
    message: str
    hint: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str = ""
    faults: list[FaultDetails] = []


def _described(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {PROBLEM_JSON: {"schema": schema}}}


# What every operation may answer besides its own responses, for the OpenAPI document.
PROBLEM_RESPONSES: dict[int | str, Any] = {
    401: _described("No API key, or one that is not valid"),
    422: _described("Something of the request is wrong; `faults` names all of it"),
    "default": _described("Any other error"),
}


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        hint: str = "",
        faults: Iterable[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code, detail)
        self.status, self.code, self.detail, self.hint = status, code, detail, hint
        self.faults = tuple(faults)
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, error: AxiomError) -> ProblemError:
        """One of our errors as a problem."""
        status = next(status for kind, status in STATUSES if isinstance(error, kind))
        headers = {}
        if isinstance(error, TransientError):
            retry_after_s = error.retry_after_s or _DEFAULT_RETRY_AFTER_S
            headers["Retry-After"] = str(max(1, round(retry_after_s)))
        faults: tuple[Fault, ...] = ()
        detail = str(error)
        if isinstance(error, InvalidConfigurationError):
            faults = error.faults
            detail = f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'}"
        return cls(
            status,
            error.code,
            detail,
            hint=error.hint or _HINTS.get(error.code, ""),
            faults=faults,
            headers=headers,
        )

    def response(self) -> Response:
        """The problem as `application/problem+json`."""
        body: dict[str, Any] = {
            "type": f"urn:axiom-flow:problem:{self.code}",
            "title": self.code.replace("-", " ").capitalize(),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.hint:
            body["hint"] = self.hint
        if self.faults:
            body["faults"] = [
                {"path": fault.path, "message": fault.message, "hint": fault.hint}
                for fault in self.faults
            ]
        response = Response(json.dumps(body), status=self.status, mimetype=PROBLEM_JSON)
        response.headers.update(self.headers)
        return response


def faults_of(error: ValidationError) -> list[Fault]:
    """Each place that does not fit, without what stands there."""
    return [
        Fault(".".join(map(str, fault["loc"])), fault["msg"])
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def of_validation_error(error: ValidationError) -> Response:
    """Parameters, or a small document, that do not fit: every fault named."""
    return ProblemError(
        422, "invalid-request", "What the request says does not fit.", faults=faults_of(error)
    ).response()


def install(app: Flask) -> None:
    """Have `app` answer every error with a problem."""

    def of_problem(problem: ProblemError) -> Response:
        return problem.response()

    def of_axiom_error(error: AxiomError) -> Response:
        return ProblemError.of(error).response()

    def of_http_exception(error: HTTPException) -> Response:
        status = error.code or 500
        if status < 400:  # a redirect is no error
            return Response(status=status, headers=error.get_headers())
        code = re.sub(r"[^a-z]+", "-", error.name.lower()).strip("-")
        headers = {
            name: value
            for name, value in error.get_headers()
            if name.lower() not in ("content-type", "content-length")
        }
        hint = _HINTS.get(code, "")
        return ProblemError(status, code, error.name, hint=hint, headers=headers).response()

    def of_bug(error: Exception) -> Response:
        incident = secrets.token_hex(8)
        log.error("unexpected error", extra={"incident": incident, "error": describe(error)})
        return ProblemError(
            500,
            "internal-error",
            f"Something is wrong on our side; the log names it as incident {incident}.",
        ).response()

    app.register_error_handler(ProblemError, of_problem)
    app.register_error_handler(AxiomError, of_axiom_error)
    app.register_error_handler(ValidationError, of_validation_error)
    app.register_error_handler(HTTPException, of_http_exception)
    app.register_error_handler(Exception, of_bug)
