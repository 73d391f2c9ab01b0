"""What may be the name of an object or a secret, on every platform alike."""

from __future__ import annotations

import re

MAX_OBJECT_NAME_LENGTH = 1024  # Cloud Storage's limit

_PART = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,255}")  # a file's name at most
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,255}")


def check_object_name(name: str) -> None:
    """Raises: ValueError for what is no object's name, or could lead elsewhere."""
    if len(name) > MAX_OBJECT_NAME_LENGTH or not all(map(_PART.fullmatch, name.split("/"))):
        raise ValueError(f"not an object's name: {name!r}")


def check_secret_name(name: str) -> None:
    """Raises: ValueError for what is no secret's name."""
    if not _SECRET.fullmatch(name):
        raise ValueError(f"not a secret's name: {name!r}")
