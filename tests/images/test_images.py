"""What the images would hold, and that entry points run from nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import werkzeug.test

from infra.images.pushes import pushed_to
from infra.images.tree import ROOT, Ignored, build, stages
from tests.peers import free_port
from tests.running import wait_until

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/main.py"))


@pytest.fixture(scope="module")
def functions_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the functions' image."""
    tree = tmp_path_factory.mktemp("functions")
    build("functions", tree)
    return tree


def inside(tree: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    """Start a command of the image with nothing of ours but the tree."""
    stage = stages(DOCKERFILE)["functions"]
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=tree / "opt" / "axiom",
        env={
            **{k: v for k, v in stage.environment.items() if k not in ("PATH", "AXIOM_PLATFORM")},
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(tree / "opt" / "axiom"),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def served(tree: Path, function: str, home: Path) -> Iterator[str]:
    """A function from the image, as its entry point starts it; on one machine's adapters."""
    port = free_port()
    stage = stages(DOCKERFILE)["functions"]
    settings = {"FUNCTION_TARGET": function, "PORT": str(port), "AXIOM_HOME": str(home)}
    process = inside(tree, *stage.entry_point[1:], **settings)
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_until(lambda: process.poll() is not None or answers(url), within_s=60)
        if process.poll() is not None:
            assert process.stdout is not None
            pytest.fail(process.stdout.read())
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=60)


def answers(url: str) -> bool:
    """True if something listens there."""
    try:
        urllib.request.urlopen(url, timeout=10)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def is_well(url: str) -> bool:
    """True if 200 is what is answered there."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class TestFunctions:
    def test_answers_a_push_from_nothing_but_the_image(
        self, functions_tree: Path, tmp_path: Path
    ) -> None:
        with served(functions_tree, "validate_instance", tmp_path / "home") as url:
            push = urllib.request.Request(
                url, b'{"message": {"data": "bm90IGEgbWVzc2FnZQ=="}}', method="POST"
            )
            with urllib.request.urlopen(push, timeout=60) as answer:
                # Recorded in the exception log, since it is no message of ours.
                assert answer.status == 204

    def test_every_entry_point_finds_all_that_it_imports(self, functions_tree: Path) -> None:
        imports = "; ".join(f"import functions.{name}.main" for name in FUNCTIONS)
        every_module = (
            "import pkgutil, importlib, shared\n"
            "for module in pkgutil.walk_packages(shared.__path__, 'shared.'):\n"
            "    if not module.name.startswith('shared.adapters.cloud.gemini'):\n"
            "        importlib.import_module(module.name)"
        )
        process = inside(functions_tree, "-c", f"{imports}\n{every_module}")
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said

    def test_an_unknown_function_is_named_at_once(self, functions_tree: Path) -> None:
        process = inside(functions_tree, "-m", "infra.images.serve", FUNCTION_TARGET="../shared")
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert said.strip() == "FUNCTION_TARGET is not the name of a function"


class TestPushes:
    @pytest.mark.parametrize(
        ("method", "body", "expected"),
        [("POST", b"abc", 204), ("GET", b"", 405), ("POST", bytes(17 << 20), 413)],
    )
    def test_reach_the_entry_point_as_they_are(
        self, method: str, body: bytes, expected: int
    ) -> None:
        came: list[tuple[str | None, bytes]] = []

        def entry_point(request: Any) -> tuple[str, int, dict[str, str]]:
            came.append((request.headers.get("X-Goog-PubSub-Message-Id"), request.get_data()))
            return "", 204, {}

        answer = werkzeug.test.Client(pushed_to(entry_point)).open(
            "/any", method=method, data=body, headers={"x-goog-pubsub-message-id": "7"}
        )
        assert answer.status_code == expected
        assert came == ([("7", b"abc")] if expected == 204 else [])


class TestGateway:
    def test_finds_all_that_it_imports(self, tmp_path: Path) -> None:
        stage = build("gateway", tmp_path)
        assert stage.entry_point == ["python", "-m", "scp_gateway.main"]
        process = inside(tmp_path, "-c", "import scp_gateway.main")
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said

    def test_takes_associations_and_says_so(self, tmp_path: Path) -> None:
        stage = build("gateway", tmp_path / "tree")
        health, dimse = free_port(), free_port()
        settings = {
            "AXIOM_HOME": str(tmp_path / "home"),
            "AXIOM_DIMSE_HOST": "127.0.0.1",
            "AXIOM_DIMSE_PORT": str(dimse),
            "AXIOM_HEALTH_PORT": str(health),
        }
        process = inside(tmp_path / "tree", *stage.entry_point[1:], **settings)
        try:
            wait_until(
                lambda: process.poll() is not None or is_well(f"http://127.0.0.1:{health}/health"),
                within_s=60,
            )
            with socket.create_connection(("127.0.0.1", dimse), timeout=30):
                pass
        finally:
            process.terminate()
            said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said


class TestContents:
    def test_are_code_and_its_data_alone(self, functions_tree: Path) -> None:
        kinds = {path.suffix for path in functions_tree.rglob("*") if path.is_file()}
        assert kinds <= {".py", ".csv", ".json", ".txt", ".html", ".yaml", ".typed"}, kinds
        assert not list(functions_tree.rglob("tests"))

    def test_leave_out_what_dockerignore_says(self) -> None:
        ignored = Ignored.read(ROOT / ".dockerignore")
        for path in (".git/config", "tests/conftest.py", ".axiom/secrets/key", "shared/a/b.pyc"):
            assert ignored.leaves_out(path), path
        for path in ("shared/ports.py", "infra/images/serve.py", "requirements.txt"):
            assert not ignored.leaves_out(path), path


class TestDockerfile:
    @pytest.mark.parametrize("target", ["functions", "gateway"])
    def test_runs_as_nobody(self, target: str) -> None:
        assert stages(DOCKERFILE)[target].user == "65532:65532"

    def test_has_bytecode_that_is_never_checked_again(self) -> None:
        compiled = re.findall(r"compileall .*--invalidation-mode (\S+)", DOCKERFILE)
        assert compiled == ["unchecked-hash", "unchecked-hash"]

    def test_has_the_python_that_the_locks_are_for(self) -> None:
        for image in re.findall(r"^FROM (python:\S+)", DOCKERFILE, re.M):
            assert image == "python:3.11-slim-bookworm"

    def test_passes_hadolint(self) -> None:
        hadolint = shutil.which(
            "hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        )
        if hadolint is None:
            pytest.skip("hadolint is not installed")
        ran = subprocess.run(
            [hadolint, "--format", "json", ROOT / "Dockerfile"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert json.loads(ran.stdout) == []
