"""Users and roles: documents of their own, so that no roll back of the configuration brings back
what somebody was allowed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shared.audit import AuditLog
from shared.config.entity import Name
from shared.errors import DocumentChangedError, DocumentExistsError, DocumentMissingError
from shared.identity.permissions import ADMIN, BUILT_IN_ROLES, Permission
from shared.ports import Clock, Document, DocumentStore, Filter, Page
from shared.times import timestamp

USERS, ROLES = "users", "roles"


class BuiltInRoleError(DocumentExistsError):
    """A built-in role is neither changed nor removed."""

    code = "built-in-role"
    hint = "Make a role of another name out of the permissions that are wanted."
    template = "{1} is a role that is built in"


class RoleUsedError(DocumentExistsError):
    """A role that users have is not removed. args: collection, role, how many users."""

    code = "still-used"
    hint = "Take the role from its users first."
    template = "users have the role {1}"


class EmailTakenError(DocumentExistsError):
    """An e-mail address tells one user. args: collection, the user that has it."""

    code = "email-taken"
    hint = "Give each user an address of their own."
    template = "another user has this e-mail address"


def _email(text: str) -> str:
    name, at, domain = text.strip().partition("@")
    if not (name and at and "." in domain) or any(c.isspace() for c in text.strip()):
        raise ValueError("is no e-mail address")
    return text.strip().lower()


class User(BaseModel):
    """Somebody, or a machine: known by keys, or by an e-mail address that an issuer vouches for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    email: Annotated[str, Field(max_length=254), AfterValidator(_email)] | None = Field(
        default=None, description="As Google signs it: a person's, or a service account's"
    )
    roles: Annotated[tuple[Name, ...], Field(max_length=50)] = ()
    enabled: bool = True


