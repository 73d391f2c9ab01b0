"""Crash points: nothing without the variable, SIGKILL with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared import crash_points

REACH = "from shared import crash_points as c; c.reached(c.AFTER_SEND); print('alive')"


def reach(setting: str | None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != crash_points.VARIABLE}
    if setting is not None:
        environment[crash_points.VARIABLE] = setting
    return subprocess.run(
        [sys.executable, "-c", REACH],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    "setting", [None, "", "after-send-before-record:0", "after-commit-before-publish"]
)
def test_a_process_goes_on_where_nobody_wants_it_to_die(setting: str | None) -> None:
    assert reach(setting).stdout == "alive\n"


def test_a_process_dies_where_it_is_told_to() -> None:
    died = reach("after-commit-before-publish:0.5, after-send-before-record")
    assert died.returncode == -signal.SIGKILL
    assert died.stderr == "crash point after-send-before-record\n"
    assert died.stdout == ""


def test_an_unknown_crash_point_is_named() -> None:
    """A torture that kills nowhere proves nothing."""
    with pytest.raises(ValueError, match="after-lunch"):
        crash_points.parse("after-lunch:0.5")


def test_each_has_its_line_in_the_docs() -> None:
    """Whoever tortures the system has to know what there is to die at."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "reliability.md").read_text()
    assert {name for name in crash_points.NAMES if f"| `{name}` |" not in page} == set()
