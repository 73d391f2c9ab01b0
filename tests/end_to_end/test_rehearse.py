"""The cloud's shape on this machine: functions, gateway, timers and Google's emulators."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.rehearse.run import Plan, drive
from infra.local.rehearse.system import System


@pytest.mark.timeout(600)
def test_nothing_is_lost_whoever_dies_lies_or_is_silent(rehearsed: System, tmp_path: Path) -> None:
    said: list[str] = []
    outcome = drive(rehearsed, tmp_path, Plan(instances=16, kills=2), said.append)
    failed = [claim for claim in outcome.claims if not claim.holds]
    assert (list(outcome.lost), failed) == ([], []), rehearsed.logs()
