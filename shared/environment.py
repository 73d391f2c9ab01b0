"""The settings that every process of both platforms reads from the environment.

Imports little: a command that asks where the home is pays for no more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from shared.dicom.ae_titles import checked_ae_title


class Platform(StrEnum):
    """Which family of adapters stands behind the ports."""

    EMBEDDED = "embedded"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Environment:
    """The settings that are read from the environment; the cloud platform has more of its own."""

    platform: Platform
    home: Path
    http_host: str
    http_port: int
    dimse_host: str
    dimse_port: int
    ae_title: str
    api_key: str | None
    instance: str
    gateway_processes: int
    stage_processes: int  # of one machine
    health_port: int | None = None  # of the gateway

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Environment:
        """Raises: ValueError naming the setting that is wrong."""
        platform = _platform(environ)
        # In the cloud the machine goes with the process, and little is kept on it.
        home = ".axiom" if platform is Platform.EMBEDDED else "/tmp/axiom"  # noqa: S108
        return cls(
            platform=platform,
            home=Path(environ.get("AXIOM_HOME") or home).absolute(),
            http_host=environ.get("AXIOM_HTTP_HOST") or "127.0.0.1",
            http_port=_port(environ, "AXIOM_HTTP_PORT", 8080),
            dimse_host=environ.get("AXIOM_DIMSE_HOST") or "127.0.0.1",
            dimse_port=_port(environ, "AXIOM_DIMSE_PORT", 11112),
            ae_title=_ae_title(environ, "AXIOM_AE_TITLE", "AXIOM"),
            api_key=preset_api_key(environ),
            instance=environ.get("AXIOM_INSTANCE") or "",
            gateway_processes=_number(environ, "AXIOM_GATEWAY_PROCESSES", 1, most=64),
            # Beside them others receive, deliver and answer.
            stage_processes=_number(
                environ, "AXIOM_STAGE_PROCESSES", max(1, (os.cpu_count() or 1) // 4), most=64
            ),
            health_port=(
                _port(environ, "AXIOM_HEALTH_PORT", 0) if environ.get("AXIOM_HEALTH_PORT") else None
            ),
        )


def preset_api_key(environ: Mapping[str, str]) -> str | None:
    """The admin's key of AXIOM_API_KEY, if there is one. Raises: ValueError."""
    key = environ.get("AXIOM_API_KEY") or None
    # A header field of HTTP could not carry another.
    if key is not None and (key != key.strip() or not all(" " <= c <= "~" for c in key)):
        raise ValueError("AXIOM_API_KEY has printable ASCII characters alone, no space at an end")
    return key


def _platform(environ: Mapping[str, str]) -> Platform:
    try:
        return Platform(environ.get("AXIOM_PLATFORM") or Platform.EMBEDDED)
    except ValueError:
        raise ValueError(f"AXIOM_PLATFORM is one of {', '.join(Platform)}") from None


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise ValueError(f"{name} is not a port number (0 to 65535; 0 chooses a free one)")
    return int(text)


def _number(environ: Mapping[str, str], name: str, default: int, *, most: int) -> int:
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise ValueError(f"{name} is not a number from 1 to {most}")
    return int(text)


def _ae_title(environ: Mapping[str, str], name: str, default: str) -> str:
    try:
        return checked_ae_title(environ.get(name) or default)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
