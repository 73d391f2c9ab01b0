"""Who asks for an association, where the listener wants to know (PS3.7 D.3.3.7).

What is refused is in the audit log: who called from where and why it was refused, never what they
showed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared.audit import ORIGIN, AuditLog, Origin
from shared.config.callers import UserIdentity
from shared.errors import SecretMissingError
from shared.identity.keys import is_equal_text
from shared.identity.permissions import Permission
from shared.ports import Clock, DocumentStore, SecretStore
from shared.rates import TokenBuckets

if TYPE_CHECKING:
    # A gateway whose listeners ask nobody loads none of it.
    from shared.identity.identity import Identity

# User-Identity-Type (PS3.7 Table D.3-14).
_USERNAME, _USERNAME_AND_PASSCODE, _KERBEROS, _SAML, _TOKEN = range(1, 6)
_NAMES: Final = {
    _USERNAME: "username",
    _USERNAME_AND_PASSCODE: "username and passcode",
    _KERBEROS: "Kerberos service ticket",
    _SAML: "SAML assertion",
    _TOKEN: "JSON Web Token",
}
# What is not good, from one address, as over HTTP.
_FAILURES_PER_S: Final = 5.0
_FAILURES_AT_ONCE: Final = 100.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What a caller shows: the User-Identity-Type and its fields."""

    kind: int
    primary: bytes
    secondary: bytes = b""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who it is, and what they may do."""

    name: str
    may_store: bool = True
    may_query: bool = True


class CallerRefusedError(Exception):
    """Why a caller is not let in, in words without what was shown."""


class TooManyCallersError(Exception):
    """Too much that was not good came from that address: nothing is looked at for now."""


class Callers:
    """Knows who calls; one for each process. `identity` is asked where users of ours may call."""

    def __init__(
        self,
        identity: Callable[[], Identity],
        documents: DocumentStore,
        secrets: SecretStore,
        clock: Clock,
    ) -> None:
        self._identity, self._secrets = identity, secrets
        self._audit = AuditLog(documents, clock)
        self._failures = TokenBuckets(clock)

    def caller(
        self,
        taken: UserIdentity,
        shown: Shown | None,
        *,
        listener: str,
        calling_ae_title: str,
        address: str,
    ) -> Caller | None:
        """Who it is; None if they show nothing and need not.

        Raises: CallerRefusedError, TooManyCallersError; IdentityProviderUnavailableError,
        StorageUnavailableError.
        """
        if shown is None and not taken.required:
            return None
        if self._failures.wait_s(address, _FAILURES_PER_S, _FAILURES_AT_ONCE) > 0:
            raise TooManyCallersError
        try:
            return self._judged(taken, shown, address)
        except CallerRefusedError as error:
            self._failures.take(address, _FAILURES_PER_S, _FAILURES_AT_ONCE)
            token = ORIGIN.set(Origin(address))
            try:
                self._audit.add(
                    who=f"AE {calling_ae_title}",
                    what="associations.refuse",
                    id=listener,
                    reason=str(error),
                )
            finally:
                ORIGIN.reset(token)
            raise

    def _judged(self, taken: UserIdentity, shown: Shown | None, address: str) -> Caller:
        if shown is None:
            raise CallerRefusedError("no user identity is shown")
        try:
            primary, secondary = shown.primary.decode(), shown.secondary.decode()
        except UnicodeDecodeError:
            raise CallerRefusedError("the user identity is not text in UTF-8") from None
        if shown.kind == _USERNAME and primary in taken.usernames:
            return Caller(primary)
        if shown.kind == _USERNAME_AND_PASSCODE and (taken.passcodes or taken.api_keys):
            return self._of_passcode(taken, primary, secondary, address)
        if shown.kind == _TOKEN and taken.tokens:
            return self._of_credential(primary, address, is_token=True)
        if shown.kind == _USERNAME and taken.usernames:
            raise CallerRefusedError("the username is not one of those that are taken alone")
        what = _NAMES.get(shown.kind, f"user identity of type {shown.kind}")
        raise CallerRefusedError(f"a {what} is not taken here")

    def _of_passcode(
        self, taken: UserIdentity, username: str, passcode: str, address: str
    ) -> Caller:
        secret = taken.passcodes.get(username)
        if secret is not None:
            try:
                expected = self._secrets.get(secret)
            except SecretMissingError as error:
                raise CallerRefusedError(str(error)) from None
            if not is_equal_text(expected, passcode):
                raise CallerRefusedError("the passcode is not good")
            return Caller(username)
        if not taken.api_keys:
            raise CallerRefusedError("the username or passcode is not good")
        found = self._of_credential(passcode, address)
        if found.name != username:
            raise CallerRefusedError("the username or passcode is not good")
        return found

    def _of_credential(self, text: str, address: str, *, is_token: bool = False) -> Caller:
        is_one = text.count(".") == 2 if is_token else bool(text)
        principal = self._identity().of_credential(text, address) if is_one else None
        if principal is None:
            what = "token" if is_token else "username or passcode"
            raise CallerRefusedError(f"the {what} is not good")
        caller = Caller(
            principal.name,
            may_store=principal.may(Permission.INSTANCES_STORE),
            may_query=principal.may(Permission.PATIENTS_READ),
        )
        if not (caller.may_store or caller.may_query):
            raise CallerRefusedError("the user may neither store nor query")
        return caller
