"""Short ways to a Header, Facts and a condition's answer, for the tests of the rules."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from shared.dicom.header import Header
from shared.rules.condition_documents import read_conditions
from shared.rules.conditions import Plan, View
from shared.rules.decision import Facts
from shared.rules.reading import Faults
from shared.rules.sample import sample_header

KEY = b"a key of tests, 32 bytes at least"


def facts(**changes: Any) -> Facts:
    """The Facts of one C-STORE, with what differs."""
    usual: dict[str, Any] = {
        "source_type": "dimse",
        "source_name": "main",
        "calling_ae_title": "CT_1",
        "called_ae_title": "AXIOM",
        "peer_address": "10.1.2.3",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "size": 1_000_000,
        "received_at": datetime(2026, 11, 21, 12, 0, tzinfo=UTC),
    }
    return Facts(**{**usual, **changes})


def header(**attributes: Any) -> Header:
    """The Header of an Instance with these Attributes."""
    return sample_header(attributes)


def holds(condition: Any, attributes: dict[str, Any] | None = None, **changes: Any) -> bool:
    """Whether the condition, in any form, holds; it is read without a fault."""
    faults = Faults()
    read = read_conditions(condition, "condition", faults)
    assert list(map(str, faults)) == []
    plan = Plan()
    number = plan.number(read)
    return View(plan, sample_header(attributes or {}), facts(**changes)).holds(number)


def faults_of(condition: Any) -> list[str]:
    """What is wrong with a condition."""
    faults = Faults()
    read_conditions(condition, "condition", faults)
    return list(map(str, faults))
