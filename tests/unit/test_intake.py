"""What a source gives is made durable one by one, published together, and told of only then."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shared import bootstrap
from shared.environment import Environment
from shared.errors import PermanentError, StorageUnavailableError
from shared.messages import Source
from shared.pipeline.intake import Intake
from shared.pipeline.ports import Ports
from shared.ports import Outgoing, Retrieved
from tests.data import build

_WITHIN_S = 60.0


@dataclass
class Told:
    """An Outcome that keeps what it is told."""

    came: list[str] = field(default_factory=list)
    not_taken: list[str] = field(default_factory=list)

    def received(self, uid: str, sop_instance_uid: str) -> None:
        self.came.append(sop_instance_uid)

    def refused(self, uid: str, sop_instance_uid: str, error: PermanentError) -> None:
        self.not_taken.append(error.code)


@pytest.fixture
def ports(tmp_path: Path) -> Ports:
    return bootstrap.embedded(Environment.read({"AXIOM_HOME": str(tmp_path)}))


def _watch(ports: Ports, monkeypatch: pytest.MonkeyPatch, fails: Any = None) -> list[int]:
    """How many messages each call published; calls for which `fails` holds raise."""
    publish, batches = ports.bus.publish, []

    def watched(messages: Iterable[Outgoing]) -> None:
        given = list(messages)
        batches.append(len(given))
        if fails is not None and fails(given):
            raise StorageUnavailableError("no")
        publish(given)

    monkeypatch.setattr(ports.bus, "publish", watched)
    return batches


def _intake(ports: Ports) -> Intake:
    return Intake(ports, Source("dicomweb", "pacs"), 1000, threading.Event())


def test_several_are_published_at_once(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    told, batches = Told(), _watch(ports, monkeypatch)
    with _intake(ports) as intake:
        pending = [
            intake.take(Retrieved("", iter([build.ct(instance=str(n))])), told) for n in range(40)
        ]
        for one in pending:
            assert one is not None
            one.result(_WITHIN_S)
    assert sorted(told.came) == sorted(build.uid(str(n)) for n in range(40))
    assert sum(batches) == 40
    assert len(batches) < 40


def test_of_several_that_cannot_be_published_each_is_published_alone(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that still cannot be is not told of as received, and its file is deleted."""
    unlucky = build.uid("3").encode()
    _watch(ports, monkeypatch, lambda given: any(unlucky in one.data for one in given))
    told = Told()
    with _intake(ports) as intake:
        pending = [
            intake.take(Retrieved("", iter([build.ct(instance=str(n))])), told) for n in range(6)
        ]
        errors = [one.exception(_WITHIN_S) for one in pending if one is not None]
    assert [type(error) for error in errors] == [
        *[type(None)] * 3,
        StorageUnavailableError,
        *[type(None)] * 2,
    ]
    assert build.uid("3") not in told.came
    assert len(list(ports.objects.list("received/"))) == 5


def test_a_file_that_is_no_instance_is_refused_between_others(ports: Ports) -> None:
    told = Told()
    with _intake(ports) as intake:
        for data in (build.ct(instance="a"), b"no DICOM" * 4000, build.ct(instance="b")):
            pending = intake.take(Retrieved("", iter([data])), told)
            if pending is not None:
                pending.result(_WITHIN_S)
    assert sorted(told.came) == sorted([build.uid("a"), build.uid("b")])
    assert told.not_taken == ["not-dicom"]
