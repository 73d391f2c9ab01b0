"""The configuration of the tortured system: its destinations, and a rule for each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.local.torture.instances import (
    ARCHIVE,
    CHANGED_TO,
    DESTINATIONS,
    FIRST,
    LATEST,
    PACS,
    WEB,
    Kind,
)
from infra.local.torture.scp import AE_TITLE

# Shorter than a peer stalls.
_TIMEOUT_S = 3.0
_STAMP = "TORTURE "
# Received files go soon, under everybody's hands.
_RETENTION_S = 5.0
# More than any disk has: nothing is accepted.
NO_ROOM = 1 << 62


def configuration(folder: Path, pacs_port: int, web_url: str) -> dict[str, Any]:
    """Everything but what changes during a run; destinations that are folders lie in `folder`."""
    return {
        "destinations": [
            _folder(ARCHIVE, folder),
            _folder(LATEST, folder, on_conflict="replace", template=_ONE_NAME),
            _folder(FIRST, folder, on_conflict="quarantine", template=_ONE_NAME),
            {
                "name": PACS,
                "type": "dimse",
                "host": "127.0.0.1",
                "port": pacs_port,
                "ae_title": AE_TITLE,
                "calling_ae_title": "AXIOM",
                "timeout_s": _TIMEOUT_S,
            },
            {
                "name": WEB,
                "type": "dicomweb",
                "base_url": web_url,
                "auth_type": "none",
                "timeout_s": _TIMEOUT_S,
            },
        ],
        "rulesets": [
            {
                "name": "torture",
                "execution_mode": "ALL_MATCHES",
                "rules": [
                    _rule("hold", Kind.HELD, {"type": "hold", "reason": "as the torture wants"}),
                    {
                        **_rule(
                            "change",
                            Kind.CHANGED,
                            {
                                "type": "set",
                                "tag": "SeriesDescription",
                                "value": CHANGED_TO.decode(),
                            },
                        ),
                        "storage_backends": [ARCHIVE, PACS, WEB],
                    },
                    _route("correct", Kind.CORRECTED),
                    _route("doubt", Kind.DOUBTED),
                    _rule("drop", Kind.DROPPED, {"type": "discard", "reason": "not wanted"}),
                ],
            }
        ],
        "settings": settings(0),
    }


def settings(stamp: int, *, min_free_bytes: int = 0) -> dict[str, Any]:
    """The settings, with a number that tells one version from the other."""
    return {
        "default_route": [ARCHIVE, PACS, WEB],
        "min_free_bytes": min_free_bytes,
        "retention_s": _RETENTION_S,
        "modifying_system": f"{_STAMP}{stamp}",
    }


def stamp_of(found: dict[str, Any]) -> int:
    """The number that `settings` put in."""
    return int(found["settings"]["modifying_system"].removeprefix(_STAMP))


def folders(folder: Path) -> dict[str, Path]:
    """Of the destinations that are folders, by name."""
    return {name: folder / name for name in DESTINATIONS if name not in (PACS, WEB)}


# All versions of an Instance have it.
_ONE_NAME = "{SOPInstanceUID}.dcm"


def _folder(name: str, folder: Path, **more: str) -> dict[str, Any]:
    return {"name": name, "type": "filesystem", "path": str(folders(folder)[name]), **more}


def _rule(name: str, kind: Kind, *actions: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "conditions": [{"type": "tag_equals", "tag": "PatientID", "value": str(kind)}],
        "actions": list(actions),
    }


def _route(name: str, kind: Kind) -> dict[str, Any]:
    return {**_rule(name, kind), "storage_backends": list(kind.destinations)}
