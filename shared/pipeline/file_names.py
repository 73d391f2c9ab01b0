"""What names tell of files that others have put somewhere: all others are looked into."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

_ARCHIVE: Final = ".zip"
# Never an Instance, or one that is still being written.
_NO_INSTANCES: Final = frozenset(
    f".{suffix}"
    for suffix in (
        *("txt", "xml", "json", "csv", "log", "md", "inf", "ini", "htm", "html", "css", "js"),
        *("jpg", "jpeg", "png", "gif", "bmp", "pdf", "exe", "dll", "bat", "sh"),
        *("tmp", "part", "partial", "crdownload", "filepart", "swp", "lock"),
    )
)
_DIRECTORY_FILE: Final = "DICOMDIR"


def is_archive(name: str) -> bool:
    """True if what the file holds are the Instances."""
    return PurePosixPath(name).suffix.lower() == _ARCHIVE


def is_no_instance(name: str) -> bool:
    """True if a file of this name is never an Instance."""
    path = PurePosixPath(name)
    return (
        path.name.startswith(".")
        or path.name.upper() == _DIRECTORY_FILE
        or path.suffix.lower() in _NO_INSTANCES
    )
