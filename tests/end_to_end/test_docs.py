"""Every command that README.md and docs/ show works as shown.

Fenced `sh` blocks are run by bash against a running system, one page after the other in a folder
where `study.dcm` is a CT. A fenced `yaml` block whose first line is `# NAME.yaml` is that file.
Commands that run the whole system or all tests are asked for their help alone; other tests run
them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.data import build
from tests.running import API_KEY, RunningAxiom

# Its example needs a database and a file of its own: tests/unit/crosswalk/test_pages.py runs it.
TESTED_ELSEWHERE = {"crosswalk.md"}

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LONG = re.compile(r"(\./axiom (?:up|demo|test|bench|torture|rehearse)\b)[^\n|&;#]*")


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in _BLOCK.findall(page.read_text()) if found == language]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAxiom]:
    with RunningAxiom(tmp_path_factory.mktemp("docs") / "home") as running:
        yield running


@pytest.fixture
def system(running: RunningAxiom) -> RunningAxiom:
    """As a new home is configured, whatever the page before did."""
    running.configure(
        listeners=[],
        sources=[],
        destinations=[{"name": "primary-storage", "type": "filesystem", "path": "primary-storage"}],
        rulesets=[],
        settings={"default_route": ["primary-storage"], "min_free_bytes": 0},
    )
    return running


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page, "sh") and page.name not in TESTED_ELSEWHERE],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_commands_of_a_page_work(page: Path, system: RunningAxiom, tmp_path: Path) -> None:
    (tmp_path / "study.dcm").write_bytes(build.ct())
    (tmp_path / "axiom").symlink_to(ROOT / "axiom")
    if (ROOT / "docs" / "rules").is_dir():
        shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.md"))
    for text in blocks(page, "yaml"):
        if named := re.match(r"# (\S+\.yaml)\n", text):
            (tmp_path / named[1]).write_text(text)
    script = "\n".join(blocks(page, "sh"))
    script = _LONG.sub(r"\1 --help ", script)
    script = script.replace("http://localhost:8080", system.url).replace("KEY", API_KEY)
    # curl answers 0 for any HTTP status unless told otherwise.
    script = re.sub(r"\bcurl\b", "curl --fail-with-body --silent --show-error", script)
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={
            **os.environ,
            "AXIOM_HOME": str(system.home),
            "AXIOM_API_KEY": API_KEY,
            "AXIOM_DIMSE_PORT": str(system.dimse_port),
            "AXIOM_HTTP_PORT": str(system.addresses["http_port"]),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ran.returncode == 0, f"{script}\n---\n{ran.stdout}\n{ran.stderr}"
