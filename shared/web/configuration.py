"""Routes of the configuration: /api/v1/config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field, RootModel, create_model

from shared.config.entities import Configuration, Settings
from shared.config.kinds import KINDS, Kind
from shared.errors import Fault, InvalidConfigurationError
from shared.web.access import acting
from shared.web.documents_in import MERGE_PATCH, YAML, change_reason, received_document
from shared.web.documents_out import (
    document_response,
    is_what_client_knows,
    json_or_yaml_response,
    json_response,
)
from shared.web.listing import Listing, described, described_page, listed_response
from shared.web.media_types import JSON
from shared.web.problems import PROBLEM_RESPONSES, ProblemError
from shared.web.reach import check_reach

if TYPE_CHECKING:
    from shared.config.service import ConfigurationService

URL_PREFIX = "/api/v1/config"


class EntityPath(BaseModel):
    """Path parameters of one entity."""

    name: str = Field(description="The entity's name.")


class ChangeQuery(BaseModel):
    """How to change something."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(default=False, description="Check all of it, and store nothing")


def blueprint(service: ConfigurationService) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "configuration",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[
            Tag(name="configuration", description="What is received, changed and sent where")
        ],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )
    for kind in KINDS:
        for path in kind.paths:
            _add_entity_routes(routes, service, kind, path)
    _add_settings_routes(routes, service)
    _add_whole_routes(routes, service)
    return routes


def _add_entity_routes(
    routes: APIBlueprint, service: ConfigurationService, kind: Kind, collection: str
) -> None:
    of_all, of_one = f"/{collection}", f"/{collection}/<name>"
    called, noun = collection.replace("-", "_"), kind.noun
    only = kind.typed_paths.get(collection)
    schema = {"$ref": f"#/components/schemas/{kind.title}"}
    one = described(f"The {noun}", schema)
    body = {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}

    def location_of(stored: Mapping[str, Any]) -> str:
        return f"{URL_PREFIX}/{collection}/{quote(stored['name'])}"

    @routes.get(
        of_all,
        endpoint=f"list_{called}",
        operation_id=f"list_{called}",
        summary=f"All {noun}s",
        responses={200: described_page(f"The {noun}s, in their order", schema)},
    )
    def list_entities(query: Listing) -> Response:
        found = service.list(kind.name)
        return listed_response([one for one in found if only in (None, one.get("type"))], query)

    @routes.post(
        of_all,
        endpoint=f"create_{called}",
        operation_id=f"create_{called}",
        summary=f"Add a {noun}",
        responses={201: one, 200: one},
        openapi_extensions=body,
    )
    def create(query: ChangeQuery) -> Response:
        document = received_document()
        if only is not None:
            document = {"type": only, **document}
        check_reach(kind, document, service)
        stored = service.create(
            kind.name,
            document,
            by=acting(),
            reason=change_reason(),
            dry_run=query.dry_run,
        )
        if query.dry_run:
            return json_response(stored)
        return document_response(stored, 201, location=location_of(stored))

    @routes.get(
        of_one,
        endpoint=f"read_{called}",
        operation_id=f"read_{called}",
        summary=f"One {noun}",
        # The one route that brings the schema along: the others refer to it.
        responses={200: _schema_of(kind)} if collection == kind.paths[0] else {200: one},
    )
    def read(path: EntityPath) -> Response:
        return document_response(service.read(kind.name, path.name))

    @routes.put(
        of_one,
        endpoint=f"replace_{called}",
        operation_id=f"replace_{called}",
        summary=f"Replace a {noun}, its name included",
        description="With If-Match it is refused if somebody else was first.",
        responses={200: one},
        openapi_extensions=body,
    )
    def replace(path: EntityPath, query: ChangeQuery) -> Response:
        document = {"name": path.name, **received_document()}
        check_reach(kind, document, service)
        stored = service.replace(
            kind.name,
            path.name,
            document,
            by=acting(),
            reason=change_reason(),
            if_unchanged=is_what_client_knows,
            dry_run=query.dry_run,
        )
        return document_response(stored, location=location_of(stored))

    @routes.patch(
        of_one,
        endpoint=f"patch_{called}",
        operation_id=f"patch_{called}",
        summary=f"Change a {noun} by a JSON Merge Patch",
        description=PATCH_DESCRIPTION,
        responses={200: one},
        openapi_extensions=PATCH_BODY,
    )
    def patch(path: EntityPath, query: ChangeQuery) -> Response:
        document = received_document(merge_patch=True)
        check_reach(kind, document, service)
        stored = service.patch(
            kind.name,
            path.name,
            document,
            by=acting(),
            reason=change_reason(),
            if_unchanged=is_what_client_knows,
            dry_run=query.dry_run,
        )
        return document_response(stored, location=location_of(stored))

    @routes.delete(
        of_one,
        endpoint=f"delete_{called}",
        operation_id=f"delete_{called}",
        summary=f"Remove a {noun} that nothing uses",
        responses={204: None},
    )
    def delete(path: EntityPath, query: ChangeQuery) -> Response:
        try:
            service.delete(
                kind.name,
                path.name,
                by=acting(),
                reason=change_reason(),
                if_unchanged=is_what_client_knows,
                dry_run=query.dry_run,
            )
        except InvalidConfigurationError as error:
            raise ProblemError(
                409,
                "still-used",
                f"The {noun} is still used.",
                hint=f"Change what uses it first: GET {URL_PREFIX}/{collection}/NAME/references.",
                faults=[Fault(f.path, f"uses the {noun} {path.name!r}") for f in error.faults],
            ) from None
        return Response(status=204)

    @routes.get(
        f"{of_one}/references",
        endpoint=f"references_{called}",
        operation_id=f"references_{called}",
        summary=f"What uses a {noun}",
        responses={200: described_page("Each place that names it", _REFERENCE)},
    )
    def references(path: EntityPath, query: Listing) -> Response:
        found = service.references(kind.name, path.name)
        return listed_response([one.as_json() for one in found], query)


