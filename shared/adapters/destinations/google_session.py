"""HTTP to Google's APIs as the process's own service account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shared.adapters.destinations import outcomes
from shared.errors import DestinationMisconfiguredError

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.auth.transport.requests import AuthorizedSession

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def credentials_for(destination: str, url: str) -> Credentials:
    """Of the service account that this process runs as; nobody's for a server without TLS, to which
    no token is ever shown.

    Raises: DestinationMisconfiguredError where there are none.
    """
    try:
        import google.auth
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import GoogleAuthError
    except ImportError:
        raise DestinationMisconfiguredError(
            destination, "Google's libraries are not installed: requirements-cloud.txt"
        ) from None
    if not url.startswith("https://"):
        return AnonymousCredentials()
    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
    except GoogleAuthError as error:
        raise outcomes.failure(outcomes.client_error(error), destination) from error
    found: Credentials = credentials
    return found


@contextmanager
def google_session(destination: str, url: str) -> Iterator[AuthorizedSession]:
    """A session for `url`, closed at the end; a failure to sign in is the destination's.

    Raises: DestinationMisconfiguredError, DestinationUnavailableError.
    """
    credentials = credentials_for(destination, url)
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import AuthorizedSession

    from shared.adapters.guarded_http import guard

    with AuthorizedSession(credentials) as session:
        guard(session)
        try:
            yield session
        except GoogleAuthError as error:
            raise outcomes.failure(outcomes.client_error(error), destination) from error
