"""Schedules that rulesets share by name, through the whole system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.errors import InvalidConfigurationError
from tests.embedded_system import System

NIGHTS = {"name": "nights", "timezone": "Europe/Berlin", "start": "20:00", "end": "07:00"}


def configured(tmp_path: Path, schedule: dict[str, Any], **ruleset: Any) -> System:
    system = System(tmp_path / "home")
    system.ports.configuration.apply(
        {
            "schedules": [schedule],
            "rulesets": [
                {
                    "name": "night-hold",
                    "rules": [
                        {
                            "name": "hold",
                            "schedule": "nights",
                            "conditions": [],
                            "actions": [{"type": "hold", "reason": "nobody reads at night"}],
                        }
                    ],
                    **ruleset,
                }
            ],
        },
        by="test",
    )
    system.clock.advance(1)
    return system


def test_a_rule_is_in_force_in_the_hours_of_the_schedule_that_it_names(tmp_path: Path) -> None:
    system = configured(tmp_path, NIGHTS)
    states = {}
    for hour in range(24):
        receipt = system.receive(f"at-{hour}")
        system.work()
        states[receipt.received_at.astimezone().astimezone(_berlin()).hour] = system.state(receipt)
        system.clock.advance(3600)
    assert states == {h: "held" if h >= 20 or h < 7 else "routed" for h in range(24)}


def test_a_changed_schedule_counts_for_the_next_instance(tmp_path: Path) -> None:
    system = configured(tmp_path, {**NIGHTS, "start": "00:00", "end": "00:00"})
    first = system.receive("first")
    system.work()
    # No day begins a window any more.
    system.ports.configuration.apply(
        {"schedules": [{**NIGHTS, "dates_on": ["2020-01-01"]}]}, by="test"
    )
    system.clock.advance(1)
    second = system.receive("second")
    system.work()
    assert (system.state(first), system.state(second)) == ("held", "routed")


def test_a_schedule_of_the_ruleset_s_own_comes_first(tmp_path: Path) -> None:
    never = {"timezone": "UTC", "dates_on": ["2020-01-01"]}
    always = {**NIGHTS, "start": "00:00", "end": "00:00"}
    system = configured(tmp_path, always, schedules={"nights": never})
    receipt = system.receive()
    system.work()
    assert system.state(receipt) == "routed"


@pytest.mark.parametrize(
    ("schedules", "path", "words"),
    [
        ([], "rulesets[0].rules[0].schedule", "no schedule 'nights'"),
        ([{**NIGHTS, "name": "night"}], "rulesets[0].rules[0].schedule", "did you mean night?"),
        ([{**NIGHTS, "timezone": "Europe/Berlim"}], "schedules[0]", "timezone"),
        ([{**NIGHTS, "start": "25:00"}], "schedules[0]", "start"),
        ([{**NIGHTS, "begin": "20:00"}], "schedules[0].begin", ""),
        ([NIGHTS, NIGHTS], "schedules[1].name", "is there twice"),
    ],
)
def test_what_is_wrong_is_told_once_and_changes_nothing(
    tmp_path: Path, schedules: list[dict[str, Any]], path: str, words: str
) -> None:
    system = configured(tmp_path, NIGHTS)
    with pytest.raises(InvalidConfigurationError) as caught:
        system.ports.configuration.apply({"schedules": schedules}, by="test")
    assert [(f.path, words in str(f)) for f in caught.value.faults] == [(path, True)]


def _berlin() -> Any:
    from zoneinfo import ZoneInfo

    return ZoneInfo("Europe/Berlin")
