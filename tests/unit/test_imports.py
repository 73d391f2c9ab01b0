"""What imports what: a stage's process waits for whatever it imports, at every cold start, and the
core knows neither cloud nor network nor database.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
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


_CORE = ("dicom", "rules", "standardize", "config", "pipeline", "messages", "errors", "ports")
_OUTSIDE = {
    *("flask", "functions_framework", "google", "grpc", "gunicorn", "h2", "http.client"),
    *("http.server", "httpx", "urllib.request"),
    *("opentelemetry", "prometheus_client", "psycopg", "pymssql", "pymysql", "pynetdicom"),
    *("requests", "shared.adapters", "socket", "sqlalchemy", "sqlite3", "ssl", "urllib3"),
    "werkzeug",
}


def test_the_core_imports_no_cloud_network_or_database_package() -> None:
    """Not within a function either."""
    modules = [
        path
        for path in (ROOT / "shared").rglob("*.py")
        if path.relative_to(ROOT / "shared").parts[0].removesuffix(".py") in _CORE
    ]
    assert len(modules) > 100
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules
        for name in _imported(ast.parse(path.read_text(encoding="utf-8")))
        if any(name == one or name.startswith(one + ".") for one in _OUTSIDE)
    }
    assert found == set()


def test_what_stages_work_with_knows_nothing_of_stages() -> None:
    below = ("dicom", "rules", "standardize", "config", "identity")
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in below
        for path in (ROOT / "shared" / folder).rglob("*.py")
        for name in _imported(ast.parse(path.read_text(encoding="utf-8")))
        if name == "shared.pipeline" or name.startswith("shared.pipeline.")
    }
    assert found == set()


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
