"""Routes of users, roles and keys, and of oneself: /api/v1/users, /api/v1/roles, /api/v1/me.

Nobody gives more than they may themselves: not to others, not by a role, and to themselves nothing
at all. Of users who may more, nothing is changed either.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shared.config.entity import Name
from shared.errors import DocumentMissingError, Fault
from shared.identity.directory import ROLES, USERS, Role, User
from shared.identity.keys import COLLECTION as KEYS
from shared.identity.keys import KeyScope, NewKey
from shared.identity.permissions import BUILT_IN_ROLES, Permission
from shared.web.access import acting, principal
from shared.web.actions import received_if_any, takes
from shared.web.documents_in import received_document
from shared.web.documents_out import document_response, is_what_client_knows, json_response
from shared.web.listing import (
    Listing,
    Since,
    described,
    described_page,
    fetch,
    listed_response,
    page_response,
)
from shared.web.problems import PROBLEM_RESPONSES, ProblemError

if TYPE_CHECKING:
    from shared.identity.identity import Identity
    from shared.ports import Clock

URL_PREFIX = "/api/v1"

_OBJECT: Mapping[str, Any] = {"type": "object"}


def _is_network(text: str) -> str:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("not an IP address or network such as 10.1.0.0/16") from None
    return text


class KeyRequest(BaseModel):
    """What a new key is to be good for: all that its user may, unless this says less."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[str, Field(max_length=200)] = ""
    roles: Annotated[list[Name], Field(max_length=50)] | None = Field(
        default=None, description="Of these roles alone; it never may more than its user"
    )
    addresses: Annotated[
        list[Annotated[str, AfterValidator(_is_network)]], Field(max_length=100)
    ] = Field(default=[], description="From these networks alone")
    expires_at: Since | None = Field(default=None, description="Refused from then on")


class RotateRequest(BaseModel):
    """How long the old key is still taken."""

    model_config = ConfigDict(extra="forbid")

    overlap_s: float = Field(default=0, ge=0, le=30 * 86400)


class UserDocument(User):
    """A user as the API shows it."""

    model_config = ConfigDict(extra="allow", title="User")


class NamePath(BaseModel):
    """Path parameters of one user or role."""

    name: str


class KeyPath(BaseModel):
    """Path parameters of one's own key."""

    key_id: str


class UserKeyPath(BaseModel):
    """Path parameters of one user's key."""

    name: str
    key_id: str


_NEW_KEY = described(
    "The key: it is shown this once",
    {
        "type": "object",
        "properties": {"id": {"type": "string"}, "key": {"type": "string"}},
        "required": ["id", "key"],
    },
)


