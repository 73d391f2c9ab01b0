"""A short run of `axiom torture`; long ones are for people and for the night."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from infra.local.torture.fairness import LEAST_RATIO
from infra.local.torture.run import Plan, torture

pytestmark = [pytest.mark.xdist_group("destruction"), pytest.mark.timeout(900)]


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """Whatever is killed, refused, delayed or doubled. An honest sender beside a hostile one comes
    through; how fast is told and not judged, for other tests take from its speed too.
    """
    outcome = torture(tmp_path, Plan(seconds=15, seed=20, fairness_rounds=1), print)
    trails = "\n".join(outcome.verdict.trails)
    assert not outcome.faults, f"{outcome.faults}\n{trails}"
    figures = outcome.as_json()
    assert figures["lost"] == 0
    assert figures["acknowledged"] == sum(
        figures[name] for name in ("delivered", "exceptions", "held", "lost")
    )
    # It was torture, and not a walk.
    assert figures["acknowledged"] > 100
    assert figures["kills"] >= 2
    assert outcome.fairness is not None
    assert outcome.fairness > 0
    if outcome.fairness < LEAST_RATIO:
        warnings.warn(f"an honest sender kept {outcome.fairness:.0%} of its speed", stacklevel=1)
