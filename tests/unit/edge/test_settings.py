"""What a gateway on premises is told, and how fast it sends."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.edge.environment import EdgeEnvironment
from shared.edge.pace import Pace
from tests.fakes import FakeClock

SETTINGS = {
    "AXIOM_PLATFORM": "cloud",
    "AXIOM_GATEWAY_SPOOL": "/spool",
    "AXIOM_INSTANCE": "clinic-1",
}


def test_without_a_spool_it_is_a_gateway_in_the_cloud() -> None:
    assert EdgeEnvironment.read({"AXIOM_PLATFORM": "cloud"}) is None


def test_the_rest_has_defaults() -> None:
    assert EdgeEnvironment.read(SETTINGS) == EdgeEnvironment(Path("/spool"), "clinic-1", 4, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AXIOM_PLATFORM", "embedded"),
        ("AXIOM_INSTANCE", ""),
        ("AXIOM_INSTANCE", "two words"),
        ("AXIOM_INSTANCE", "../up"),
        ("AXIOM_GATEWAY_UPLOADS", "0"),
        ("AXIOM_GATEWAY_UPLOADS", "65"),
        ("AXIOM_GATEWAY_UPLOAD_BYTES_PER_S", "-1"),
        ("AXIOM_GATEWAY_UPLOAD_BYTES_PER_S", "1M"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        EdgeEnvironment.read({**SETTINGS, name: value})


def test_all_uploads_together_keep_to_the_pace() -> None:
    clock = FakeClock()
    pace = Pace(1000, clock, sleep=clock.advance)
    began_s = clock.monotonic_s()
    for _ in range(10):
        pace.take(500)
    assert clock.monotonic_s() - began_s == pytest.approx(4.5)  # the first goes at once
    clock.advance(3600)  # a pause is no credit
    began_s = clock.monotonic_s()
    for _ in range(3):
        pace.take(500)
    assert clock.monotonic_s() - began_s == pytest.approx(1.0)


def test_without_a_limit_nobody_waits() -> None:
    clock = FakeClock()
    Pace(0, clock, sleep=clock.advance).take(1 << 40)
    assert clock.monotonic_s() == FakeClock().monotonic_s()
