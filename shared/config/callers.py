"""Who a listener lets in, where it asks them who they are (PS3.7 D.3.3.7)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Username = Annotated[str, Field(min_length=1, max_length=256)]
SecretName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")]


class UserIdentity(BaseModel):
    """What callers may show; any of it is good."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # False lets in who shows nothing; who shows what is not good is turned away all the same.
    required: bool = True
    # By username, the name of the secret in the secret store that is the passcode.
    passcodes: dict[Username, SecretName] = Field(default_factory=dict)
    # Users of ours, with an API key of theirs as the passcode.
    api_keys: bool = False
    # JSON Web Tokens of the issuer that the API takes ID tokens of.
    tokens: bool = False
    # Taken at their word, without a passcode.
    usernames: tuple[Username, ...] = ()

    @model_validator(mode="after")
    def _takes_something(self) -> UserIdentity:
        if not (self.passcodes or self.api_keys or self.tokens or self.usernames):
            raise ValueError("takes nobody: give passcodes, api_keys, tokens or usernames")
        return self
