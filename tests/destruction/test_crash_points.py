"""Death at every named place: what was acknowledged arrives, and once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from functions.apply_rules.main import apply_rules
from functions.deliver_instance.main import deliver_instance
from functions.record_exception.main import record_exception
from functions.validate_instance.main import validate_instance
from shared import bootstrap, crash_points
from shared.adapters.embedded.message_bus import SqliteMessageBus
from shared.messages import Source, Topic
from shared.pipeline.ports import Ports
from shared.pipeline.push import MESSAGE_ID_HEADER, PushRequest, PushResponse
from tests.data import build

EntryPoint = Callable[[PushRequest], PushResponse]

ENTRY_POINTS: dict[str, EntryPoint] = {
    Topic.INSTANCE_RECEIVED: cast(EntryPoint, validate_instance),
    Topic.INSTANCE_ACCEPTED: cast(EntryPoint, apply_rules),
    Topic.DELIVERY_REQUESTED: cast(EntryPoint, deliver_instance),
    Topic.EXCEPTION_RAISED: cast(EntryPoint, record_exception),
}
IN_THE_PIPELINE = (
    crash_points.AFTER_COMMIT,
    crash_points.AFTER_PUBLISH,
    crash_points.AFTER_DECISION,
    crash_points.AFTER_STAGE,
    crash_points.AFTER_SEND,
    crash_points.AFTER_RECORD,
)
RULESET = {
    "name": "r",
    "rules": [
        {
            "name": "ct",
            "conditions": [{"type": "tag_equals", "tag": "Modality", "value": "CT"}],
            "actions": [{"type": "set", "tag": "SeriesDescription", "value": "CHANGED"}],
            "storage_backends": ["primary-storage"],
        }
    ],
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose rules change what comes."""
    monkeypatch.setenv("AXIOM_HOME", str(tmp_path))
    bootstrap.from_environment.cache_clear()
    first = bootstrap.embedded(bootstrap.Environment.read({"AXIOM_HOME": str(tmp_path)}))
    settings = {"default_route": ["primary-storage"], "min_free_bytes": 0}
    first.configuration.apply({"settings": settings, "rulesets": [RULESET]}, by="test")
    yield tmp_path
    bootstrap.from_environment.cache_clear()


def dies_at(name: str, work: Callable[[], object]) -> None:
    """Run `work` in a process of its own, which must die at that place and not return."""
    child = os.fork()
    if child == 0:
        crash_points._points = {name: 1.0}
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def send(ports: Ports) -> None:
    """Returning is what the sender is answered after."""
    with ports.receiver.begin(Source("dimse", "main", calling_ae_title="CT1")) as staging:
        staging.write(build.ct())
        staging.commit()


def pump(ports: Ports) -> None:
    """Hand every message to its entry point until the queue is empty."""
    bus = ports.bus
    assert isinstance(bus, SqliteMessageBus)
    bus.reclaim()
    while leased := bus.lease(list(ENTRY_POINTS), limit=1, lease_s=60):
        request = PushRequest(leased[0].data, {MESSAGE_ID_HEADER: str(leased[0].message_id)})
        assert ENTRY_POINTS[leased[0].topic](request)[1] == 204
        bus.settle(acknowledged=[leased[0].message_id])


def send_and_pump() -> None:
    ports = bootstrap.from_environment()
    send(ports)
    pump(ports)


@pytest.mark.parametrize("name", IN_THE_PIPELINE)
def test_an_instance_arrives_once_wherever_a_process_dies(home: Path, name: str) -> None:
    dies_at(name, send_and_pump)
    ports = bootstrap.from_environment()
    pump(ports)
    stored = home / "storage" / "primary-storage"
    was_answered = name not in (crash_points.AFTER_COMMIT, crash_points.AFTER_PUBLISH)
    if was_answered:
        assert len(list(stored.rglob("*.dcm"))) == 1
    # A sender that got no answer sends again; one that got it may.
    send(ports)
    pump(ports)
    assert len(list(stored.rglob("*.dcm"))) == 1
    assert ports.documents.count("exceptions") == 0


def test_a_change_of_the_configuration_applies_whole_or_not_at_all(home: Path) -> None:
    def change() -> None:
        ports = bootstrap.from_environment()
        ports.configuration.apply({"rulesets": []}, by="test")

    before = bootstrap.embedded(bootstrap.Environment.read()).configuration.export()
    dies_at(crash_points.AFTER_CONFIGURATION_OBJECT, change)
    after = bootstrap.from_environment().configuration
    assert after.export() == before
    after.apply({"rulesets": []}, by="test")
    assert after.export()["rulesets"] == []
