"""The machine's clock, and the one that tests have a whole system live by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shared.adapters.embedded.clock import (
    JUMP_EVERY_S,
    VARIABLE,
    JumpingClock,
    SystemClock,
    system_clock,
)


def test_the_clock_is_the_machine_s_unless_a_test_says_otherwise() -> None:
    assert type(system_clock({})) is SystemClock
    assert isinstance(system_clock({VARIABLE: "60"}), JumpingClock)
    with pytest.raises(ValueError, match="soon"):
        system_clock({VARIABLE: "soon"})


def test_a_jumping_clock_is_off_by_another_amount_each_time_and_the_same_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [1000.0]
    one, other = JumpingClock(3600), JumpingClock(3600)
    for clock in (one, other):
        monkeypatch.setattr(clock, "monotonic_s", lambda: now_s[0])
    offsets = []
    for _ in range(50):
        off = one.now() - datetime.now(UTC)
        assert abs(off) <= timedelta(seconds=3601)
        assert abs(other.now() - one.now()) < timedelta(seconds=60)
        offsets.append(off)
        now_s[0] += JUMP_EVERY_S
    assert max(offsets) - min(offsets) > timedelta(seconds=3600)
