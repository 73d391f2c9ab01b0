"""`axiom demo`: what a stranger runs first must hold, and say so in both ways."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from infra.local.demo.plan import EXHIBITS
from tests.running import ROOT


def test_the_demo_proves_what_it_shows(tmp_path: Path) -> None:
    output = tmp_path / "demo output"
    ran = subprocess.run(
        [sys.executable, "-m", "infra.local.cli", "demo", "--json", "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads(ran.stdout)
    assert told["ok"] is True
    assert [instance["file"] for instance in told["instances"]] == [e.file for e in EXHIBITS]
    # What arrived stays; the homes, which hold the demo's secrets, do not.
    assert {path.name for path in output.iterdir()} == {
        "archive",
        "log.jsonl",
        "pacs",
        "sent",
        "web",
    }
