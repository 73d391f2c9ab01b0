"""Routes of the configuration: /api/v1/config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, Field, RootModel, create_model

from shared.config.entities import Configuration, Settings
from shared.config.kinds import KINDS, Kind
from shared.errors import Fault, InvalidConfigurationError
from shared.web.access import acting
from shared.web.documents_in import YAML, change_reason, received_document
from shared.web.documents_out import (
    document_response,
    is_what_client_knows,
    json_or_yaml_response,
    json_response,
)
from shared.web.media_types import JSON
from shared.web.problems import PROBLEM_RESPONSES, ProblemError

if TYPE_CHECKING:
    from shared.config.service import ConfigurationService

URL_PREFIX = "/api/v1/config"


class EntityPath(BaseModel):
    """Path parameters of one entity."""

    name: str = Field(description="The entity's name.")


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
        schema = _schema_of(kind)
        for path in kind.paths:
            _add_entity_routes(routes, service, kind.name, kind.noun, schema, path)
    _add_settings_routes(routes, service)
    _add_whole_routes(routes, service)
    return routes


def _add_entity_routes(
    routes: APIBlueprint,
    service: ConfigurationService,
    kind: str,
    noun: str,
    schema: type[BaseModel],
    collection: str,
) -> None:
    of_all, of_one = f"/{collection}", f"/{collection}/<name>"
    called = collection.replace("-", "_")
    body = _body_of(schema)

    def location_of(stored: Mapping[str, Any]) -> str:
        return f"{URL_PREFIX}/{collection}/{quote(stored['name'])}"

    @routes.get(
        of_all,
        endpoint=f"list_{called}",
        operation_id=f"list_{called}",
        summary=f"All {noun}s",
        responses={200: _items_of(schema)},
    )
    def list_entities() -> Response:
        return json_response({"items": service.list(kind)})

    @routes.post(
        of_all,
        endpoint=f"create_{called}",
        operation_id=f"create_{called}",
        summary=f"Add a {noun}",
        responses={201: schema},
        openapi_extensions=body,
    )
    def create() -> Response:
        stored = service.create(kind, received_document(), by=acting(), reason=change_reason())
        return document_response(stored, 201, location=location_of(stored))

    @routes.get(
        of_one,
        endpoint=f"read_{called}",
        operation_id=f"read_{called}",
        summary=f"One {noun}",
        responses={200: schema},
    )
    def read(path: EntityPath) -> Response:
        return document_response(service.read(kind, path.name))

    @routes.put(
        of_one,
        endpoint=f"replace_{called}",
        operation_id=f"replace_{called}",
        summary=f"Replace a {noun}, its name included",
        description="With If-Match it is refused if somebody else was first.",
        responses={200: schema},
        openapi_extensions=body,
    )
    def replace(path: EntityPath) -> Response:
        document = {"name": path.name, **received_document()}
        stored = service.replace(
            kind,
            path.name,
            document,
            by=acting(),
            reason=change_reason(),
            if_unchanged=is_what_client_knows,
        )
        return document_response(stored, location=location_of(stored))

    @routes.delete(
        of_one,
        endpoint=f"delete_{called}",
        operation_id=f"delete_{called}",
        summary=f"Remove a {noun} that nothing uses",
        responses={204: None},
    )
    def delete(path: EntityPath) -> Response:
        try:
            service.delete(
                kind,
                path.name,
                by=acting(),
                reason=change_reason(),
                if_unchanged=is_what_client_knows,
            )
        except InvalidConfigurationError as error:
            raise ProblemError(
                409,
                "still-used",
                f"The {noun} is still used.",
                hint="Change what uses it first.",
                faults=error.faults,
            ) from None
        return Response(status=204)


def _add_settings_routes(routes: APIBlueprint, service: ConfigurationService) -> None:
    def effective(configuration: Mapping[str, Any]) -> dict[str, Any]:
        stored = Settings.model_validate(configuration["settings"], strict=False)
        plain: dict[str, Any] = stored.model_dump(mode="json")
        return plain

    @routes.get("/settings", operation_id="read_settings", responses={200: Settings})
    def read_settings() -> Response:
        """The settings, defaults included."""
        return document_response(effective(service.export()))

    @routes.put(
        "/settings",
        operation_id="replace_settings",
        responses={200: Settings},
        openapi_extensions=_body_of(Settings),
    )
    def replace_settings() -> Response:
        """Replace the settings; what is left out goes back to its default."""
        try:
            stored = service.apply(
                {"settings": received_document()},
                by=acting(),
                reason=change_reason(),
                if_unchanged=lambda known: is_what_client_knows(effective(known)),
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

    @routes.put(
        "",
        operation_id="import_configuration",
        responses={200: whole},
        openapi_extensions={"requestBody": {"required": True, "content": content}},
    )
    def import_configuration() -> Response:
        """Replace the parts that the document has: listeners, destinations, rulesets and so on.

        All of it is checked first; with any fault nothing is applied.
        """
        stored = service.apply(
            received_document(yaml_too=True),
            by=acting(),
            reason=change_reason(),
            if_unchanged=is_what_client_knows,
        )
        return json_or_yaml_response(stored)


def _below_settings(fault: Fault) -> Fault:
    return Fault(fault.path.removeprefix("settings."), fault.message, fault.hint)


def _schema_of(kind: Kind) -> type[BaseModel]:
    if isinstance(kind.schema, type) and issubclass(kind.schema, BaseModel):
        return kind.schema
    # Not RootModel[...], because mypy takes what stands in brackets for a type.
    root: Any = RootModel.__class_getitem__(kind.schema)
    made: type[BaseModel] = create_model(kind.title, __base__=root)
    return made


def _reference(schema: type[BaseModel]) -> dict[str, str]:
    title = schema.model_config.get("title") or schema.__name__
    return {"$ref": f"#/components/schemas/{title}"}


def _body_of(schema: type[BaseModel]) -> dict[str, Any]:
    """The request body for the OpenAPI document: its checking is the service's, which finds all."""
    content = {JSON: {"schema": _reference(schema)}}
    return {"requestBody": {"required": True, "content": content}}


def _items_of(schema: type[BaseModel]) -> dict[str, Any]:
    items = {"type": "array", "items": _reference(schema)}
    listing = {"type": "object", "properties": {"items": items}, "required": ["items"]}
    return {"description": "OK", "content": {JSON: {"schema": listing}}}
