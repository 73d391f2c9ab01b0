"""How the configuration says that a DIMSE connection is encrypted (PS3.15 B.12, B.13)."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _is_absolute(text: str) -> str:
    if not PurePath(text).is_absolute():
        raise ValueError("takes an absolute path: processes run in folders of their own")
    return text


AbsolutePath = Annotated[str, AfterValidator(_is_absolute)]


class TlsProfile(StrEnum):
    """What is negotiated: TLS 1.2 or newer, with ciphers that BCP 195 recommends."""

    BCP195 = "bcp195"  # PS3.15 B.12
    MODIFIED_BCP195 = "modified_bcp195"  # PS3.15 B.13: fewer ciphers


class _Tls(BaseModel):
    """Everything is PEM, in a file or in the secret store by name, and read anew when it changes.

    `certificate_…` may bring its chain; `trusted_…` are the authorities whose certificates count.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    profile: TlsProfile = Field(TlsProfile.BCP195, strict=False)
    certificate_file: AbsolutePath | None = None
    certificate_secret: str | None = None
    private_key_file: AbsolutePath | None = None
    private_key_secret: str | None = None
    # In clear it is moved to the secret store when it is saved.
    private_key: str | None = Field(default=None, repr=False)
    trusted_file: AbsolutePath | None = None
    trusted_secret: str | None = None

    @model_validator(mode="after")
    def _says_each_thing_once(self) -> _Tls:
        for what, given in (
            ("certificate", (self.certificate_file, self.certificate_secret)),
            ("private_key", (self.private_key_file, self.private_key_secret, self.private_key)),
            ("trusted", (self.trusted_file, self.trusted_secret)),
        ):
            if sum(value is not None for value in given) > 1:
                raise ValueError(f"says {what} twice; give a file or the name of a secret")
        if self.has_certificate != self.has_private_key:
            raise ValueError("needs certificate and private_key together, or neither")
        return self

    @property
    def has_certificate(self) -> bool:
        """True if it says who we are."""
        return bool(self.certificate_file or self.certificate_secret)

    @property
    def has_private_key(self) -> bool:
        """True if it can prove it."""
        return bool(self.private_key_file or self.private_key_secret or self.private_key)

    @property
    def has_trusted(self) -> bool:
        """True if it says whom to believe."""
        return bool(self.trusted_file or self.trusted_secret)


class ListenerTls(_Tls):
    """TLS of a listener: who we are, and whether callers show who they are."""

    require_client_certificate: bool = True

    @model_validator(mode="after")
    def _can_answer(self) -> ListenerTls:
        if not self.has_certificate:
            raise ValueError("needs certificate and private_key: a listener shows who it is")
        if self.require_client_certificate and not self.has_trusted:
            raise ValueError(
                "needs trusted_file or trusted_secret to judge callers' certificates; "
                "or require_client_certificate: false"
            )
        return self


class PeerTls(_Tls):
    """TLS towards a peer. Without `trusted_…` the machine's own authorities count."""

    # The name that its certificate is for, where that is not `host`.
    server_name: str | None = None
    # Off where certificates of a site's own authority name no host.
    check_name: bool = True
