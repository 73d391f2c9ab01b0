"""What checkov finds in the Terraform; `.checkov.yaml` gives the reason for each exception."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.terraform.planning import ROOT


@pytest.mark.timeout(480)
def test_finds_nothing() -> None:
    """It asks for older versions of what we use, and so has an environment of its own."""
    checkov = os.environ.get("AXIOM_CHECKOV") or shutil.which("checkov")
    if checkov is None:
        pytest.skip("checkov is not installed")
    ran = subprocess.run(
        [checkov, "--directory", ROOT, "--config-file", ROOT / ".checkov.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
