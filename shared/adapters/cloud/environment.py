"""The settings of the cloud platform, read from the environment; docs/cloud.md lists them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from shared.pipeline.dicom_store_name import DicomStoreName

CERTS_URL = "https://www.googleapis.com/oauth2/v1/certs"
HEALTHCARE_ENDPOINT = "https://healthcare.googleapis.com"


class Oidc(StrEnum):
    """How the token of a caller is checked."""

    VERIFY = "verify"
    PLATFORM = "platform"  # Cloud Run has checked the signature and may have taken it away
    OFF = "off"


class CloudEnvironment(Struct, frozen=True):
    """All settings that the cloud platform alone has."""

    project: str
    bucket: str
    topic_prefix: str
    database: str
    secret_prefix: str
    oidc: Oidc
    audiences: tuple[str, ...]
    callers: tuple[str, ...]
    certs_url: str
    dicom_store: DicomStoreName | None
    landing_buckets: tuple[str, ...]
    storage_root: Path | None
    # Host and port of emulators, "" for Google's own servers.
    pubsub_emulator: str
    secret_manager_endpoint: str
    healthcare_endpoint: str
    # Where Gemini is asked, and which; "" for nowhere.
    vertex_location: str
    vertex_model: str

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> CloudEnvironment:
        """Raises: ValueError naming the setting that is wrong or missing."""
        oidc = _oidc(environ)
        pubsub_emulator = environ.get("PUBSUB_EMULATOR_HOST", "")
        if oidc is Oidc.OFF and not pubsub_emulator:
            raise ValueError("AXIOM_OIDC=off is for PUBSUB_EMULATOR_HOST alone")
        needs_callers = oidc is not Oidc.OFF
        store, root = environ.get("AXIOM_DICOM_STORE"), environ.get("AXIOM_STORAGE_ROOT")
        return cls(
            project=environ.get("AXIOM_PROJECT") or _needed(environ, "GOOGLE_CLOUD_PROJECT"),
            bucket=_needed(environ, "AXIOM_BUCKET"),
            topic_prefix=environ.get("AXIOM_TOPIC_PREFIX", ""),
            database=environ.get("AXIOM_DATABASE") or "(default)",
            secret_prefix=_secret_prefix(environ),
            oidc=oidc,
            audiences=_list(environ, "AXIOM_AUDIENCE", needed=needs_callers),
            callers=_list(environ, "AXIOM_CALLERS", needed=needs_callers),
            certs_url=environ.get("AXIOM_OIDC_CERTS_URL") or CERTS_URL,
            dicom_store=_dicom_store(store) if store else None,
            landing_buckets=_list(environ, "AXIOM_LANDING_BUCKETS"),
            storage_root=Path(root) if root else None,
            pubsub_emulator=pubsub_emulator,
            secret_manager_endpoint=environ.get("AXIOM_SECRET_MANAGER_ENDPOINT", ""),
            healthcare_endpoint=environ.get("AXIOM_HEALTHCARE_ENDPOINT") or HEALTHCARE_ENDPOINT,
            vertex_location=environ.get("AXIOM_VERTEX_LOCATION", ""),
            vertex_model=environ.get("AXIOM_VERTEX_MODEL", ""),
        )


def _needed(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        other = "AXIOM_PROJECT or " if name == "GOOGLE_CLOUD_PROJECT" else ""
        raise ValueError(f"AXIOM_PLATFORM=cloud needs {other}{name}")
    return value


def _list(environ: Mapping[str, str], name: str, *, needed: bool = False) -> tuple[str, ...]:
    values = tuple(filter(None, (one.strip() for one in environ.get(name, "").split(","))))
    if needed and not values:
        raise ValueError(f"AXIOM_PLATFORM=cloud needs {name}: without it nobody may call")
    return values


def _oidc(environ: Mapping[str, str]) -> Oidc:
    text = environ.get("AXIOM_OIDC") or Oidc.VERIFY
    try:
        return Oidc(text)
    except ValueError:
        raise ValueError(f"AXIOM_OIDC is one of {', '.join(Oidc)}") from None


def _secret_prefix(environ: Mapping[str, str]) -> str:
    prefix = environ.get("AXIOM_SECRET_PREFIX", "axiom-")
    if not re.fullmatch("[A-Za-z0-9_-]{0,64}", prefix):
        raise ValueError("AXIOM_SECRET_PREFIX has letters, digits, - and _ alone")
    return prefix


def _dicom_store(text: str) -> DicomStoreName:
    try:
        return DicomStoreName.parse(text)
    except ValueError as error:
        raise ValueError(f"AXIOM_DICOM_STORE: {error}") from None
