"""`./axiom` in a tree of its own: the first start, and all that may go wrong with it.

The tree is small: the launcher as it is, lock files that ask for nothing, and a command line that
says where it runs. So nothing is downloaded, and the repository's own environment is left alone.
"""

from __future__ import annotations

import ast
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.running import wait_until

ROOT = Path(__file__).resolve().parents[2]

_COMMAND_LINE = """
import json, os, sys
print(json.dumps({"prefix": sys.prefix, "words": sys.argv[1:], "cwd": os.getcwd(),
                  "path": sys.path[0]}))
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout, in a folder whose name has a space."""
    tree = tmp_path / "my checkout"
    (tree / "infra" / "local").mkdir(parents=True)
    for name in ("axiom", "infra/__init__.py", "infra/local/__init__.py"):
        shutil.copy(ROOT / name, tree / name)
    shutil.copy(ROOT / "infra/local/environment.py", tree / "infra/local/environment.py")
    (tree / "infra/local/cli.py").write_text(_COMMAND_LINE)
    (tree / "requirements.txt").write_text("# nothing\n")
    for lock in ("requirements-cloud.txt", "requirements-gemini.txt", "requirements-dev.txt"):
        (tree / lock).write_text("# nothing more\n")
    return tree


def environment(**settings: str) -> dict[str, str]:
    """Without what the environment that runs these tests says of Python."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return {**inherited, **settings}


def launch(
    tree: Path, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(tree / "axiom"), *words],
        cwd=cwd or tree,
        env=dict(env or environment()),
        capture_output=True,
        text=True,
        check=False,
    )


def said(launched: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert launched.returncode == 0, launched.stderr
    found: dict[str, Any] = json.loads(launched.stdout)
    return found


def test_first_start_makes_an_environment_and_the_next_says_nothing(tree: Path) -> None:
    first = launch(tree, "up", "--json")
    assert said(first)["prefix"] == str(tree / ".venv")
    assert said(first)["words"] == ["up", "--json"]
    assert "first start" in first.stderr
    assert launch(tree, "up").stderr == ""


def test_it_runs_from_anywhere_and_through_a_link(tree: Path, tmp_path: Path) -> None:
    """Paths that the user gives are relative to where the user is, not to the checkout."""
    launch(tree)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / "axiom"
    link.symlink_to(tree / "axiom")
    launched = subprocess.run(
        [str(link), "send", "a b.dcm"],
        cwd=elsewhere,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    found = said(launched)
    assert (found["cwd"], found["words"]) == (str(elsewhere), ["send", "a b.dcm"])
    assert found["prefix"] == str(tree / ".venv")


def test_what_lies_in_the_users_folder_is_not_imported(tree: Path, tmp_path: Path) -> None:
    """A folder of files from somebody else may hold an `infra` or a `json.py`."""
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the folder')\n")
    assert said(launch(tree, cwd=tmp_path))["path"] == str(tree)


def test_an_environment_whose_python_is_gone_is_made_again(tree: Path) -> None:
    """As after an upgrade of the system's Python."""
    launch(tree)
    (tree / ".venv" / "bin" / "python").unlink()
    again = launch(tree)
    assert said(again)["prefix"] == str(tree / ".venv")
    assert "first start" in again.stderr


def test_a_changed_lock_file_is_noticed(tree: Path) -> None:
    launch(tree)
    (tree / "requirements.txt").write_text("no-such-distribution-0a1b2c==1.0\n")
    launched = launch(tree, env=environment(PIP_NO_INDEX="1", UV_OFFLINE="1", UV_NO_INDEX="1"))
    assert launched.returncode == 1
    assert "no-such-distribution-0a1b2c" in launched.stderr
    (tree / "requirements.txt").write_text("# nothing again\n")
    assert said(launch(tree))


def test_an_environment_without_a_stamp_is_kept_if_it_holds_all(tree: Path) -> None:
    """One that a developer made; whoever uses it now must not lose it."""
    launch(tree)
    (tree / ".venv" / "axiom-requirements.stamp").unlink()
    mark = tree / ".venv" / "mine"
    mark.touch()
    assert launch(tree).stderr == ""
    assert mark.exists()


