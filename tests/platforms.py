"""The product from outside, whichever platform it runs on: DICOM, HTTP, and what it delivers.

Tests that ask no more than this run on both.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any, Protocol

import pydicom
import requests
from pynetdicom import AE

from infra.local.rehearse.configuring import configure
from infra.local.rehearse.system import System
from tests.associations import established
from tests.data import build
from tests.google.cloud_storage import Objects
from tests.running import RunningAxiom


class Asked(Protocol):
    """Whoever answers over DICOM and HTTP."""

    @property
    def dimse_port(self) -> int:
        """Of the gateway."""

    def request(self, method: str, path: str, **given: Any) -> requests.Response:
        """As the administrator, unless `headers` say somebody else."""


class Platform(Asked, Protocol):
    """One of both. It is shared by tests, each of which configures all parts that it needs, and
    names its Instances and destinations as nobody else does.
    """

    name: str

    def get_all(self, path: str, **query: str) -> list[dict[str, Any]]:
        """All entries of a paged list."""

    def configure(self, **parts: Any) -> None:
        """Replace parts of the configuration, and return when every process follows it."""

    def keeper(self, name: str, **more: Any) -> dict[str, Any]:
        """A destination of this name that keeps what comes."""

    def kept(self, name: str) -> Mapping[str, bytes]:
        """What has come there, by SOP Instance UID."""


class Embedded:
    """`./axiom up`, which delivers into folders."""

    name = "embedded"

    def __init__(self, running: RunningAxiom) -> None:
        self._running = running
        self.request, self.get_all = running.request, running.get_all
        self.configure = running.configure

    @property
    def dimse_port(self) -> int:
        """As Asked."""
        return self._running.dimse_port

    def keeper(self, name: str, **more: Any) -> dict[str, Any]:
        """As Platform."""
        return {"name": name, "type": "filesystem", "path": name, **more}

    def kept(self, name: str) -> Mapping[str, bytes]:
        """As Platform."""
        folder = self._running.home / "storage" / name
        return {path.stem: path.read_bytes() for path in folder.rglob("*.dcm")}


class Cloud:
    """The rehearsed cloud, which delivers into buckets."""

    name = "cloud"

    def __init__(self, system: System) -> None:
        self._system = system
        self.get_all = system.listed

    @property
    def dimse_port(self) -> int:
        """As Asked."""
        return self._system.gateway.port

    def request(self, method: str, path: str, **given: Any) -> requests.Response:
        """As Asked."""
        return self._system.request(method, path, **given)

    def configure(self, **parts: Any) -> None:
        """As Platform."""
        configure(self._system, **parts)

    def keeper(self, name: str, **more: Any) -> dict[str, Any]:
        """As Platform."""
        bucket = f"kept-{name}"
        self._system.storage.buckets.setdefault(bucket, Objects(bucket))
        return {"name": name, "type": "gcs", "bucket": bucket, **more}

    def kept(self, name: str) -> Mapping[str, bytes]:
        """As Platform."""
        objects = self._system.storage.buckets[f"kept-{name}"].all()
        return {PurePosixPath(path).stem: data for path, data in objects.items()}


def fresh(name: str) -> str:
    """A name that nobody has used."""
    return f"{name}-{secrets.token_hex(4)}"


def c_store(asked: Asked, data: bytes) -> int:
    """The Status of the answer."""
    entity = AE("MODALITY")
    for sop_class in (build.CT_IMAGE_STORAGE, build.MR_IMAGE_STORAGE):
        entity.add_requested_context(sop_class, build.EXPLICIT_VR_LITTLE_ENDIAN)
    association = established(entity, asked.dimse_port)
    try:
        return int(association.send_c_store(pydicom.dcmread(BytesIO(data))).Status)
    finally:
        association.release()


def stow(asked: Asked, *instances: bytes, study: str = "", **headers: str) -> requests.Response:
    """Store them over STOW-RS (PS3.18 10.5)."""
    parts = b"".join(
        b"--B\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n" for data in instances
    )
    content_type = 'multipart/related; type="application/dicom"; boundary=B'
    return asked.request(
        "POST",
        f"/api/v1/dicomweb/studies{study and '/'}{study}",
        data=parts + b"--B--\r\n",
        headers={"Content-Type": content_type, "Accept": "application/dicom+json", **headers},
    )
