"""How the configuration says where an AE listens, how it is spoken to, and as whom."""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.config.entity import Credentials
from shared.config.tls import PeerTls

# The length of a field of the negotiation is said in 16 bits (PS3.7 D.3.3.7.1).
_LONGEST_FIELD = 0xFFFF


class DimseCredentials(Credentials):
    """Who we say that we are when an association is negotiated (PS3.7 D.3.3.7): a username, with a
    passcode or without; or a token, which is a JSON Web Token.
    """

    @model_validator(mode="after")
    def _says_one_thing(self) -> DimseCredentials:
        has_passcode = bool(self.password or self.password_secret)
        has_token = bool(self.token or self.token_secret)
        if has_token and (self.username or has_passcode):
            raise ValueError("has a username or a token, not both")
        if has_passcode and not self.username:
            raise ValueError("a password needs a username")
        if any(len((one or "").encode()) > _LONGEST_FIELD for one in (self.username, self.token)):
            raise ValueError("is too long to be sent")
        return self

    @property
    def is_given(self) -> bool:
        """False if we say nothing of ourselves."""
        return bool(self.username or self.token or self.token_secret)


class DimsePlace(Protocol):
    """Whatever says where an AE listens: a peer, a source, a destination."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls(self) -> PeerTls | None: ...
    @property
    def credentials(self) -> DimseCredentials: ...


class DimsePeer(BaseModel):
    """Where an AE listens that a listener of ours sends to."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    # In the clear without it.
    tls: PeerTls | None = None
    credentials: DimseCredentials = DimseCredentials()

    @classmethod
    def at(cls, place: DimsePlace) -> DimsePeer:
        """The same place, as another entity says it, whose secrets may be in clear."""
        return cls.model_construct(
            host=place.host, port=place.port, tls=place.tls, credentials=place.credentials
        )

    @model_validator(mode="after")
    def _names_its_secrets(self) -> DimsePeer:
        clear = (
            ("tls.private_key", self.tls.private_key if self.tls else None),
            ("credentials.password", self.credentials.password),
            ("credentials.token", self.credentials.token),
        )
        for name, value in clear:
            if value:
                raise ValueError(f"{name} is not taken in clear here; give {name}_secret")
        return self