def test_an_interrupted_installation_starts_afresh(tree: Path) -> None:
    """Half an installation may look whole: its leftovers are not trusted."""
    launch(tree)
    (tree / ".venv.lock").write_text("installing\n")
    (tree / ".venv" / "axiom-requirements.stamp").unlink()
    leftover = tree / ".venv" / "leftover"
    leftover.touch()
    assert said(launch(tree))
    assert not leftover.exists()
    assert (tree / ".venv.lock").read_text() == ""


def test_a_launch_that_is_killed_while_it_installs_leaves_nothing_that_hinders(tree: Path) -> None:
    slow = tree / "slow"
    slow.mkdir()
    for name in ("uv", "python"):
        (slow / name).write_text("#!/bin/sh\nexec sleep 600\n")
        (slow / name).chmod(0o755)
    path = f"{slow}{os.pathsep}{os.environ['PATH']}"
    launched = subprocess.Popen(
        [sys.executable, str(tree / "axiom")],
        env=environment(PATH=path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_until(
        lambda: (lock := tree / ".venv.lock").exists() and lock.read_text(), 30.0, "the mark"
    )
    os.killpg(launched.pid, signal.SIGKILL)
    launched.communicate()
    assert said(launch(tree))["prefix"] == str(tree / ".venv")


def test_two_first_starts_at_once_make_one_environment(tree: Path) -> None:
    launched = [
        subprocess.Popen(
            [sys.executable, str(tree / "axiom"), str(number)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    answers = [process.communicate(timeout=100) for process in launched]
    assert [json.loads(out)["words"] for out, _ in answers] == [["0"], ["1"]]
    assert sum("first start" in err for _, err in answers) == 1


def test_a_start_waits_for_one_that_installs(tree: Path) -> None:
    with (tree / ".venv.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [sys.executable, str(tree / "axiom")],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        assert "waiting for another axiom" in waiting.stderr.readline()
    out, _ = waiting.communicate(timeout=100)
    assert json.loads(out)["prefix"] == str(tree / ".venv")


def test_tests_and_benches_get_what_they_need_besides(tree: Path) -> None:
    launch(tree, "up")
    launch(tree, "test", "--help")
    assert not (tree / ".venv" / "axiom-requirements-dev.stamp").exists()
    launch(tree, "--json", "test")
    assert (tree / ".venv" / "axiom-requirements-dev.stamp").exists()


def test_a_read_only_checkout_has_its_environment_in_the_cache(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of the module: to a privileged user, as in a container, no folder is read-only."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr("sys.stderr", open(os.devnull, "w"))  # noqa: SIM115
    from infra.local.environment import ready_python

    python = Path(ready_python(tree, development=False))
    assert python.is_relative_to(tmp_path / "cache" / "axiom-flow")
    assert python.exists()
    assert not (tree / ".venv").exists()


def test_every_old_python_can_read_the_launcher() -> None:
    """Its grammar must be one of long ago, or the message below is a SyntaxError instead."""
    ast.parse((ROOT / "axiom").read_text(), feature_version=(3, 4))


def test_an_old_python_is_told_what_is_needed(tree: Path) -> None:
    """With nothing newer on PATH. As if old: the check is the launcher's own."""
    code = (
        "import sys, runpy\n"
        "sys.version_info = (3, 8, 0, 'final', 0)\n"
        f"runpy.run_path({str(tree / 'axiom')!r}, run_name='__main__')\n"
    )
    launched = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(PATH=str(tree)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert launched.returncode == 1
    assert "needs Python 3.11 or newer" in launched.stderr


def test_a_start_after_the_first_costs_little(tree: Path) -> None:
    """Of the processor's time, which a busy machine does not add to; 0.06 s is what it takes."""
    launch(tree)

    def one_s() -> float:
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        launch(tree)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime

    assert min(one_s() for _ in range(5)) < 0.5
