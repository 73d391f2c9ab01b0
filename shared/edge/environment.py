"""The settings that a gateway with a spool alone has; docs/edge.md lists them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

SPOOL = "AXIOM_GATEWAY_SPOOL"
_UPLOADS, _BYTES_PER_S = "AXIOM_GATEWAY_UPLOADS", "AXIOM_GATEWAY_UPLOAD_BYTES_PER_S"
_MOST_UPLOADS = 64


class EdgeEnvironment(Struct, frozen=True):
    """`name` tells this gateway from all others in the cloud's monitoring."""

    spool: Path
    name: str
    uploads: int  # at once
    bytes_per_s: int  # that uploads take of the link together; 0 for no limit

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> EdgeEnvironment | None:
        """None where there is no spool. Raises: ValueError naming the setting that is wrong."""
        spool = environ.get(SPOOL)
        if not spool:
            return None
        if environ.get("AXIOM_PLATFORM") != "cloud":
            raise ValueError(f"{SPOOL} needs AXIOM_PLATFORM=cloud: there is nowhere to move it to")
        name = environ.get("AXIOM_INSTANCE", "")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", name):
            raise ValueError(
                f"{SPOOL} needs AXIOM_INSTANCE: a name of letters, digits, '-', '_' and '.',"
                " which no other gateway has"
            )
        uploads = _number(environ, _UPLOADS, 4)
        if not 1 <= uploads <= _MOST_UPLOADS:
            raise ValueError(f"{_UPLOADS} is not a number from 1 to {_MOST_UPLOADS}")
        return cls(Path(spool).absolute(), name, uploads, _number(environ, _BYTES_PER_S, 0))


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise ValueError(f"{name} is not a whole number")
    return int(text)
