"""The shape that is rehearsed is the one that Terraform would make."""

from __future__ import annotations

import pytest

from infra.local.rehearse.shape import Shape
from shared.adapters.cloud import (
    dicom_store,
    document_store,
    landing,
    object_store,
    secret_store,
)
from shared.adapters.cloud.message_bus import terraform_address
from shared.messages import Topic
from tests.terraform.planning import MOST, Plan, Planner, needs_terraform

pytestmark = pytest.mark.timeout(480)

ADDRESSES = (
    document_store.INDEX_ADDRESS,
    document_store.TERRAFORM_ADDRESS,
    object_store.TERRAFORM_ADDRESS,
    landing.TERRAFORM_ADDRESS,
    secret_store.TERRAFORM_ADDRESS,
    dicom_store.TERRAFORM_ADDRESS,
    *map(terraform_address, Topic),
)


@pytest.fixture
def plan(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Plan:
    """Of everything that can be asked for; made once."""
    needs_terraform()
    shared = tmp_path_factory.getbasetemp()
    planner = Planner((shared if worker_id == "master" else shared.parent) / "plans")
    return planner.plan(MOST, apply=True)


def test_what_is_named_as_not_applied_is_what_terraform_calls_it(plan: Plan) -> None:
    planned = [
        address.replace("module.healthcare[0]", "module.healthcare") for address in plan.all()
    ]
    unknown = [one for one in ADDRESSES if not any(found.startswith(one) for found in planned)]
    assert not unknown


def test_what_is_rehearsed_is_what_is_planned(plan: Plan) -> None:
    """Else: python -m infra.local.rehearse.shape PLAN.json, of a plan of MOST."""
    assert Shape.read() == Shape.of_plan(plan.document)
