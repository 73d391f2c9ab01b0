"""The cloud's shape on this machine: functions, gateway, timers and Google's emulators."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cost.counts import Counts
from infra.local.rehearse.counting import KINDS, count
from infra.local.rehearse.run import Plan, drive
from infra.local.rehearse.system import System


@pytest.mark.timeout(600)
def test_nothing_is_lost_whoever_dies_lies_or_is_silent(rehearsed: System, tmp_path: Path) -> None:
    said: list[str] = []
    outcome = drive(rehearsed, tmp_path, Plan(instances=16, kills=2), said.append)
    failed = [claim for claim in outcome.claims if not claim.holds]
    assert (list(outcome.lost), failed) == ([], []), rehearsed.logs()


def test_an_instance_asks_of_google_what_the_costs_are_made_of(rehearsed: System) -> None:
    """Else: python -m infra.cost count."""
    counted, known = count(rehearsed, 20), Counts.read().stages
    assert set(counted) == set(known)
    for stage, found in counted.items():
        for kind in KINDS:
            # Headers differ in length, and a clean-up asks some things once for all.
            near = pytest.approx(known[stage].get(kind, 0.0), rel=0.1, abs=0.2)
            assert found[kind] == near, (stage, kind)
