"""Uploads past our own processes: a client sends a file straight to a landing bucket.

We only begin a resumable session there, whose address is all that a client needs and is good for
this one object. The bucket's notification has `ingest_object` take the file in.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from msgspec import Struct

from shared.errors import WrongStateError
from shared.ports import Clock

# How long Cloud Storage keeps a session.
SESSION_LASTS = timedelta(days=7)

# Begins a session for an object of that name and size (None: unknown), and gives its address.
# Raises: StorageUnavailableError.
BeginSession = Callable[[str, int | None], str]


class Upload(Struct, frozen=True):
    """A session that has begun."""

    upload_id: str
    session_uri: str
    expires_at: datetime


def begin(size: int | None, begin_session: BeginSession | None, clock: Clock) -> Upload:
    """Begin one.

    Raises: WrongStateError where there is no landing bucket; StorageUnavailableError.
    """
    if begin_session is None:
        raise WrongStateError("uploads", "without a landing bucket: store by STOW-RS")
    now = clock.now()
    upload_id = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(8)}"
    return Upload(upload_id, begin_session(f"uploads/{upload_id}.dcm", size), now + SESSION_LASTS)
