"""A study rule in the running system: its restart, and a person's word."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data import build
from tests.platforms import stow
from tests.running import RunningAxiom, wait_until

RULES = {
    "name": "studies",
    "rules": [
        {
            "name": "by-hand",
            "level": "study",
            "completion": {"quiet_period_s": 86400},
            "conditions": [{"StudyDescription": "BY HAND"}],
            "destinations": ["by-hand"],
        },
    ],
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAxiom]:
    with RunningAxiom(tmp_path_factory.mktemp("studies") / "home") as running:
        running.configure(
            destinations=[
                {"name": name, "type": "filesystem", "path": name}
                for name in ("primary-storage", "by-hand")
            ],
            rulesets=[RULES],
            settings={"default_route": ["primary-storage"], "min_free_bytes": 0},
        )
        numbers = itertools.count()

        def follows() -> bool:
            # What comes before the stages have looked takes the default route.
            send(running, f"before-{next(numbers)}", "BY HAND", 1)
            return bool(running.get_all("/api/v1/studies"))

        wait_until(follows, what="the rules to count", every_s=0.3)
        yield running


def send(running: RunningAxiom, study: str, description: str, count: int) -> None:
    """Store Instances of one Study over STOW-RS (PS3.18 10.5)."""
    change = {0x00081030: build.element(0x00081030, "LO", description)}
    answer = stow(
        running,
        *(
            build.ct(instance=f"{study}-{number}", study=study, changes=change)
            for number in range(count)
        ),
    )
    assert answer.status_code < 300, answer.text


def stored(running: RunningAxiom, destination: str, study: str) -> int:
    folder: Path = running.home / "storage" / destination / build.uid(study)
    return len(list(folder.rglob("*.dcm")))


def test_what_waits_survives_a_death_and_a_person_ends_the_waiting(running: RunningAxiom) -> None:
    send(running, "two", "BY HAND", 2)
    uid = build.uid("two")

    def collecting() -> int:
        return len(running.get_all("/api/v1/instances", state="collecting", study_uid=uid))

    wait_until(lambda: collecting() == 2, what="the Instances to be collected")
    running.kill()
    running.start()
    assert collecting() == 2
    assert running.request("POST", f"/api/v1/studies/{uid}/complete").status_code == 202
    wait_until(lambda: stored(running, "by-hand", "two") == 2, what="the study completed by hand")
    send(running, "two", "BY HAND", 3)
    wait_until(lambda: stored(running, "by-hand", "two") == 3, what="the late Instance")
    assert stored(running, "primary-storage", "two") == 0
