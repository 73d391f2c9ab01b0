"""The shape that is rehearsed is the one that Terraform would make."""

from __future__ import annotations

import pytest

from infra.local.rehearse.shape import Shape
from tests.terraform.planning import MOST, Planner, needs_terraform

pytestmark = pytest.mark.timeout(480)


def test_what_is_rehearsed_is_what_is_planned(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> None:
    """Else: python -m infra.local.rehearse.shape PLAN.json, of a plan of MOST."""
    needs_terraform()
    shared = tmp_path_factory.getbasetemp()
    planner = Planner((shared if worker_id == "master" else shared.parent) / "plans")
    planned = Shape.of_plan(planner.plan(MOST, apply=True).document)
    assert Shape.read() == planned
