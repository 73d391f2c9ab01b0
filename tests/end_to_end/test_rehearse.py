"""The cloud's shape on this machine: functions, gateway and Google's emulators."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from infra.local.rehearse import emulators


@pytest.mark.timeout(600)
def test_a_ct_comes_through_although_a_function_dies_on_the_way(tmp_path: Path) -> None:
    if not emulators.are_installed():
        pytest.skip("Google's emulators are not installed")
    if shutil.which("storescu") is None:
        pytest.skip("storescu is not installed")
    from infra.local.rehearse.run import rehearse

    said: list[str] = []
    outcome = rehearse(tmp_path, 12, said.append)
    logs = "".join(
        f"\n---- {log.name}\n{log.read_text()[-2000:]}" for log in tmp_path.glob("*.log")
    )
    # How long each process took to end is for people: a busy machine has nothing to do with us.
    assert (outcome.acknowledged, outcome.lost, outcome.altered) == (True, 0, 0), logs
    assert outcome.exceptions == {"malformed-message": outcome.poisoned}, logs
