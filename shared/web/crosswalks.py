"""Routes that try and look after crosswalk maps: /api/v1/config/crosswalk-maps/NAME/..."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

from shared.errors import DocumentMissingError, Fault
from shared.web.access import note_access
from shared.web.configuration import URL_PREFIX as CONFIGURATION
from shared.web.configuration import EntityPath
from shared.web.documents_in import received_document
from shared.web.documents_out import json_response
from shared.web.media_types import JSON
from shared.web.problems import PROBLEM_RESPONSES, ProblemError

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports


class LookupAnswer(BaseModel):
    """What a map says. `outputs` is empty where nothing was found, or nothing in the row."""

    found: bool
    outputs: dict[str, str]


class CopyStatus(BaseModel):
    """How a map does; what is of its copy is null where there is none."""

    map_name: str
    source: str
    type: str
    enabled: bool
    is_copied: bool
    rows: int | None
    synced_at: str | None
    failed_at: str | None
    error: str | None


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below one map of the configuration."""
    routes = APIBlueprint(
        "crosswalks",
        __name__,
        url_prefix=f"{CONFIGURATION}/crosswalk-maps",
        abp_tags=[Tag(name="crosswalks", description="Try crosswalk maps, copy their tables")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )
    crosswalks = ports.crosswalks

    def check_name(name: str) -> None:
        if ports.configuration.get().crosswalk_map(name) is None:
            raise DocumentMissingError("crosswalk_maps", name)

    @routes.post(
        "/<name>/lookup",
        operation_id="lookup_crosswalk",
        responses={200: LookupAnswer},
        openapi_extensions={"requestBody": _KEYS_BODY},
    )
    def lookup(path: EntityPath) -> Response:
        """Look up one row as a rule would: `{"keys": {"COLUMN": "VALUE"}}`."""
        check_name(path.name)
        keys = _keys(received_document())
        outputs = crosswalks.lookup(path.name, keys)
        # What was looked up is a patient's; that it was, by whom, is not.
        note_access(ports, "crosswalks.lookup", path.name)
        return json_response({"found": outputs is not None, "outputs": dict(outputs or {})})

    @routes.post("/<name>/sync", operation_id="sync_crosswalk", responses={200: CopyStatus})
    def sync(path: EntityPath) -> Response:
        """Copy the whole table of a map with `sync` now."""
        check_name(path.name)
        return json_response(crosswalks.sync(path.name))

    @routes.get("/<name>/status", operation_id="crosswalk_status", responses={200: CopyStatus})
    def status(path: EntityPath) -> Response:
        """Whether the map is in use, and how old its copy is. Asks no database."""
        check_name(path.name)
        found = next(one for one in crosswalks.status() if one.map_name == path.name)
        return json_response(found)

    return routes


def _keys(document: Mapping[str, Any]) -> dict[str, str]:
    faults = [Fault(str(name)[:100], "is no field here") for name in document if name != "keys"]
    keys = document.get("keys")
    if not isinstance(keys, Mapping) or not all(isinstance(key, str) for key in keys.values()):
        faults.append(Fault("keys", "must be an object of texts", '{"keys": {"old_id": "P1"}}'))
    if faults:
        raise ProblemError(
            422, "invalid-request", "What the request says does not fit.", faults=faults
        )
    assert isinstance(keys, Mapping)
    return dict(keys)


_KEYS_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        JSON: {
            "schema": {
                "type": "object",
                "required": ["keys"],
                "properties": {
                    "keys": {"type": "object", "additionalProperties": {"type": "string"}}
                },
            }
        }
    },
}
