"""Errors of Google's clients as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import google.auth.exceptions
from google.api_core import exceptions as google_errors

from shared.errors import StorageUnavailableError

# What may succeed a little later, and what a person has to mend while messages wait: a permission
# or a quota is given without us being started anew.
_LATER = (
    google_errors.ServerError,
    google_errors.TooManyRequests,
    google_errors.Aborted,
    google_errors.RetryError,
    google_errors.Forbidden,
    google_errors.Unauthorized,
    google.auth.exceptions.GoogleAuthError,
    ConnectionError,
    TimeoutError,
)


@contextmanager
def told_as_ours(service: str) -> Iterator[None]:
    """Turn an outage within into StorageUnavailableError; other errors pass as they are."""
    try:
        yield
    except _LATER as error:
        # Google's own text may quote what was sent; its type and status say enough.
        status = getattr(error, "code", None)
        shown = f" ({int(status)})" if isinstance(status, int) else ""
        raise StorageUnavailableError(f"{service}: {type(error).__name__}{shown}") from error
