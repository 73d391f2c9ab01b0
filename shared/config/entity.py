"""What the named parts of the configuration have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


def path_below(text: str, folder: str) -> str:
    """The path, if a relative one leads nowhere but below that folder of the home.

    Raises: ValueError in words.
    """
    path = PurePath(text)
    if not path.is_absolute() and ".." in path.parts:
        raise ValueError(
            f"a relative path stays below AXIOM_HOME/{folder}; elsewhere an absolute one"
        )
    return text


def entities(document: Mapping[str, Any], collection: str) -> list[Mapping[str, Any]]:
    """What a collection of a document has, which may be anything; in the place of what is no entity
    stands one without fields.
    """
    given = document.get(collection)
    listed = given if isinstance(given, list | tuple) else ()
    return [entity if isinstance(entity, Mapping) else {} for entity in listed]


def by_name(document: Mapping[str, Any], collection: str) -> dict[str, Mapping[str, Any]]:
    """Those entities of a collection, as `entities` gives them, whose name is text."""
    found = entities(document, collection)
    return {entity["name"]: entity for entity in found if isinstance(entity.get("name"), str)}


class Entity(BaseModel):
    """A named part, which can be switched off."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    enabled: bool = True


class Credentials(BaseModel):
    """How to sign in. A secret given in clear is moved to the secret store when it is saved."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    token: str | None = Field(default=None, repr=False)
    password_secret: str | None = None  # names in the secret store
    token_secret: str | None = None

    def check(self, auth_type: str) -> None:
        """Raises: ValueError if it lacks what one signs in with that way."""
        if auth_type == "basic" and not (self.username and (self.password or self.password_secret)):
            raise ValueError("auth_type basic needs credentials.username and .password")
        if auth_type == "bearer_token" and not (self.token or self.token_secret):
            raise ValueError("auth_type bearer_token needs credentials.token")
