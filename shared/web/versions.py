"""Routes of the configuration's versions: /api/v1/config/versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from shared.config.history import ConfigurationHistory
from shared.web.access import acting
from shared.web.configuration import URL_PREFIX, ChangeQuery
from shared.web.documents_in import change_reason, received_document
from shared.web.documents_out import document_response, is_what_client_knows, json_response
from shared.web.listing import Listing, described, described_page
from shared.web.media_types import JSON
from shared.web.problems import PROBLEM_RESPONSES, ProblemError

if TYPE_CHECKING:
    from shared.pipeline.ports import Ports


class VersionPath(BaseModel):
    """Path parameters of one version."""

    version: int = Field(ge=1)


class VersionsQuery(BaseModel):
    """Which versions to list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=100, ge=1, le=500)
    before: int | None = Field(default=None, description="Only those older than this version")
    cursor: str | None = Field(default=None, description="`next_cursor` of the page before")


class DiffQuery(BaseModel):
    """What to compare with."""

    model_config = ConfigDict(extra="forbid")

    to: int | None = Field(
        default=None, ge=0, description="The version to compare with; the one before if left out"
    )


class RulesetPath(BaseModel):
    """Path parameters of one ruleset."""

    name: str


class GoingBack(BaseModel):
    """Why, and what goes back."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=1000)
    ruleset: str = Field(
        default="", max_length=128, description="This ruleset alone; all there is if left out"
    )


_OBJECT = {"type": "object"}
_GOING_BACK = {
    "requestBody": {
        "required": False,
        "content": {JSON: {"schema": GoingBack.model_json_schema()}},
    }
}


def blueprint(ports: Ports) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "versions",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="versions", description="Who changed what, when, why; and going back")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    def history() -> ConfigurationHistory:
        return ConfigurationHistory(ports.objects, ports.documents, ports.configuration)

    @routes.get(
        "/versions", operation_id="list_versions", responses={200: described_page("Versions")}
    )
    def list_versions(query: VersionsQuery) -> Response:
        """Versions of the configuration, the newest first."""
        before = query.before
        if query.cursor is not None:
            before = _version_of(query.cursor)
        found = history().versions(limit=query.limit + 1, before=before)
        shown = found[: query.limit]
        following = str(shown[-1].version) if len(found) > len(shown) else None
        return json_response({"items": [one.as_json() for one in shown], "next_cursor": following})

    @routes.get(
        "/versions/<int:version>",
        operation_id="read_version",
        responses={200: described("The version and its configuration", _OBJECT)},
    )
    def read_version(path: VersionPath) -> Response:
        """One version, with the whole configuration as it was."""
        found = history().version(path.version).as_json()
        return document_response({**found, "configuration": history().document(path.version)})

    @routes.get(
        "/versions/<int:version>/diff",
        operation_id="diff_versions",
        responses={200: described("What differs", _OBJECT)},
    )
    def diff_versions(path: VersionPath, query: DiffQuery) -> Response:
        """What this version changed, or how it differs from another: by place, and as a diff."""
        history().version(path.version)
        before = path.version - 1 if query.to is None else query.to
        differences = history().differences(before, path.version)
        return json_response(
            {
                "from": before,
                "to": path.version,
                "differences": [one.as_json() for one in differences],
                "unified_diff": history().unified_diff(before, path.version),
            }
        )

    @routes.post(
        "/versions/<int:version>/roll-back",
        operation_id="roll_back",
        responses={200: described("The version that comes of it", _OBJECT)},
        openapi_extensions=_GOING_BACK,
    )
    def roll_back(path: VersionPath, query: ChangeQuery) -> Response:
        """Make this version current again, as a new version, or one ruleset as it was in it; a dry
        run tells of the version as it is now.

        It is checked as any change is; what is not right any more is refused. With If-Match, the
        ETag of the whole configuration, it is refused if somebody else was first.
        """
        wanted = GoingBack()
        if request.content_length:
            wanted = GoingBack.model_validate(dict(received_document()))
        configuration = history().roll_back(
            path.version,
            by=acting(),
            reason=wanted.reason or change_reason(),
            ruleset=wanted.ruleset,
            if_unchanged=is_what_client_knows,
            dry_run=query.dry_run,
        )
        newest = history().versions(limit=1)[0].as_json()
        return document_response({**newest, "configuration": configuration})

    @routes.get(
        "/rulesets/<name>/history",
        operation_id="read_ruleset_history",
        responses={200: described_page("Versions")},
    )
    def read_ruleset_history(path: RulesetPath, query: Listing) -> Response:
        """The versions that changed one ruleset, newest first; `ruleset` is null where it went. A
        page may be short, with a cursor to go on from.
        """
        before = None if query.cursor is None else _version_of(query.cursor)
        found, following = history().of_entity(
            "rulesets", path.name, limit=query.limit, before=before
        )
        items = [{**version.as_json(), "ruleset": ruleset} for version, ruleset in found]
        cursor = None if following is None else str(following)
        return json_response({"items": items, "next_cursor": cursor})

    return routes


def _version_of(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise ProblemError(400, "invalid-cursor", "The cursor is not one that this list gave.")
    return int(cursor)
