"""The configuration of the tortured system: three destinations, rules that hold and change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.local.torture.instances import ARCHIVE, CHANGED_TO, PACS, WEB, Kind
from infra.local.torture.scp import AE_TITLE

# Shorter than a peer stalls.
_TIMEOUT_S = 3.0
_STAMP = "TORTURE "
# More than any disk has: nothing is accepted.
NO_ROOM = 1 << 62


def configuration(archive: Path, pacs_port: int, web_url: str) -> dict[str, Any]:
    """Everything but what changes during a run."""
    return {
        "destinations": [
            {"name": ARCHIVE, "type": "filesystem", "path": str(archive)},
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
        "modifying_system": f"{_STAMP}{stamp}",
    }


def stamp_of(found: dict[str, Any]) -> int:
    """The number that `settings` put in."""
    return int(found["settings"]["modifying_system"].removeprefix(_STAMP))


def _rule(name: str, kind: Kind, action: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "conditions": [{"type": "tag_equals", "tag": "PatientID", "value": str(kind)}],
        "actions": [action],
    }
