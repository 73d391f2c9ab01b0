"""Who we say that we are to a peer that asks (PS3.7 D.3.3.7), with secrets read when they are
needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from shared.errors import SecretMissingError

if TYPE_CHECKING:
    from shared.config.peers import DimseCredentials
    from shared.ports import SecretStore

# User-Identity-Type (PS3.7 Table D.3-14).
USERNAME: Final = 1
USERNAME_AND_PASSCODE: Final = 2
JSON_WEB_TOKEN: Final = 5


class UserIdentityUnusableError(OSError):
    """There is no such secret, so that no association is asked for."""


class UserIdentity(Struct, frozen=True):
    """What is presented when an association is negotiated."""

    kind: int
    primary: bytes
    secondary: bytes = b""


# Gives what is presented now. Raises: UserIdentityUnusableError.
Presents = Callable[[], UserIdentity]


def user_identity_of(credentials: DimseCredentials, secrets: SecretStore) -> Presents | None:
    """None where nothing is presented."""
    if not credentials.is_given:
        return None

    def read(name: str | None, clear: str | None) -> bytes:
        try:
            return (secrets.get(name) if name else clear or "").encode()
        except SecretMissingError as error:
            raise UserIdentityUnusableError(str(error)) from None

    def present() -> UserIdentity:
        given = credentials
        if given.username is None:
            return UserIdentity(JSON_WEB_TOKEN, read(given.token_secret, given.token))
        username = given.username.encode()
        passcode = read(given.password_secret, given.password)
        if not passcode:
            return UserIdentity(USERNAME, username)
        return UserIdentity(USERNAME_AND_PASSCODE, username, passcode)

    return present