def _add_settings_routes(routes: APIBlueprint, service: ConfigurationService) -> None:
    def effective(configuration: Mapping[str, Any]) -> dict[str, Any]:
        stored = Settings.model_validate(configuration["settings"], strict=False)
        plain: dict[str, Any] = stored.model_dump(mode="json")
        return plain

    def is_known(configuration: Mapping[str, Any]) -> bool:
        return is_what_client_knows(effective(configuration))

    @routes.get("/settings", operation_id="read_settings", responses={200: Settings})
    def read_settings() -> Response:
        """The settings, defaults included."""
        return document_response(effective(service.export()))

    @routes.put(
        "/settings",
        operation_id="replace_settings",
        responses={200: Settings},
        openapi_extensions={
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": {"$ref": "#/components/schemas/Settings"}}},
            }
        },
    )
    def replace_settings(query: ChangeQuery) -> Response:
        """Replace the settings; what is left out goes back to its default."""
        try:
            stored = service.apply(
                {"settings": received_document()},
                by=acting(),
                reason=change_reason(),
                if_unchanged=is_known,
                dry_run=query.dry_run,
            )
        except InvalidConfigurationError as error:
            raise InvalidConfigurationError(*map(_below_settings, error.faults)) from None
        return document_response(effective(stored))

    @routes.patch(
        "/settings",
        operation_id="patch_settings",
        responses={200: Settings},
        openapi_extensions=PATCH_BODY,
    )
    def patch_settings(query: ChangeQuery) -> Response:
        """Change some settings by a JSON Merge Patch; null has one go back to its default."""
        try:
            stored = service.patch_settings(
                received_document(merge_patch=True),
                by=acting(),
                reason=change_reason(),
                if_unchanged=is_known,
                dry_run=query.dry_run,
            )
        except InvalidConfigurationError as error:
            raise InvalidConfigurationError(*map(_below_settings, error.faults)) from None
        return document_response(effective(stored))


def _add_whole_routes(routes: APIBlueprint, service: ConfigurationService) -> None:
    # Its parts are components already, by the routes of each.
    schema = Configuration.model_json_schema(ref_template="#/components/schemas/{model}")
    del schema["$defs"]
    content = {media_type: {"schema": schema} for media_type in (JSON, YAML[0])}
    whole = {"description": "The whole configuration", "content": content}

    @routes.get("", operation_id="export_configuration", responses={200: whole})
    def export_configuration() -> Response:
        """The whole configuration, as JSON or (Accept: application/yaml) as YAML."""
        return json_or_yaml_response(service.export())

    @routes.get(
        "/missing-secrets",
        operation_id="list_missing_secrets",
        responses={200: described_page("Each place that names one", _MISSING_SECRET)},
    )
    def list_missing_secrets(query: Listing) -> Response:
        """Secrets that the configuration names and the secret store does not have."""
        return listed_response([one.as_json() for one in service.missing_secrets()], query)

    @routes.put(
        "",
        operation_id="import_configuration",
        responses={200: whole},
        openapi_extensions={"requestBody": {"required": True, "content": content}},
    )
    def import_configuration(query: ChangeQuery) -> Response:
        """Replace the parts that the document has: listeners, destinations, rulesets and so on.

        All of it is checked first; with any fault nothing is applied.
        """
        stored = service.apply(
            received_document(yaml_too=True),
            by=acting(),
            reason=change_reason(),
            if_unchanged=is_what_client_knows,
            dry_run=query.dry_run,
        )
        return json_or_yaml_response(stored)


PATCH_DESCRIPTION = (
    "RFC 7396: null takes a field away, a list is replaced as a whole. "
    "With If-Match it is refused if somebody else was first."
)
PATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {name: {"schema": {"type": "object"}} for name in (MERGE_PATCH, JSON)},
    }
}
_REFERENCE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"type": "string"},
        "name": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "path": {"type": "string"},
    },
    "required": ["kind", "name", "path"],
}
_MISSING_SECRET: dict[str, Any] = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "name": {"type": "string"}},
    "required": ["path", "name"],
}


def _below_settings(fault: Fault) -> Fault:
    return Fault(fault.path.removeprefix("settings."), fault.message, fault.hint)


def _schema_of(kind: Kind) -> type[BaseModel]:
    if isinstance(kind.schema, type) and issubclass(kind.schema, BaseModel):
        return kind.schema
    # Not RootModel[...], because mypy takes what stands in brackets for a type.
    root: Any = RootModel.__class_getitem__(kind.schema)
    made: type[BaseModel] = create_model(kind.title, __base__=root)
    return made
