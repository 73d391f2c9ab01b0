"""Routes of the rules of one ruleset: /api/v1/config/rulesets/{name}/rules.

A rule is a part of its ruleset: each change is a change of that, checked with all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, Field

from shared.config.service import merged
from shared.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentMissingError,
    Fault,
    InvalidConfigurationError,
)
from shared.web.access import acting
from shared.web.configuration import (
    PATCH_BODY,
    PATCH_DESCRIPTION,
    URL_PREFIX,
    ChangeQuery,
    EntityPath,
)
from shared.web.documents_in import change_reason, received_document
from shared.web.documents_out import document_response, is_what_client_knows, json_response
from shared.web.listing import Listing, described, described_page, listed_response
from shared.web.media_types import JSON
from shared.web.problems import PROBLEM_RESPONSES

if TYPE_CHECKING:
    from shared.config.service import ConfigurationService

_KIND, _RULES = "rulesets", "rules"
_RULE = described("The rule", {"type": "object"})
_BODY = {
    "requestBody": {"required": True, "content": {JSON: {"schema": {"type": "object"}}}},
}

Rules = list[dict[str, Any]]
# The rules then, and where the one stands that is meant.
Change = Callable[[Rules], tuple[Rules, int]]


class RulePath(BaseModel):
    """Path parameters of one rule."""

    name: str = Field(description="The ruleset's name.")
    rule: str = Field(description="The rule's name.")


class AddQuery(ChangeQuery):
    """Where to add a rule."""

    position: int | None = Field(
        default=None, ge=0, description="How many rules stand before it; behind all if left out"
    )


def blueprint(service: ConfigurationService) -> APIBlueprint:
    """The routes below `URL_PREFIX`."""
    routes = APIBlueprint(
        "ruleset_rules",
        __name__,
        url_prefix=f"{URL_PREFIX}/{_KIND}",
        abp_tags=[Tag(name="ruleset rules", description="The rules of a ruleset, one by one")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )

    def changed(ruleset: str, change: Change, *, dry_run: bool) -> dict[str, Any]:
        """The rule that stands then where `change` says; {} if none does."""
        at = 0

        def edited(document: dict[str, Any]) -> dict[str, Any]:
            nonlocal at
            rules, at = change(document[_RULES])
            return {**document, _RULES: rules}

        try:
            stored = service.edit(
                _KIND, ruleset, edited, by=acting(), reason=change_reason(), dry_run=dry_run
            )
        except InvalidConfigurationError as error:
            # Named as who sent the rule alone knows it.
            raise InvalidConfigurationError(
                *(
                    Fault(f.path.removeprefix(f"{_RULES}[{at}]."), f.message, f.hint)
                    for f in error.faults
                )
            ) from None
        rules: Rules = stored[_RULES]
        return rules[at] if at < len(rules) else {}

    @routes.get(
        "/<name>/rules",
        operation_id="list_ruleset_rules",
        responses={200: described_page("The rules, in their order", {"type": "object"})},
    )
    def list_ruleset_rules(path: EntityPath, query: Listing) -> Response:
        """The rules of a ruleset."""
        return listed_response(service.read(_KIND, path.name)[_RULES], query)

    @routes.post(
        "/<name>/rules",
        operation_id="create_ruleset_rule",
        responses={201: _RULE, 200: _RULE},
        openapi_extensions=_BODY,
    )
    def create_ruleset_rule(path: EntityPath, query: AddQuery) -> Response:
        """Add a rule, behind the others or where `position` says."""
        document = dict(received_document())
        rule = _name_of(document)

        def added(rules: Rules) -> tuple[Rules, int]:
            if rule and _index(rules, rule) is not None:
                raise DocumentExistsError(_RULES, rule)
            at = min(len(rules), len(rules) if query.position is None else query.position)
            return [*rules[:at], document, *rules[at:]], at

        stored = changed(path.name, added, dry_run=query.dry_run)
        if query.dry_run:
            return json_response(stored)
        location = f"{URL_PREFIX}/{_KIND}/{quote(path.name)}/rules/{quote(rule)}"
        return document_response(stored, 201, location=location)

    @routes.get("/<name>/rules/<rule>", operation_id="read_ruleset_rule", responses={200: _RULE})
    def read_ruleset_rule(path: RulePath) -> Response:
        """One rule."""
        rules = service.read(_KIND, path.name)[_RULES]
        return document_response(rules[_place(rules, path.rule)])

    @routes.put(
        "/<name>/rules/<rule>",
        operation_id="replace_ruleset_rule",
        description="With If-Match it is refused if somebody else was first.",
        responses={200: _RULE},
        openapi_extensions=_BODY,
    )
    def replace_ruleset_rule(path: RulePath, query: ChangeQuery) -> Response:
        """Replace a rule where it stands, its name included."""
        document = {"name": path.rule, **received_document()}
        return replaced(path, lambda _: document, dry_run=query.dry_run)

    @routes.patch(
        "/<name>/rules/<rule>",
        operation_id="patch_ruleset_rule",
        description=PATCH_DESCRIPTION,
        responses={200: _RULE},
        openapi_extensions=PATCH_BODY,
    )
    def patch_ruleset_rule(path: RulePath, query: ChangeQuery) -> Response:
        """Change a rule by a JSON Merge Patch."""
        patch = received_document(merge_patch=True)
        return replaced(path, lambda known: merged(known, patch), dry_run=query.dry_run)

    @routes.delete(
        "/<name>/rules/<rule>", operation_id="delete_ruleset_rule", responses={204: None}
    )
    def delete_ruleset_rule(path: RulePath, query: ChangeQuery) -> Response:
        """Remove a rule; the others stay in their order."""

        def removed(rules: Rules) -> tuple[Rules, int]:
            at = _place(rules, path.rule)
            return [*rules[:at], *rules[at + 1 :]], at

        changed(path.name, removed, dry_run=query.dry_run)
        return Response(status=204)

    def replaced(path: RulePath, change: Callable[[Any], Any], *, dry_run: bool) -> Response:
        def swapped(rules: Rules) -> tuple[Rules, int]:
            at = _place(rules, path.rule)
            return [*rules[:at], change(rules[at]), *rules[at + 1 :]], at

        return document_response(changed(path.name, swapped, dry_run=dry_run))

    return routes


def _place(rules: Rules, name: str) -> int:
    """Where the rule stands that the request is about.

    Raises: DocumentMissingError; DocumentChangedError if it is not as the client knows it.
    """
    at = _index(rules, name)
    if at is None:
        raise DocumentMissingError(_RULES, name)
    if not is_what_client_knows(rules[at]):
        raise DocumentChangedError(_RULES, name)
    return at


def _index(rules: Rules, name: str) -> int | None:
    return next((at for at, rule in enumerate(rules) if _name_of(rule) == name), None)


def _name_of(rule: dict[str, Any]) -> str:
    name = rule.get("name")
    return name if isinstance(name, str) else ""
