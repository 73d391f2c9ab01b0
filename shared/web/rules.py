"""Routes that try rules out, watch them and explain them."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from shared.audit import AuditLog
from shared.config.history import ConfigurationHistory
from shared.dicom.header import MAX_HEADER_BYTES
from shared.errors import DocumentMissingError, Fault, InvalidConfigurationError, PermanentError
from shared.pipeline import dry_run
from shared.pipeline.dry_run import MAX_INSTANCES, Trial
from shared.pipeline.explaining import explain_instance
from shared.rules.dump import DumpError
from shared.web.access import acting
from shared.web.documents_in import parse_yaml, received_document
from shared.web.documents_out import json_response
from shared.web.listing import described
from shared.web.media_types import DICOM, JSON, MediaType
from shared.web.problems import PROBLEM_RESPONSES, ProblemError
from shared.web.request_body import RequestBody, RequestTooLargeError

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports
    from shared.rules import RuleSet

URL_PREFIX = "/api/v1"
FORM = "multipart/form-data"

_DEFAULT_LAST = 100
# Of a request that brings a file; only its header is looked at.
_MAX_REQUEST_BYTES = 4 << 30


class RulesetPath(BaseModel):
    """Path parameters of one ruleset."""

    name: str


class ReceiptPath(BaseModel):
    """Path parameters of one Instance."""

    receipt_id: str


class ExplainQuery(BaseModel):
    """Whose rules explain."""

    model_config = ConfigDict(extra="forbid")

    rules: Literal["decided", "current"] = Field(
        default="decided", description="The rules that decided, or those that are live now"
    )


class _Wanted(BaseModel):
    """What to try rules on: one of `dump`, `dicom`, `last`."""

    model_config = ConfigDict(extra="forbid")

    ruleset: dict[str, Any] | None = Field(
        default=None, description="The candidate; the stored one if it is left out"
    )
    dump: str | dict[str, Any] | list[Any] | None = Field(
        default=None, description="A tag dump: text of dcmdump, or JSON"
    )
    dicom: str | None = Field(default=None, description="A DICOM file in base64")
    last: int | None = Field(
        default=None, ge=1, le=MAX_INSTANCES, description="The last Instances received"
    )
    facts: dict[str, Any] = Field(
        default_factory=dict, description="calling_ae and others, as in a rule's tests"
    )


_REPORT = described(
    "What the candidate decides, and where that differs from the live rules", {"type": "object"}
)
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": _Wanted.model_json_schema()},
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "dicom": {"type": "string", "format": "binary"},
                        "ruleset": {"type": "string", "description": "JSON or YAML"},
                        "facts": {"type": "string", "description": "JSON or YAML"},
                    },
                    "required": ["dicom"],
                }
            },
        },
    }
}
_RULESET_BODY = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/Ruleset"}}},
    }
}


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "rules",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="rules", description="Try rules out, watch them, have them explained")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    @routes.post(
        "/config/rulesets/validate",
        operation_id="validate_ruleset",
        responses={200: described("The ruleset is right", {"type": "object"})},
        openapi_extensions=_RULESET_BODY,
    )
    def validate_ruleset() -> Response:
        """Check a ruleset as if it were stored, its tests included; nothing is applied."""
        document = received_document(yaml_too=True)
        ports.configuration.validate("rulesets", document)
        return json_response({"valid": True, "name": document["name"]})

    @routes.post(
        "/config/rulesets/dry-run",
        operation_id="dry_run_candidate",
        responses={200: _REPORT},
        openapi_extensions=_BODY,
    )
    def dry_run_candidate() -> Response:
        """Try a candidate on an uploaded file, a tag dump, or past traffic; nothing is changed."""
        return _dry_run(ports, None)

    @routes.post(
        "/config/rulesets/<name>/dry-run",
        operation_id="dry_run_ruleset",
        responses={200: _REPORT},
        openapi_extensions=_BODY,
    )
    def dry_run_ruleset(path: RulesetPath) -> Response:
        """The same with a ruleset that is stored, or with another in its place."""
        return _dry_run(ports, path.name)

    @routes.get(
        "/config/rulesets/<name>/shadow-report",
        operation_id="read_shadow_report",
        responses={200: described("Counts and samples", {"type": "object"})},
    )
    def read_shadow_report(path: RulesetPath) -> Response:
        """What a ruleset in shadow mode would have changed since it is as it is."""
        for shadow in ports.rules.shadows():
            if shadow.name == path.name:
                return json_response(ports.shadows.report(shadow))
        raise DocumentMissingError("enabled rulesets in shadow mode", path.name)

    @routes.get(
        "/instances/<receipt_id>/explain",
        operation_id="explain_instance",
        responses={200: described("The account of every rule", {"type": "object"})},
    )
    def explain(path: ReceiptPath, query: ExplainQuery) -> Response:
        """Which rules matched, and which condition failed on the others, with the Values seen.

        It holds patients' Values, and is noted in the audit log.
        """
        known = ports.documents.get("instances", path.receipt_id)
        decided_by = None
        if query.rules == "decided" and known is not None:
            history = ConfigurationHistory(ports.objects, ports.documents, ports.configuration)
            decided_by = history.configuration(int(known.data["configuration_version"]))
        return json_response(explain_instance(path.receipt_id, ports, decided_by, by=acting()))

    return routes


def _dry_run(ports: Ports, name: str | None) -> Response:
    wanted, file = _wanted()
    document = wanted.ruleset
    if name is not None:
        stored = ports.configuration.read("rulesets", name)
        document = stored if document is None else {**document, "name": name}
    candidate: RuleSet | None = None if document is None else ports.rules.read_candidate(document)
    trials = _trials(wanted, file, ports)
    programs = dry_run.programs(ports, candidate)
    AuditLog(ports.documents, ports.clock).add(
        who=acting(), what="rulesets.dry-run", id=candidate.name if candidate else "(live)"
    )
    return json_response(dry_run.report(trials, *programs))


def _trials(wanted: _Wanted, file: _File | None, ports: Ports) -> Iterable[Trial]:
    given = [file is not None, wanted.dump is not None, wanted.last is not None]
    if sum(given) > 1:
        raise ProblemError(422, "invalid-document", "Give one of dicom, dump and last.")
    try:
        if file is not None:
            return [
                dry_run.trial_of_file("uploaded file", file.start, wanted.facts, size=file.size)
            ]
        if wanted.dump is not None:
            return [dry_run.trial_of_dump("dump", wanted.dump, wanted.facts)]
    except DumpError as error:
        fault = Fault("dump", str(error))
        raise ProblemError(
            422, "invalid-dump", "The dump cannot be read.", faults=[fault]
        ) from None
    except InvalidConfigurationError:
        raise
    except PermanentError as error:
        raise ProblemError(422, error.code, str(error), hint=error.hint) from None
    return dry_run.past_trials(ports, wanted.last or _DEFAULT_LAST)


class _File(NamedTuple):
    start: bytes  # enough of it for any header that is taken
    size: int


def _wanted() -> tuple[_Wanted, _File | None]:
    """What the request asks for, and the file that it brings."""
    content_type = MediaType.parse(request.headers.get("Content-Type", "")).name
    if content_type == DICOM:
        return _Wanted(), _sent_file()
    if content_type == FORM:
        request.max_content_length = _MAX_REQUEST_BYTES
        fields: dict[str, Any] = {
            name: _parsed(name, text) if name != "dump" else text
            for name, text in request.form.items()
        }
        uploaded = request.files.get("dicom")
        if uploaded is None:
            return _Wanted.model_validate(fields), None
        start = uploaded.stream.read(MAX_HEADER_BYTES)
        size = uploaded.stream.seek(0, io.SEEK_END)
        return _Wanted.model_validate(fields), _File(start, size)
    wanted = _Wanted.model_validate(dict(received_document()))
    if wanted.dicom is None:
        return wanted, None
    try:
        data = base64.b64decode(wanted.dicom, validate=True)
    except (ValueError, binascii.Error):
        fault = Fault("dicom", "is not base64")
        raise ProblemError(422, "invalid-document", "1 fault", faults=[fault]) from None
    return wanted, _File(data, len(data))


def _sent_file() -> _File:
    try:
        body = RequestBody(
            request.environ["wsgi.input"], request.content_length, max_bytes=_MAX_REQUEST_BYTES
        )
        start = bytearray()
        while piece := body.read(1 << 20):
            start += piece[: max(0, MAX_HEADER_BYTES - len(start))]
    except RequestTooLargeError:
        raise ProblemError(413, "request-too-large", "The file is too large to try.") from None
    except ValueError:
        raise ProblemError(400, "malformed-body", "The body breaks off.") from None
    return _File(bytes(start), body.received)


def _parsed(name: str, text: str) -> Any:
    value = parse_yaml(text)  # JSON is YAML
    if name in ("ruleset", "facts") and not isinstance(value, Mapping):
        fault = Fault(name, "is no object")
        raise ProblemError(422, "invalid-document", "1 fault", faults=[fault])
    return value
