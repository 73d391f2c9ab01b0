"""Plans of the repository's Terraform, made without a cloud by `../shared/tfcheck`."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TFCHECK = ROOT.parent / "shared" / "tfcheck" / "tfcheck"

_QUIET: Mapping[str, Any] = {
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
    "check": False,
}
_DIGEST = "sha256:" + "a" * 64
_REGISTRY = "europe-west1-docker.pkg.dev/demo-project/axiom"
IMAGES = {
    "functions": f"{_REGISTRY}/functions@{_DIGEST}",
    "gateway": f"{_REGISTRY}/gateway@{_DIGEST}",
}
LEAST: Mapping[str, Any] = {"project": "demo-project", "region": "europe-west1", "images": IMAGES}
# Everything that can be asked for.
MOST: Mapping[str, Any] = {
    **LEAST,
    "labels": {"cost-centre": "radiology"},
    "gateway": {
        "host": "machines",
        "modalities": ["10.1.0.0/16"],
        "more_ports": [2762, 11113],
        "address": "10.20.0.10",
        "instances": 2,
    },
    "http": {
        "people": ["group:it@example.org"],
        "from": "load-balancer",
        "front": {
            "kind": "internal",
            "domain": "dicom.example.org",
            "certificate": "projects/demo-project/locations/europe-west1/certificates/dicom",
        },
    },
    "destinations": {"pacs": {}, "archive": {"at_most_attempts": 10}},
    "landing": {"enabled": True, "uploaders": ["group:research@example.org"]},
    "dicom_stores": {"research": {}, "modality": {"is_source": True}},
    "expiring_buckets": ["demo-project-cold-images"],
    "identity": {
        "audiences": ["axiom-flow"],
        "issuer": "https://issuer.example.org",
        "admin_email": "it@example.org",
        "login": {
            "client_id": "our-client",
            "client_secret": "oidc-client",
            "public_url": "https://dicom.example.org",
        },
    },
    "storage": {"tiers_days": {"nearline": 30, "archive": 365}},
    "kms_key": {"id": "projects/demo-project/locations/europe-west1/keyRings/r/cryptoKeys/k"},
    "alerts": {"emails": ["it@example.org"], "thresholds": {"delivery_s": 30}},
    "builds": {
        "repository": "projects/demo-project/locations/europe-west1/connections/c/repositories/r",
        **{
            f"{what}_account": f"axiom-{what}@demo-project.iam.gserviceaccount.com"
            for what in ("plan", "build", "deploy")
        },
    },
    "data_access_logs": True,
    "perimeter": {
        "access_policy": "123456789",
        "access_levels": ["accessPolicies/123456789/accessLevels/hospital"],
        "enforced": True,
    },
    "telemetry": {"endpoint": "https://telemetry.googleapis.com", "trace_sampling": 0.25},
    "audit_syslog": {
        "url": "tls://repository.example.org:6514",
        "authorities": "audit-authorities",
        "certificate": "audit-certificate",
        "private_key": "audit-private-key",
    },
    "budget": {"billing_account": "012345-6789AB-CDEF01", "monthly_amount": 500},
}


def needs_terraform() -> None:
    """Skip the test where there is no Terraform."""
    if shutil.which("terraform") is None or not TFCHECK.is_file() or _python() is None:
        pytest.skip("terraform and ../shared/tfcheck are not there")


@cache
def _python() -> str | None:
    """A Python that tfcheck can install its packages with at its first run: one with pip."""
    for python in (getattr(sys, "_base_executable", ""), shutil.which("python3"), sys.executable):
        if python and not subprocess.run([python, "-m", "pip", "--version"], **_QUIET).returncode:
            return str(python)
    return None


class Plan:
    """What Terraform would make, and what it knows of that before."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.changes: Sequence[Mapping[str, Any]] = [
            change for change in document["resource_changes"] if change["mode"] == "managed"
        ]

    def of_type(self, *types: str) -> dict[str, Mapping[str, Any]]:
        """Resources of these types by their addresses."""
        return {
            change["address"]: change["change"]["after"]
            for change in self.changes
            if change["type"] in types
        }

    def all(self) -> dict[str, tuple[Any, Any]]:
        """All resources by their addresses: what is known of each, and what is not known yet."""
        return {
            change["address"]: (change["change"]["after"], change["change"]["after_unknown"])
            for change in self.changes
        }

    def functions(self) -> dict[str, Mapping[str, Any]]:
        """The services of Cloud Run by the folders of their entry points."""
        services = self.of_type("google_cloud_run_v2_service").values()
        return {environment(service)["FUNCTION_TARGET"]: service for service in services}


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """What a service or worker pool is told in its environment; "" for what comes from a secret."""
    (container,) = service["template"][0]["containers"]
    return {entry["name"]: entry["value"] or "" for entry in container["env"]}


class Planner:
    """Makes each plan once, however many processes test: its results are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def plan(self, variables: Mapping[str, Any], root: Path = ROOT, *, apply: bool = False) -> Plan:
        """Plan, and with `apply` apply without a cloud, after which the next plan must be empty.

        Raises: AssertionError with Terraform's own words.
        """
        name = hashlib.sha256(json.dumps([variables, str(root)], sort_keys=True).encode())
        made = self._folder / f"{name.hexdigest()}.json"
        with made.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                options = ["--apply"] if apply else []
                partial = made.with_suffix(".new")
                tfcheck(root, *options, "--json", str(partial), variables=variables)
                partial.replace(made)
        return Plan(json.loads(made.read_text(encoding="utf-8")))


def tfcheck(folder: Path, *options: str, variables: Mapping[str, Any] | None = None) -> str:
    """Run tfcheck there. Raises: AssertionError with what it said if it finds a fault."""
    python = _python()
    assert python is not None
    with tempfile.NamedTemporaryFile("w", suffix=".tfvars.json") as file:
        json.dump(variables or {}, file)
        file.flush()
        given = [] if variables is None else ["--var-file", file.name]
        ran = subprocess.run(
            [python, TFCHECK, folder, *options, *given],
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
