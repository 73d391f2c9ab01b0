"""What a stage's process does not import, it does not wait for: cold starts are paid each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_WEB = {"api", "dicomweb"}
_STAGES = sorted(path.parent.name for path in ROOT.glob("functions/*/main.py"))
_HEAVY = (
    "flask",
    "google.api_core",
    "numpy",
    "opentelemetry",
    "pydicom",
    "pynetdicom",
    "requests",
    "sqlalchemy",
    "ssl",
)
_PROGRAM = """
import importlib, sys
from shared import bootstrap
for stage in sys.argv[2:]:
    importlib.import_module(f"functions.{stage}.main")
# What the embedded system runs them with.
import infra.local.timer, infra.local.work
bootstrap.from_environment()
found = sorted(set(sys.argv[1].split()) & set(sys.modules))
assert not found, found
"""


def test_stages_import_neither_pydicom_nor_a_web_or_cloud_package(tmp_path: Path) -> None:
    stages = [stage for stage in _STAGES if stage not in _WEB]
    assert "validate_instance" in stages
    subprocess.run(
        [sys.executable, "-c", _PROGRAM, " ".join(_HEAVY), *stages],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AXIOM_HOME": str(tmp_path / "home")},
    )