class Role(BaseModel):
    """A bundle of permissions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    description: Annotated[str, Field(max_length=1000)] = ""
    permissions: Annotated[tuple[Permission, ...], Field(max_length=100)] = ()


class Directory:
    """The users and roles in a DocumentStore. Every change is in the audit log."""

    def __init__(self, documents: DocumentStore, clock: Clock) -> None:
        self._documents, self._clock = documents, clock
        self._audit = AuditLog(documents, clock)

    # ---- users

    def user(self, name: str) -> Mapping[str, Any] | None:
        """The user's document; None if there is none."""
        found = self._documents.get(USERS, name)
        return None if found is None else found.data

    def user_of_email(self, email: str) -> Mapping[str, Any] | None:
        """Whose e-mail address this is; None if it is nobody's, or not clear whose."""
        page = self._documents.query(USERS, [Filter("email", "==", email.lower())], limit=2)
        return page.documents[0].data if len(page.documents) == 1 else None

    def users(self, *, limit: int = 100, cursor: str | None = None) -> Page:
        """Users by name. Raises: ValueError for a foreign cursor."""
        return self._documents.query(USERS, limit=limit, cursor=cursor)

    def create_user(self, user: User, *, by: str) -> Mapping[str, Any]:
        """Raises: DocumentExistsError."""
        self._check_email(user)
        now = timestamp(self._clock.now())
        data = {**user.model_dump(mode="json"), "created_at": now, "created_by": by}
        self._documents.create(USERS, user.name, data)
        self._audit.add(who=by, what="users.create", id=user.name, after=user.model_dump_json())
        return data

    def replace_user(
        self, user: User, *, by: str, if_unchanged: Callable[[dict[str, Any]], bool]
    ) -> Mapping[str, Any]:
        """Raises: DocumentMissingError, DocumentChangedError, DocumentExistsError."""
        found = self._found(USERS, user.name, if_unchanged)
        self._check_email(user)
        data = {**found.data, **user.model_dump(mode="json")}
        self._documents.replace(USERS, user.name, data, found.version)
        self._note(by, "users.replace", user.name, User, found.data, data)
        return data

    def delete_user(
        self, name: str, *, by: str, if_unchanged: Callable[[dict[str, Any]], bool]
    ) -> None:
        """The user's keys and sessions are refused from then on.

        Raises: DocumentMissingError, DocumentChangedError.
        """
        found = self._found(USERS, name, if_unchanged)
        self._documents.delete(USERS, name, found.version)
        self._note(by, "users.delete", name, User, found.data, None)

    def end_sessions(self, name: str, *, by: str) -> None:
        """What the user signed in with before now is refused; no user of this name is no error."""
        found = self._documents.get(USERS, name)
        if found is None:
            return
        data = {**found.data, "sessions_end_at": timestamp(self._clock.now())}
        self._documents.replace(USERS, name, data, found.version)
        self._audit.add(who=by, what="users.end-sessions", id=name)

    # ---- roles

    def role(self, name: str) -> Mapping[str, Any] | None:
        """A role, built in or not; None if there is none."""
        if name in BUILT_IN_ROLES:
            permissions = sorted(BUILT_IN_ROLES[name])
            return {"name": name, "description": "built in", "permissions": permissions}
        found = self._documents.get(ROLES, name)
        return None if found is None else found.data

    def roles(self, *, limit: int = 100, cursor: str | None = None) -> Page:
        """Custom roles by name. Raises: ValueError for a foreign cursor."""
        return self._documents.query(ROLES, limit=limit, cursor=cursor)

    def create_role(self, role: Role, *, by: str) -> Mapping[str, Any]:
        """Raises: DocumentExistsError."""
        if role.name in BUILT_IN_ROLES:
            raise BuiltInRoleError(ROLES, role.name)
        data = role.model_dump(mode="json")
        self._documents.create(ROLES, role.name, data)
        self._audit.add(who=by, what="roles.create", id=role.name, after=role.model_dump_json())
        return data

    def replace_role(
        self, role: Role, *, by: str, if_unchanged: Callable[[dict[str, Any]], bool]
    ) -> Mapping[str, Any]:
        """Raises: DocumentMissingError, DocumentChangedError, BuiltInRoleError."""
        found = self._found(ROLES, role.name, if_unchanged)
        data = role.model_dump(mode="json")
        self._documents.replace(ROLES, role.name, data, found.version)
        self._note(by, "roles.replace", role.name, Role, found.data, data)
        return data

    def delete_role(
        self, name: str, *, by: str, if_unchanged: Callable[[dict[str, Any]], bool]
    ) -> None:
        """Raises: DocumentMissingError, DocumentChangedError, BuiltInRoleError, RoleUsedError."""
        found = self._found(ROLES, name, if_unchanged)
        cursor = None
        while True:
            page = self.users(limit=500, cursor=cursor)
            if any(name in user.data["roles"] for user in page.documents):
                raise RoleUsedError(ROLES, name)
            cursor = page.cursor
            if cursor is None:
                break
        self._documents.delete(ROLES, name, found.version)
        self._note(by, "roles.delete", name, Role, found.data, None)

    # ---- what they come to

    def permissions_of(self, roles: Iterable[str]) -> frozenset[Permission]:
        """All that the roles give together; a role that is gone gives nothing."""
        given: set[Permission] = set()
        for name in roles:
            role = self.role(name)
            given |= {Permission(one) for one in role["permissions"]} if role else set()
        return frozenset(given)

    def missing_roles(self, roles: Iterable[str]) -> list[str]:
        """Those of `roles` that there are not."""
        return [name for name in roles if self.role(name) is None]

    def ensure_admin(self, name: str, *, by: str) -> None:
        """Have an admin of that name; whoever has the name already stays as they are."""
        try:
            self.create_user(User(name=name, roles=(ADMIN,)), by=by)
        except DocumentExistsError:
            return

    # ---- inside

    def _check_email(self, user: User) -> None:
        if user.email is None:
            return
        page = self._documents.query(USERS, [Filter("email", "==", user.email)], limit=2)
        if any(found.key != user.name for found in page.documents):
            raise EmailTakenError(USERS, user.name)

    def _found(
        self, collection: str, name: str, if_unchanged: Callable[[dict[str, Any]], bool]
    ) -> Document:
        if collection == ROLES and name in BUILT_IN_ROLES:
            raise BuiltInRoleError(ROLES, name)
        found = self._documents.get(collection, name)
        if found is None:
            raise DocumentMissingError(collection, name)
        if not if_unchanged(dict(found.data)):
            raise DocumentChangedError(collection, name)
        return found

    def _note(
        self,
        by: str,
        what: str,
        name: str,
        model: type[BaseModel],
        before: Mapping[str, Any],
        after: Mapping[str, Any] | None,
    ) -> None:
        def text(data: Mapping[str, Any] | None) -> str:
            if data is None:
                return ""
            kept = {key: data[key] for key in model.model_fields if key in data}
            return model.model_validate(kept).model_dump_json()

        self._audit.add(who=by, what=what, id=name, before=text(before), after=text(after))
