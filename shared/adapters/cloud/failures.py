"""Errors of Google's clients as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import google.auth.exceptions
from google.api_core import exceptions as google_errors

from shared.errors import StorageUnavailableError

_LATER = (
    google_errors.ServerError,
    google_errors.TooManyRequests,
    google_errors.Aborted,
    google_errors.RetryError,
    google.auth.exceptions.GoogleAuthError,
    # Connections that break and time-outs, those of `requests` too.
    OSError,
)
# What a person has to mend while messages wait: it is given without us being started anew.
_NOT_APPLIED = (
    google_errors.Forbidden,
    google_errors.Unauthorized,
    google_errors.NotFound,
    google_errors.FailedPrecondition,
)


@contextmanager
def told_as_ours(service: str, resource: str) -> Iterator[None]:
    """Turn an outage within into StorageUnavailableError; other errors pass as they are.

    What is missing, or forbidden, is such an outage too, whose text names `resource`: the address
    that it has in Terraform.
    """
    try:
        yield
    except _LATER as error:
        raise StorageUnavailableError(f"{service}: {_shown(error)}") from error
    except _NOT_APPLIED as error:
        raise StorageUnavailableError(
            f"{service}: {_shown(error)}: apply {resource}, and the roles on it"
        ) from error


def _shown(error: BaseException) -> str:
    # Google's own text may quote what was sent; its type and status say enough.
    status = getattr(error, "code", None)
    return type(error).__name__ + (f" ({int(status)})" if isinstance(status, int) else "")