def blueprint(identity: Identity, clock: Clock) -> APIBlueprint:
    """The routes of users, roles and their keys, for administrators."""
    routes = APIBlueprint(
        "users",
        __name__,
        url_prefix=URL_PREFIX,
        abp_tags=[Tag(name="users", description="Users, roles and API keys")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )
    guard = _Guard(identity)
    _add_user_routes(routes, identity, guard)
    _add_key_routes(routes, identity, guard, clock)
    _add_role_routes(routes, identity, guard)
    return routes


def _add_user_routes(routes: APIBlueprint, identity: Identity, guard: _Guard) -> None:
    directory = identity.directory

    @routes.get("/users", operation_id="list_users", responses={200: described_page("Users")})
    def list_users(query: Listing) -> Response:
        """Users, by name."""
        page = fetch(lambda limit, cursor: directory.users(limit=limit, cursor=cursor), query)
        return page_response(page, dict)

    @routes.post(
        "/users",
        operation_id="create_user",
        responses={201: UserDocument},
        openapi_extensions=takes(User),
    )
    def create_user() -> Response:
        """Add a user; an e-mail address lets them sign in, a key lets a machine."""
        user = User.model_validate(received_document())
        guard.check_roles(user.roles)
        stored = directory.create_user(user, by=acting())
        return document_response(stored, 201, location=f"{URL_PREFIX}/users/{user.name}")

    @routes.get("/users/<name>", operation_id="read_user", responses={200: UserDocument})
    def read_user(path: NamePath) -> Response:
        """One user."""
        return document_response(guard.user(path.name))

    @routes.put(
        "/users/<name>",
        operation_id="replace_user",
        responses={200: UserDocument},
        openapi_extensions=takes(User),
    )
    def replace_user(path: NamePath) -> Response:
        """Change a user's roles or e-mail address, or switch them off. Not oneself."""
        user = User.model_validate({**received_document(), "name": path.name})
        guard.check_other(path.name)
        guard.check_roles(user.roles)
        stored = directory.replace_user(user, by=acting(), if_unchanged=is_what_client_knows)
        identity.forget()
        return document_response(stored)

    @routes.delete("/users/<name>", operation_id="delete_user", responses={204: None})
    def delete_user(path: NamePath) -> Response:
        """Remove a user and their keys. Not oneself."""
        guard.check_other(path.name)
        directory.delete_user(path.name, by=acting(), if_unchanged=is_what_client_knows)
        identity.keys.revoke_all_of(path.name, by=acting())
        identity.forget()
        return Response(status=204)

    @routes.post(
        "/users/<name>/end-sessions", operation_id="end_user_sessions", responses={204: None}
    )
    def end_user_sessions(path: NamePath) -> Response:
        """Have a user sign in anew everywhere; keys stay good."""
        guard.check_other(path.name)
        directory.end_sessions(path.name, by=acting())
        identity.forget()
        return Response(status=204)


def _add_key_routes(routes: APIBlueprint, identity: Identity, guard: _Guard, clock: Clock) -> None:
    @routes.get(
        "/users/<name>/keys",
        operation_id="list_user_keys",
        responses={200: described_page("Keys, without their secrets")},
    )
    def list_user_keys(path: NamePath, query: Listing) -> Response:
        """A user's keys, the newest first."""
        guard.user(path.name)
        return _keys_page(identity, path.name, query)

    @routes.post(
        "/users/<name>/keys",
        operation_id="create_user_key",
        responses={201: _NEW_KEY},
        openapi_extensions=takes(KeyRequest),
    )
    def create_user_key(path: NamePath) -> Response:
        """Make a key for another user who may no more than oneself."""
        guard.check_other(path.name)
        scope = _scope(KeyRequest.model_validate(received_if_any()), guard, clock)
        return _new_key(identity.keys.create(path.name, scope, by=acting()))

    @routes.post(
        "/users/<name>/keys/<key_id>/rotate",
        operation_id="rotate_user_key",
        responses={201: _NEW_KEY},
        openapi_extensions=takes(RotateRequest),
    )
    def rotate_user_key(path: UserKeyPath) -> Response:
        """Make a key that is good for the same; the old one ends after `overlap_s`."""
        guard.check_other(path.name)
        return _rotated(identity, path.name, path.key_id)

    @routes.delete(
        "/users/<name>/keys/<key_id>", operation_id="revoke_user_key", responses={204: None}
    )
    def revoke_user_key(path: UserKeyPath) -> Response:
        """Have a key refused from now on."""
        guard.check_other(path.name)
        return _revoked(identity, path.name, path.key_id)


def _add_role_routes(routes: APIBlueprint, identity: Identity, guard: _Guard) -> None:
    directory = identity.directory

    @routes.get("/roles", operation_id="list_roles", responses={200: described_page("Roles")})
    def list_roles(query: Listing) -> Response:
        """Roles: on the first page those that are built in, then custom ones by name."""
        page = fetch(lambda limit, cursor: directory.roles(limit=limit, cursor=cursor), query)
        built_in = [] if query.cursor else [directory.role(name) for name in BUILT_IN_ROLES]
        items = [*built_in, *(dict(document.data) for document in page.documents)]
        return json_response({"items": items, "next_cursor": page.cursor})

    @routes.get(
        "/permissions",
        operation_id="list_permissions",
        responses={200: described_page("What roles are made of", {"type": "string"})},
    )
    def list_permissions(query: Listing) -> Response:
        """Every permission that there is."""
        return listed_response(sorted(Permission), query)

    @routes.post(
        "/roles", operation_id="create_role", responses={201: Role}, openapi_extensions=takes(Role)
    )
    def create_role() -> Response:
        """Make a role out of permissions that one has oneself."""
        role = Role.model_validate(received_document())
        guard.check_permissions(role.permissions)
        stored = directory.create_role(role, by=acting())
        return document_response(stored, 201, location=f"{URL_PREFIX}/roles/{role.name}")

    @routes.get("/roles/<name>", operation_id="read_role", responses={200: Role})
    def read_role(path: NamePath) -> Response:
        """One role."""
        return document_response(guard.role(path.name))

    @routes.put(
        "/roles/<name>",
        operation_id="replace_role",
        responses={200: Role},
        openapi_extensions=takes(Role),
    )
    def replace_role(path: NamePath) -> Response:
        """Change what a role permits. Not one's own."""
        role = Role.model_validate({**received_document(), "name": path.name})
        guard.check_role(path.name)
        guard.check_permissions(role.permissions)
        stored = directory.replace_role(role, by=acting(), if_unchanged=is_what_client_knows)
        identity.forget()
        return document_response(stored)

    @routes.delete("/roles/<name>", operation_id="delete_role", responses={204: None})
    def delete_role(path: NamePath) -> Response:
        """Remove a role that no user has."""
        guard.check_role(path.name)
        directory.delete_role(path.name, by=acting(), if_unchanged=is_what_client_knows)
        identity.forget()
        return Response(status=204)


def own_blueprint(identity: Identity, clock: Clock) -> APIBlueprint:
    """The routes of whoever asks."""
    routes = APIBlueprint(
        "me",
        __name__,
        url_prefix=f"{URL_PREFIX}/me",
        abp_tags=[Tag(name="me", description="Who I am, what I may do, and my API keys")],
        abp_responses=PROBLEM_RESPONSES,
        abp_security=[{"apiKey": []}],
    )
    guard = _Guard(identity)

    @routes.get(
        "",
        operation_id="read_me",
        responses={200: described("Who asks, and what they may", _OBJECT)},
    )
    def read_me() -> Response:
        """Who one is here, by what, and what one may do."""
        who = principal()
        user = identity.directory.user(who.name) or {}
        return json_response(
            {
                "name": who.name,
                "email": user.get("email"),
                "roles": user.get("roles", []),
                "credential": who.credential,
                "permissions": sorted(who.permissions),
            }
        )

    @routes.get(
        "/keys",
        operation_id="list_own_keys",
        responses={200: described_page("Keys, without their secrets")},
    )
    def list_own_keys(query: Listing) -> Response:
        """One's own keys, the newest first."""
        return _keys_page(identity, principal().name, query)

    @routes.post(
        "/keys",
        operation_id="create_own_key",
        responses={201: _NEW_KEY},
        openapi_extensions=takes(KeyRequest),
    )
    def create_own_key() -> Response:
        """Make a key for oneself. What is itself limited makes none."""
        guard.check_unlimited()
        scope = _scope(KeyRequest.model_validate(received_if_any()), guard, clock)
        return _new_key(identity.keys.create(principal().name, scope, by=acting()))

    @routes.post(
        "/keys/<key_id>/rotate",
        operation_id="rotate_own_key",
        responses={201: _NEW_KEY},
        openapi_extensions=takes(RotateRequest),
    )
    def rotate_own_key(path: KeyPath) -> Response:
        """Make a key that is good for the same; the old one ends after `overlap_s`.

        A key that is itself limited can rotate itself alone.
        """
        if principal().credential != f"key {path.key_id}":
            guard.check_unlimited()
        return _rotated(identity, principal().name, path.key_id)

    @routes.delete("/keys/<key_id>", operation_id="revoke_own_key", responses={204: None})
    def revoke_own_key(path: KeyPath) -> Response:
        """Have one's own key refused from now on."""
        if principal().credential != f"key {path.key_id}":
            guard.check_unlimited()
        return _revoked(identity, principal().name, path.key_id)

    return routes


class _Guard:
    """Keeps anybody from giving, or taking, more than they may themselves."""

    def __init__(self, identity: Identity) -> None:
        self._directory = identity.directory

    def user(self, name: str) -> Mapping[str, Any]:
        """Raises: DocumentMissingError."""
        found = self._directory.user(name)
        if found is None:
            raise DocumentMissingError(USERS, name)
        return found

    def role(self, name: str) -> Mapping[str, Any]:
        """Raises: DocumentMissingError."""
        found = self._directory.role(name)
        if found is None:
            raise DocumentMissingError(ROLES, name)
        return found

    def check_other(self, name: str) -> None:
        """The user of that name is another one, who may no more than oneself."""
        found = self.user(name)
        if name == principal().name:
            raise _not_allowed("Nobody changes themselves here.", "See /api/v1/me for own keys.")
        self.check_permissions(self._directory.permissions_of(found["roles"]))

    def check_roles(self, roles: Iterable[str]) -> None:
        """The roles are there, and none gives more than one may oneself."""
        missing = self._directory.missing_roles(roles)
        if missing:
            faults = [Fault("roles", f"there is no role {name!r}") for name in missing]
            raise ProblemError(
                422, "invalid-request", "What the request says does not fit.", faults=faults
            )
        self.check_permissions(self._directory.permissions_of(roles))

    def check_role(self, name: str) -> None:
        """It is a role that one may change: not one's own, and not of more than one may."""
        found = self.role(name)
        own = self._directory.user(principal().name)
        if own is not None and name in own["roles"]:
            raise _not_allowed("Nobody changes a role of their own.", "Ask another administrator.")
        self.check_permissions(Permission(one) for one in found["permissions"])

    def check_permissions(self, wanted: Iterable[Permission]) -> None:
        """One has all of these oneself, and without limits: what one gives has none."""
        self.check_unlimited()
        if not principal().may(*wanted):
            raise _not_allowed(
                "It would give, or touches, more than you may do yourself.",
                "GET /api/v1/me shows what you may.",
            )

    @staticmethod
    def check_unlimited() -> None:
        """What one signed in with is good for all that one may."""
        if principal().limited:
            raise _not_allowed(
                "A limited key changes no users, roles and other keys.", "Use a key without limits."
            )


def _not_allowed(detail: str, hint: str) -> ProblemError:
    return ProblemError(403, "forbidden", detail, hint=hint)


def _scope(asked: KeyRequest, guard: _Guard, clock: Clock) -> KeyScope:
    if asked.roles is not None:
        guard.check_roles(asked.roles)
    if asked.expires_at is not None and asked.expires_at <= clock.now():
        fault = Fault("expires_at", "is over already")
        raise ProblemError(
            422, "invalid-request", "What the request says does not fit.", faults=[fault]
        )
    expires_at: datetime | None = asked.expires_at
    roles = None if asked.roles is None else tuple(asked.roles)
    return KeyScope(roles, tuple(asked.addresses), expires_at, asked.label)


def _new_key(made: NewKey) -> Response:
    return json_response({"id": made.key_id, "key": made.text}, 201)


def _keys_page(identity: Identity, user: str, query: Listing) -> Response:
    page = fetch(lambda limit, cursor: identity.keys.list(user, limit=limit, cursor=cursor), query)
    return page_response(page, dict)


def _rotated(identity: Identity, user: str, key_id: str) -> Response:
    _check_owner(identity, user, key_id)
    overlap = timedelta(seconds=RotateRequest.model_validate(received_if_any()).overlap_s)
    made = identity.keys.rotate(key_id, by=acting(), overlap=overlap)
    identity.forget()
    return _new_key(made)


def _revoked(identity: Identity, user: str, key_id: str) -> Response:
    _check_owner(identity, user, key_id)
    identity.keys.revoke(key_id, by=acting())
    identity.forget()
    return Response(status=204)


def _check_owner(identity: Identity, user: str, key_id: str) -> None:
    """A key of somebody else is as one that is not there. Raises: DocumentMissingError."""
    if identity.keys.read(key_id)["user"] != user:
        raise DocumentMissingError(KEYS, key_id)
